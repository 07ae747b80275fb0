#!/usr/bin/python
"""Has files on a host as the action of the same name, plugins/action/host_files.py, has rendered them."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shlex
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_files
author: The data platform team
short_description: Have files on the host as templates say, in one look
description:
  - Renders templates on the control node. One run of this module then compares all of them with the host, and
    writes only what differs. C(ansible.builtin.template) runs two to five modules for each file, so a list of
    twenty takes many seconds even when nothing has changed.
  - The comparison is of text, owner, group and mode. A new text goes to a file of its own beside the old one.
    When that has its owner and mode, and C(validate) has succeeded, it replaces the old one at once.
  - A link in the place of a file is replaced, one in the place of a directory is followed. A directory in the
    place of a file is an error.
  - Directories come first, then files, each in the order of its list. The first failure ends the task.
    RV(written) says what is done by then, and a second run goes on from there.
  - The task is changed if anything was written, so C(notify) works as with C(ansible.builtin.template).
  - Check mode works on a bare host. It validates nothing, and reports a file in a directory that does not
    exist yet as changed.
options:
  directories:
    description: Directories to have. Parents that are missing are made, too, with the same owner and mode.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The path on the host., type: str, required: true}
      owner: {description: A name or a number. The default is the option O(owner)., type: str}
      group: {description: A name or a number. The default is the option O(group)., type: str}
      mode: {description: "The mode in four octal digits, in quotes.", type: str, required: true}
  files:
    description: Files to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The path on the host., type: str, required: true}
      src:
        description:
          - A template on the control node. Without this and C(content) it is the one of the same path in
            O(templates).
        type: str
      content: {description: "The text itself, instead of a template.", type: str}
      owner: {description: A name or a number. The default is the option O(owner)., type: str}
      group: {description: A name or a number. The default is the option O(group)., type: str}
      mode: {description: "The mode in four octal digits, in quotes.", type: str, required: true}
      validate:
        description: A command that has to succeed before the file is replaced; C(%s) is the new file's path.
        type: str
        default: ""
      secret:
        description: Never show the text, neither in a diff nor in what a failed C(validate) says.
        type: bool
        default: false
  templates:
    description:
      - A directory of the control node that has the host's files as templates. The template of
        C(etc/example.conf) or C(/etc/example.conf) there is C(etc/example.conf.j2).
    type: str
    default: ""
  root:
    description: The directory on the host below which paths are that are not absolute.
    type: str
    default: /
  owner:
    description: Who owns what says nothing of its own.
    type: str
    default: root
  group:
    description: The group of what says nothing of its own.
    type: str
    default: root
  look_at:
    description: Further paths to look at in the same round trip. They are never changed.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Render the settings and the unit
  host_files:
    templates: /project/templates
    directories:
      - {path: /etc/example, mode: "0700"}
    files:
      - {path: /etc/example/password.env, mode: "0600", secret: true}
      - {path: /etc/systemd/system/example.service, mode: "0644", validate: systemd-analyze verify %s}
  notify: Restart example

- name: Write a token
  host_files:
    files:
      - {path: /etc/example/token, content: "{{ token }}", mode: "0400", secret: true}
  no_log: true # The arguments have the token in them.
"""

RETURN = r"""
written:
  description: The paths that were changed, or would be in check mode.
  returned: always
  type: list
  elements: str
found:
  description: Which of all given paths were on the host before.
  returned: always
  type: list
  elements: str
checksums:
  description: The SHA-1 checksum of each path of O(look_at) that is there, "" for a directory.
  returned: always
  type: dict
modes:
  description: The mode of each path of O(look_at) that is there, in four octal digits.
  returned: always
  type: dict
fingerprint:
  description: The SHA-256 of all texts of O(files) in their order. It differs when one of them does.
  returned: always
  type: str
path:
  description: The path at which it failed.
  returned: failure
  type: str
"""

Entry = dict[str, Any]
"""A line of a table: path, owner, group, mode; that of a file also validate and secret."""
Difference = tuple[Any, Any]
"""What was there and what is to be there: two texts, or two states."""


class Refused(Exception):
    """Why a path does not become what it should be."""


class Attributes(NamedTuple):
    """Who has a path, and what may be done with it."""

    owner: int
    group: int
    mode: int

    def set(self, path: str | int) -> None:
        """Set them on a path or an open file. The owner comes first: its change takes bits off the mode."""
        os.chown(path, self.owner, self.group)
        os.chmod(path, self.mode)

    def shown(self) -> dict[str, Any]:
        """Return them as a person reads them."""
        return {"owner": self.owner, "group": self.group, "mode": f"{self.mode:04o}"}


