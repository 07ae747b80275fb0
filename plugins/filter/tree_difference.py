"""Says what it takes to make one directory equal to another, from two listings of ansible.builtin.find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

DOCUMENTATION = """
name: tree_difference
short_description: Compare two listings of ansible.builtin.find
description:
  - Returns C(differing), what has to be copied, and C(surplus), what has to be removed before, both as paths
    relative to the directories. What Python leaves behind is not copied.
  - A directory that is C(differing) stands for all that is in it.
  - Of a link its target is not in a listing, so every link is C(differing).
options:
  _input:
    description: C(files) of the directory that is copied.
    type: list
    elements: dict
    required: true
  of:
    description: That directory.
    type: path
    required: true
  there:
    description: C(files) of the other directory.
    type: list
    elements: dict
    required: true
  at:
    description: The other directory.
    type: path
    required: true
"""

RETURN = """
_value:
  description: Two lists of relative paths, C(differing) and C(surplus).
  type: dict
"""


class _Entry(NamedTuple):
    """One path of a listing."""

    kind: str
    checksum: str
    mode: str


def tree_difference(
    here: Sequence[Mapping[str, Any]], of: str, there: Sequence[Mapping[str, Any]], at: str
) -> dict[str, list[str]]:
    """See DOCUMENTATION."""
    wanted = {path: _as_packed(entry) for path, entry in _entries(here, of) if not _left_by_python(path)}
    present = dict(_entries(there, at))
    differing = {path for path, entry in wanted.items() if entry.kind == "link" or present.get(path) != entry}
    surplus = [
        path for path, entry in present.items() if path not in wanted or wanted[path].kind != entry.kind
    ]
    # tar extracts a directory with all that is in it.
    roots = [path for path in differing if differing.isdisjoint(map(str, PurePosixPath(path).parents))]
    return {"differing": sorted(roots), "surplus": sorted(surplus)}


def _entries(files: Sequence[Mapping[str, Any]], directory: str) -> Iterator[tuple[str, _Entry]]:
    for file in files:
        kind = "directory" if file["isdir"] else "link" if file["islnk"] else "file"
        path = PurePosixPath(file["path"]).relative_to(directory)
        yield str(path), _Entry(kind, file.get("checksum", ""), file["mode"])


def _as_packed(entry: _Entry) -> _Entry:
    """Return the entry with the mode that `tree_archive` gives it."""
    executable = entry.kind == "directory" or int(entry.mode, 8) & 0o100
    return entry._replace(mode="0755" if executable else "0644")


def _left_by_python(path: str) -> bool:
    return "__pycache__" in PurePosixPath(path).parts


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"tree_difference": tree_difference}
