"""Action: have files on a host as templates say. What it takes is in plugins/modules/host_files.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1, sha256
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

Result = dict[str, Any]
Found = dict[str, dict[str, Any]]
Step = tuple[str, bool, Result]
"""The path of what was made or written, whether it is a secret, and how that went."""

OWNERSHIP = {"owner": {"type": "str"}, "group": {"type": "str"}, "mode": {"type": "str"}}
SPECIFICATION: dict[str, Any] = {
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "str", "required": True}, **OWNERSHIP},
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "src": {"type": "str"},
            "content": {"type": "str", "no_log": True},
            "validate": {"type": "str"},
            "secret": {"type": "bool", "default": False},
            **OWNERSHIP,
        },
        "mutually_exclusive": [["src", "content"]],
    },
    "templates": {"type": "str", "default": ""},
    "root": {"type": "str", "default": "/"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "look_at": {"type": "list", "elements": "str", "default": []},
}


class Ownership(TypedDict):
    """Who has a file, and what may be done with it; the mode is octal, such as 0644."""

    owner: str
    group: str
    mode: str | None


@dataclass(frozen=True)
class Wanted:
    """A file as it should be on the host."""

    path: str
    text: str
    ownership: Ownership
    validate: str | None
    secret: bool

    @property
    def checksum(self) -> str:
        """The SHA-1 of its text, by which `find` tells files apart."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def is_there(self, found: Found) -> bool:
        """Say whether the host has exactly this."""
        there = found.get(self.path, {})
        return fits(there, self.ownership) and there.get("checksum") == self.checksum


def fits(there: dict[str, Any], wanted: Ownership) -> bool:
    """Say whether what `find` says of a path is as wanted; owner and group may be names or numbers."""
    return (
        bool(there)
        and wanted["owner"] in (there.get("pw_name"), str(there["uid"]))
        and wanted["group"] in (there.get("gr_name"), str(there["gid"]))
        and (wanted["mode"] is None or wanted["mode"] == there["mode"])
    )


