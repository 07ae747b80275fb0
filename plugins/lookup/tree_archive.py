"""Lookup: a directory of this machine as a tar archive, which one copy carries to the host."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: tree_archive
author: The data platform team
short_description: Pack a directory for ansible.builtin.unarchive
description:
  - Returns the path of a tar archive of the directory's content. It is in Ansible's own temporary
    directory, which is removed at the end of the run.
  - The same files make the same bytes. Owner, times, and what a person's umask does are not in it, nor is
    what Python leaves behind.
  - Unlike rsync it needs no program on the host that C(sudo) would have to start without a password.
options:
  _terms:
    description: One directory.
    required: true
"""

RETURN = r"""
_raw:
  description: The archive's path.
  type: list
  elements: path
"""


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the one path."""
        directory = Path(terms[0])
        if not directory.is_dir():
            raise AnsibleLookupError(f"there is no directory {directory} to pack")
        with tempfile.NamedTemporaryFile(
            suffix=".tar", dir=constants.DEFAULT_LOCAL_TMP, delete=False
        ) as archive:
            pack(directory, Path(archive.name))
        return [archive.name]


def pack(directory: Path, archive: Path) -> None:
    """Write the archive: names in order, owned by root, 0755 or 0644, all of one moment."""

    def same(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = Path(member.name)
        if "__pycache__" in path.parts or path.suffix == ".egg-info":
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = 0
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as bundle:
        # `add` walks a directory in the order of its names.
        for child in sorted(directory.iterdir()):
            bundle.add(child, arcname=child.name, filter=same)
