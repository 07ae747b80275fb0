"""Folders that a commit's code can write to, and that must be as before when the next one is checked."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path


class Scratch:
    """What was in some folders at first: links, files with their content, and folders."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """Remember what is there. It has to be little, since it stays in memory."""
        self._folders = [str(folder) for folder in folders]
        self._modes: dict[str, int] = {}
        self._files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        for folder in self._folders:
            for root, folders_in_it, names in os.walk(folder):
                for path in (os.path.join(root, name) for name in (*folders_in_it, *names)):
                    self._remember(path)

    def _remember(self, path: str) -> None:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            self._links[path] = os.readlink(path)
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            self._modes[path] = stat.S_IMODE(mode)
            if stat.S_ISREG(mode):
                self._files[path] = Path(path).read_bytes()

    def restore(self) -> None:
        """Make the folders as they were. No other process may be writing there.

        Raises:
            subprocess.CalledProcessError: something in them cannot be removed.
        """
        if not self._folders:
            return
        # By find(1): Python removes no folders that are nested as deep as its stack.
        find = ["find", *self._folders, "-ignore_readdir_race", "-mindepth", "1"]
        closed = ["-type", "d", "!", "-perm", "-u=rwx"]
        subprocess.run([*find, *closed, "-exec", "chmod", "u+rwx", "{}", ";"], check=True)  # noqa: S603 - fixed, but for the folders
        subprocess.run([*find, "-delete"], check=True)  # noqa: S603 - as above
        for path, mode in self._modes.items():  # a folder comes before what is in it
            if path in self._files:
                Path(path).write_bytes(self._files[path])
            else:
                os.mkdir(path)
            os.chmod(path, mode)
        for path, target in self._links.items():
            os.symlink(target, path)