def attributes(entry: Entry) -> Attributes:
    """Return what an entry asks for. Owner and group may be names or numbers."""
    owner, group = entry["owner"], entry["group"]
    return Attributes(
        int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid,
        int(group) if group.isdigit() else grp.getgrnam(group).gr_gid,
        int(entry["mode"], 8),
    )


def look(path: str, *, follow: bool = False) -> os.stat_result | None:
    """Return what the host says of a path, None if nothing is there."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None


def compare(entry: Entry, there: os.stat_result) -> list[Difference]:
    """Return how owner, group and mode differ, if they do."""
    before = Attributes(there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode))
    after = attributes(entry)
    return [] if before == after else [(before.shown(), after.shown())]


def make_directory(path: Path, wanted: Attributes) -> None:
    """Make a directory, after those of its parents that are missing."""
    if not path.parent.exists():
        make_directory(path.parent, wanted)
    path.mkdir(mode=0o700)
    wanted.set(str(path))


def have_directory(module: AnsibleModule, entry: Entry) -> list[Difference]:
    """Have a directory as its entry says, and return what was different."""
    there = look(entry["path"], follow=True)
    if there is None:
        if not module.check_mode:
            make_directory(Path(entry["path"]), attributes(entry))
        return [({"state": "absent"}, {"state": "directory"})]
    if not stat.S_ISDIR(there.st_mode):
        raise Refused("there is something else than a directory")
    differences = compare(entry, there)
    if differences and not module.check_mode:
        attributes(entry).set(entry["path"])
    return differences


def have_file(module: AnsibleModule, entry: Entry, text: str) -> list[Difference]:
    """Have a file as its entry says, and return what was different."""
    path, there = entry["path"], look(entry["path"])
    if there and stat.S_ISDIR(there.st_mode):
        raise Refused("there is a directory; remove it")
    if not there or not stat.S_ISREG(there.st_mode):
        before, differences = None, []
    else:
        before, differences = Path(path).read_bytes(), compare(entry, there)
    if before != text.encode():
        if not module.check_mode:
            replace(module, entry, text)
        return [((before or b"").decode(errors="replace"), text), *differences]
    if differences and not module.check_mode:
        attributes(entry).set(path)
    return differences


def replace(module: AnsibleModule, entry: Entry, text: str) -> None:
    """Write a file beside its place, have it validated, and put it there at once."""
    path = Path(entry["path"])
    if not path.parent.is_dir():
        raise Refused(f"Destination directory {path.parent} does not exist")
    # Its suffix tells the program that validates it what it is.
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            attributes(entry).set(descriptor)
            file.write(text.encode())
        if entry["validate"]:
            validate(module, entry, new)
        os.replace(new, path)
    finally:
        module.cleanup(new)


def validate(module: AnsibleModule, entry: Entry, path: str) -> None:
    """Have a program check a file. What it says of one with secrets may quote them, and is left out."""
    if "%s" not in entry["validate"]:
        raise Refused("validate must contain %s")
    command = entry["validate"].replace("%s", shlex.quote(path))
    code, out, err = module.run_command(command, handle_exceptions=False)
    if code != 0:
        raise Refused(f"failed to validate {'' if entry['secret'] else err or out}".strip())


def main() -> None:
    """Run as an Ansible module. The action has checked its options, and says what an entry may have."""
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "dict", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "texts": {"type": "str", "required": True, "no_log": True},
            "look_at": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    directories, files, look_at = (module.params[name] for name in ("directories", "files", "look_at"))
    texts = json.loads(module.params["texts"])
    entries: list[Entry] = [*directories, *files]
    seen = {path: there for path in look_at if (there := look(path))}
    result: dict[str, Any] = {
        "changed": False,
        "written": [],
        "diff": [],
        "found": [path for path in (*(entry["path"] for entry in entries), *look_at) if look(path)],
        "checksums": {
            path: module.sha1(path) if stat.S_ISREG(there.st_mode) else "" for path, there in seen.items()
        },
        "modes": {path: f"{stat.S_IMODE(there.st_mode):04o}" for path, there in seen.items()},
    }
    for entry in entries:
        path = entry["path"]
        try:
            differences = (
                have_file(module, entry, texts[path]) if path in texts else have_directory(module, entry)
            )
        except (Refused, OSError, LookupError, ValueError) as error:
            module.fail_json(f"{path}: {error}", path=path, **result)
        if differences:
            result["changed"] = True
            result["written"].append(path)
        if module._diff and not entry.get("secret"):
            result["diff"] += [
                {"before_header": path, "before": before, "after_header": path, "after": after}
                for before, after in differences
            ]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
