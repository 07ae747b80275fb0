"""Action: render a table of files for the module of the same name, which says what it takes."""

from __future__ import annotations

import json
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

Entry = dict[str, Any]

OWNERSHIP = {
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "str", "required": True},
}
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
            "validate": {"type": "str", "default": ""},
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


class _Variables(dict[str, Any]):
    """All variables of a task. The template lookup copies them deeply for each file, which takes longest."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return what the lookup may add variables to. ansible.builtin.template copies no more than this."""
        return dict(self)


class ActionModule(ActionBase):
    """See plugins/modules/host_files.py."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render every file, then have the host compare all of them and write what differs."""
        super().run(tmp, task_vars)
        self._variables: dict[str, Any] = task_vars or {}
        _, self._arguments = self.validate_argument_spec(SPECIFICATION)
        texts = {self._path(one["path"]): self._text(one) for one in self._arguments["files"]}
        done: dict[str, Any] = self._execute_module(
            module_args={
                "directories": [self._resolved(one) for one in self._arguments["directories"]],
                "files": [self._resolved(one) for one in self._arguments["files"]],
                # As one value, which Ansible keeps out of the host's journal and of the result. It would
                # censor each single text, however short, wherever that occurs.
                "texts": json.dumps(texts),
                "look_at": [self._path(path) for path in self._arguments["look_at"]],
            },
            task_vars=self._variables,
        )
        checksums = [sha1(text.encode(), usedforsecurity=False).hexdigest() for text in texts.values()]
        return {**done, "fingerprint": sha256("".join(checksums).encode()).hexdigest()}

    def _path(self, path: str) -> str:
        """Return where a path is on the host."""
        return str(Path(self._arguments["root"], path))

    def _resolved(self, one: Entry) -> Entry:
        """Return an entry without its text; who owns it, if it does not say so, is said for all."""
        return {
            **{name: value for name, value in one.items() if name not in ("src", "content")},
            "path": self._path(one["path"]),
            "owner": one["owner"] or self._arguments["owner"],
            "group": one["group"] or self._arguments["group"],
        }

    def _text(self, one: Entry) -> str:
        """Return the text of an entry of `files`."""
        return self._render(self._source(one)) if one["content"] is None else str(one["content"])

    def _source(self, one: Entry) -> str:
        """Return an entry's template: the one that it names, or else the one of the same path."""
        if one["src"] is not None:
            return str(one["src"])
        templates = self._arguments["templates"]
        if not templates:
            raise AnsibleActionFail(
                f"{one['path']}: it needs src or content, or the task the option templates"
            )
        return f"{templates}/{one['path'].lstrip('/')}.j2"

    def _render(self, source: str) -> str:
        """Return what ansible.builtin.template would write."""
        lookup = self._shared_loader_obj.lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=self._templar
        )
        [text] = lookup.run([source], variables=_Variables(self._variables))
        # A template that writes nothing is None.
        return "" if text is None else str(text)
