"""Files that a crash leaves as they were or as they were to be, and nothing in between."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, text: str, mode: int = 0o600, directory_mode: int | None = None) -> None:
    """Replace a file as a whole and have it on the disk before returning.

    Whatever the umask, the file ends with `mode`, and its directory with `directory_mode` if that is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if directory_mode is not None:
        path.parent.chmod(directory_mode)
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # whatever the process' umask
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    move(partial, path)


def move(partial: Path, path: Path) -> None:
    """Give a finished file its name, and have the name on the disk before returning."""
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
