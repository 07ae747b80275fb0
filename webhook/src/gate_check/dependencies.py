"""What a file's verdict depends on: noted in the child that parses it, compared before it counts again.

A module that is not there counts like one that is: whoever adds it changes what an import finds. What native
code opens by itself is not seen.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gate_check.report import ParsedFile

# It lists each folder that it searches: `find_spec` notes what for.
_IMPORT_SYSTEM = "importlib._bootstrap_external"
# They look in each folder of the import path for what describes an installed package.
_METADATA = ("importlib/metadata", "importlib_metadata", "pkg_resources")
_ANY_METADATA = "*-info"
_METADATA_SUFFIXES = (".dist-info", ".egg-info", ".egg", ".egg-link")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_FORKS = ("os.fork", "os.forkpty")
# Until Python 3.10 pathlib does not call the functions of `os`, but those that it found there at its import.
_OF_PATHLIB = getattr(pathlib, "_NormalAccessor", None)
# ValueError: code may look for a path that no file can have, such as one with a zero byte.
_NO_SUCH_PATH = (OSError, ValueError)


class Recorder:
    """Notes what this process opens, lists, looks at and looks for in a tree, from `start` on."""

    def __init__(self, tree: Path) -> None:
        """Note nothing yet."""
        self._tree = str(tree)
        self._reads: set[str] = set()
        self._lookups: set[str] = set()
        self._repeatable = True

    def start(self) -> None:
        """Begin. Nothing of the tree may have been imported."""
        sys.addaudithook(self._hear)
        sys.meta_path.insert(0, self)
        for name in ("stat", "lstat", "access", "readlink"):  # which no audit event tells
            function = getattr(os, name)
            noting = self._noting(function)
            setattr(os, name, noting)
            if getattr(_OF_PATHLIB, name, None) is function:
                setattr(_OF_PATHLIB, name, staticmethod(noting))
            for supported in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
                if function in supported:
                    supported.add(noting)

    def write(self, parsed: ParsedFile) -> None:
        """Put down what was seen until now."""
        parsed.reads, parsed.lookups = sorted(self._reads), sorted(self._lookups)
        parsed.repeatable = self._repeatable

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        """Find nothing, as the first of the finders, and note the folders where the others will look."""
        for folder in sys.path if path is None else path:
            self._note_lookup(folder, name.rpartition(".")[2])

    def _inside(self, path: object) -> str | None:
        """Return a path as relative to the tree, or None where it is not below it."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        full = os.path.abspath(os.fsdecode(path))
        if full == self._tree:
            return "."
        return full[len(self._tree) + 1 :] if full.startswith(self._tree + os.sep) else None

    def _note_read(self, path: object, end: str = "") -> None:
        inside = self._inside(path)
        if inside is not None:
            self._reads.add(inside + end)

    def _note_lookup(self, folder: object, module: str) -> None:
        inside = self._inside(folder)
        if inside is not None:
            self._lookups.add(f"{inside}/{module}")

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "sqlite3.connect"):
            self._note_read(arguments[0])
        elif event in ("os.listdir", "os.scandir"):
            folder = "." if arguments[0] is None else arguments[0]
            caller = sys._getframe(1).f_code.co_filename
            if any(part in caller for part in _METADATA):
                self._note_lookup(folder, _ANY_METADATA)
            elif _IMPORT_SYSTEM not in caller:
                self._note_read(folder, "/")
        elif event in _FORKS:
            self._repeatable = False
        elif event in _PROGRAMS and (self._inside(".") or self._tree in repr(arguments)):
            self._repeatable = False  # what a program reads is not seen

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def noting(path: object, *arguments: Any, **options: Any) -> Any:
            if options.get("dir_fd") is None:
                self._note_read(path)
            return function(path, *arguments, **options)

        return noting


class Digests:
    """Digests of what is in a tree, each made once; None for what does not exist."""

    def __init__(self, tree: Path) -> None:
        """Read nothing yet."""
        self._tree = tree
        self._reads: dict[str, str | None] = {}
        self._listings: dict[str, dict[str, str] | None] = {}
        self._all: str | None = None

    def read(self, name: str) -> str | None:
        """Digest a file's content, a folder's listing (its name ends in /), or what else is at a path."""
        if name not in self._reads:
            self._reads[name] = repr(self._listing(name)) if name.endswith("/") else self._content(name)
        return self._reads[name]

    def lookup(self, name: str) -> str | None:
        """Say what the import system finds where it looks for a module; `name` is as in `ParsedFile`."""
        folder, _, module = name.rpartition("/")
        entries = self._listing(folder)
        if entries is None:
            return None
        if module == _ANY_METADATA:
            return repr([entry for entry in entries if entry.endswith(_METADATA_SUFFIXES)])
        # Modules, compiled ones too, have a name of these. A plain folder is one only where no package is.
        found = [(entry, kind) for entry, kind in entries.items() if entry.partition(".")[0] == module]
        package = self._listing(f"{folder}/{module}") if module in entries else None
        return repr((found, [entry for entry in package or () if entry.partition(".")[0] == "__init__"]))

    def of(self, parsed: ParsedFile) -> dict[str, str | None]:
        """Digest all that a verdict depends on."""
        if not parsed.repeatable:
            return {"": self._of_all()}
        lookups = {f"\0{name}": self.lookup(name) for name in parsed.lookups}
        return {**lookups, **{name: self.read(name) for name in parsed.reads}}

    def _of_all(self) -> str:
        """Digest every file and folder. Git's own `.git` is another one in each worktree."""
        if self._all is None:
            digest = hashlib.sha256()
            for root, folders, names in os.walk(self._tree):
                folders.sort()
                inside = os.path.relpath(root, self._tree)
                digest.update(repr((inside, self._listing(inside))).encode())
                for name in sorted((*names, *folders)):
                    path = os.path.normpath(os.path.join(inside, name))
                    if path != ".git":
                        digest.update(repr((path, self.read(path))).encode())
            self._all = digest.hexdigest()
        return self._all

    def _content(self, name: str) -> str | None:
        path = self._tree / name
        digest = hashlib.sha256()
        try:
            # Code can ask for where a link leads, and a file for its mode.
            digest.update(os.fsencode(os.path.relpath(os.path.realpath(path), self._tree)))
            digest.update(b"\0%o\0" % path.stat().st_mode)
            if not path.is_dir():
                with path.open("rb") as file:
                    for block in iter(lambda: file.read(2**20), b""):
                        digest.update(block)
        except _NO_SUCH_PATH:
            return _target(path)
        return digest.hexdigest()

    def _listing(self, name: str) -> dict[str, str] | None:
        """Return the entries of a folder with their kinds."""
        folder = os.path.normpath(name)
        if folder not in self._listings:
            try:
                with os.scandir(self._tree / folder) as entries:
                    self._listings[folder] = {
                        entry.name: _kind(entry) for entry in sorted(entries, key=_name)
                    }
            except _NO_SUCH_PATH:
                self._listings[folder] = None
        return self._listings[folder]


def _target(path: Path) -> str | None:
    """Return where a link to nothing leads, or None where there is no link either."""
    try:
        return f"a link to {os.readlink(path)}"
    except _NO_SUCH_PATH:
        return None


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return "folder" if entry.is_dir() else "file"
    except OSError:  # a link in a circle
        return "nothing"