class ActionModule(ActionBase):
    """See plugins/modules/host_files.py."""

    # copy makes its own temporary directory on the host; one for a mere look would cost a second round trip.
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Look once at the host, then make each thing that differs as it should be."""
        super().run(tmp, task_vars)
        self._variables: dict[str, Any] = task_vars or {}
        _, arguments = self.validate_argument_spec(SPECIFICATION)
        root = Path(arguments["root"])
        directories = {
            str(root / one["path"]): self._ownership(one, arguments) for one in arguments["directories"]
        }
        files = [self._wanted(one, arguments) for one in arguments["files"]]
        look_at = [str(root / path) for path in arguments["look_at"]]

        paths = [*directories, *(one.path for one in files), *look_at]
        found, missing = self._look(paths)
        result: Result = {"changed": False, "written": [], "diff": []}
        result["found"] = [path for path in paths if path in found]
        result["checksums"] = {path: found[path].get("checksum", "") for path in look_at if path in found}
        result["modes"] = {path: found[path]["mode"] for path in look_at if path in found}
        result["fingerprint"] = sha256("".join(one.checksum for one in files).encode()).hexdigest()
        steps = chain(
            self._create_those_that_differ(directories, found),
            self._write_those_that_differ(files, found, missing),
        )
        for path, secret, done in steps:
            if done.get("failed"):
                return {**result, "failed": True, "path": path, "msg": self._reason(path, secret, done)}
            result["changed"] = result["changed"] or done.get("changed", False)
            result["written"] += [path] if done.get("changed") else []
            if not secret:
                diff = done.get("diff", [])
                result["diff"] += diff if isinstance(diff, list) else [diff]
        return result

    def _ownership(self, one: dict[str, Any], arguments: dict[str, Any]) -> Ownership:
        """Return an entry's owner, group and mode; what it does not say is said for all."""
        return {
            "owner": one["owner"] or arguments["owner"],
            "group": one["group"] or arguments["group"],
            "mode": one["mode"],
        }

    def _wanted(self, one: dict[str, Any], arguments: dict[str, Any]) -> Wanted:
        """Render an entry of `files`."""
        return Wanted(
            path=str(Path(arguments["root"], one["path"])),
            text=one["content"] if one["content"] is not None else self._render(self._source(one, arguments)),
            ownership=self._ownership(one, arguments),
            validate=one["validate"] or None,
            secret=one["secret"],
        )

    def _source(self, one: dict[str, Any], arguments: dict[str, Any]) -> str:
        """Return an entry's template: the one that it names, or else the one of the same path."""
        if one["src"] is not None:
            return str(one["src"])
        if not arguments["templates"]:
            raise AnsibleActionFail(
                f"{one['path']}: it needs src or content, or the task the option templates"
            )
        return f"{arguments['templates']}/{one['path'].lstrip('/')}.j2"

    def _render(self, source: str) -> str:
        """Return what ansible.builtin.template would write."""
        lookup = self._shared_loader_obj.lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=self._templar
        )
        [text] = lookup.run([source], variables=self._variables)
        # A template that writes nothing is None.
        return "" if text is None else str(text)

    def _look(self, paths: list[str]) -> tuple[Found, set[str]]:
        """Return what is there of these paths, and which of their folders are not.

        A missing folder is no error: a bare host has none.
        """
        folders = sorted({str(Path(path).parent) for path in paths})
        names = sorted({Path(path).name.replace("[", "[[]") for path in paths})
        arguments = {
            "paths": folders,
            "patterns": names,
            "file_type": "any",
            "hidden": True,
            "get_checksum": True,
        }
        done = self._execute_module(
            module_name="ansible.legacy.find", module_args=arguments, task_vars=self._variables
        )
        if done.get("failed"):
            raise AnsibleActionFail(f"cannot look at the host's files: {done.get('msg', done)}")
        return {one["path"]: one for one in done["files"] if one["path"] in paths}, set(done["skipped_paths"])

    def _create_those_that_differ(self, directories: dict[str, Ownership], found: Found) -> Iterator[Step]:
        """Yield a step for each directory that is not on the host as it should be."""
        for path, ownership in directories.items():
            if not fits(found.get(path, {}), ownership) or not found[path]["isdir"]:
                arguments = {"path": path, "state": "directory", **ownership}
                yield (
                    path,
                    False,
                    self._execute_module(
                        module_name="ansible.legacy.file", module_args=arguments, task_vars=self._variables
                    ),
                )

    def _write_those_that_differ(
        self, files: list[Wanted], found: Found, missing: set[str]
    ) -> Iterator[Step]:
        """Yield a step for each file that is not on the host as it should be."""
        for file in files:
            if file.is_there(found):
                continue
            if self._task.check_mode and str(Path(file.path).parent) in missing:
                # The folder is one that a check does not make, and copy would fail without it.
                diff = {
                    "before": "",
                    "after": file.text,
                    "before_header": file.path,
                    "after_header": file.path,
                }
                yield file.path, file.secret, {"changed": True, "diff": diff if self._task.diff else []}
            else:
                yield file.path, file.secret, self._copy(file)

    def _copy(self, file: Wanted) -> Result:
        """Write a file as ansible.builtin.copy does, by it."""
        with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as folder:
            source = Path(folder) / Path(file.path).name
            source.write_bytes(file.text.encode())
            task = self._task.copy()
            task.args = {"src": str(source), "dest": file.path, **file.ownership}
            if file.validate:
                task.args["validate"] = file.validate
            task.diff = self._task.diff and not file.secret
            # The host's journal has a module's arguments, and copy's have the checksum of the text.
            task.no_log = self._task.no_log or file.secret
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.legacy.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            done: Result = copy.run(task_vars=self._variables)
            return done

    def _reason(self, path: str, secret: bool, done: Result) -> str:
        """Say why a step failed; what a program said of a file with secrets may quote them."""
        said = "" if secret else done.get("stderr") or done.get("stdout") or ""
        return f"{path}: {done.get('msg', 'failed')} {said}".strip()
