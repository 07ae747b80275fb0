"""The lookup that packs a directory: the same files make the same bytes, and nothing else is in it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError

from plugins.lookup.tree_archive import LookupModule, pack


def tree(folder: Path, mode: int) -> Path:
    (folder / "package/__pycache__").mkdir(parents=True)
    (folder / "package/own.egg-info").mkdir()
    for name in ("b.py", "a.py", "__pycache__/a.pyc", "own.egg-info/PKG-INFO"):
        (folder / "package" / name).write_text(name)
    (folder / "package/a.py").chmod(mode)
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(mode | 0o100)
    return folder


def test_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    """Whoever packs them, with whatever umask, and whenever."""
    for name, mode in (("one", 0o600), ("two", 0o664)):
        pack(tree(tmp_path / name, mode), tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        modes = {member.name: oct(member.mode) for member in archive}
    assert modes == {
        "package": "0o755",
        "package/a.py": "0o644",
        "package/b.py": "0o644",
        "program": "0o755",
    }


def test_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match=f"there is no directory {tmp_path}/none to pack"):
        LookupModule().run([str(tmp_path / "none")])
