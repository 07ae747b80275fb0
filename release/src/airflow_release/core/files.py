"""Files that a crash leaves as they were or as they were to be, and nothing in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def replace_file(path: Path, text: str, mode: int = 0o600, directory_mode: int | None = None) -> None:
    """Replace a file as a whole and have it on the disk before returning.

    Whatever the umask, the file ends with `mode`, and its directory with `directory_mode` if that is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if directory_mode is not None:
        path.parent.chmod(directory_mode)
    with replacing(path) as file:
        os.fchmod(file.fileno(), mode)  # whatever the process' umask
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file, for nobody else's eyes yet, that takes the place of another when the block has ended."""
    partial = path.with_name(f".{path.name}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
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
