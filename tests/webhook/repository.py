"""Commits of any form, written as Git's own objects: also such as `git commit` would never make."""

import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

REGULAR, EXECUTABLE, SYMLINK, SUBMODULE = b"100644", b"100755", b"120000", b"160000"
ANN = b"Ann Example <ann@example.org>"


@dataclass(frozen=True)
class File:
    """One file of a commit; of a symlink `content` is its target."""

    content: bytes
    mode: bytes = REGULAR


Tree = Mapping[bytes, File]


class Objects:
    """Writes the objects of a repository with a working copy, in the form of gitformat-loose(5)."""

    def __init__(self, repository: Path) -> None:
        self._git = repository / ".git"
        self._time = 1_800_000_000

    def write(self, kind: bytes, content: bytes) -> bytes:
        """Return the id of an object, which is written where it is not there."""
        whole = kind + b" %d\0" % len(content) + content
        digest = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        path = self._git / "objects" / digest[:2] / digest[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(whole))
        return digest.encode()

    def tree(self, files: Tree) -> bytes:
        """Return the id of a tree. A name that is a file and a folder stands there twice."""
        entries = []
        folders: dict[bytes, dict[bytes, File]] = {}
        for path, file in files.items():
            first, _, rest = path.partition(b"/")
            if rest:
                folders.setdefault(first, {})[rest] = file
            elif file.mode == SUBMODULE:
                entries.append((first, file.mode, b"1" * 40))
            else:
                entries.append((first, file.mode, self.write(b"blob", file.content)))
        entries += [(name, b"40000", self.tree(content)) for name, content in folders.items()]
        entries.sort(key=lambda entry: entry[0] + (b"/" if entry[1] == b"40000" else b""))
        return self.write(
            b"tree",
            b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid.decode()) for name, mode, oid in entries),
        )

    def commit(
        self,
        files: Tree,
        parents: Iterable[str] = (),
        author: bytes | None = None,
        message: bytes = b"a change",
    ) -> str:
        """Return the id of a commit; `author` is the whole line, with its time."""
        self._time += 1
        author = author if author is not None else ANN + b" %d +0000" % self._time
        lines = [b"tree " + self.tree(files), *(b"parent " + parent.encode() for parent in parents)]
        lines += [b"author " + author, b"committer " + author, b"", message]
        return self.write(b"commit", b"\n".join(lines)).decode()

    def push(self, commit: str, branch: str = "production") -> str:
        """Have the branch name the commit, and return it."""
        (self._git / "refs/heads" / branch).write_text(commit + "\n")
        return commit


def content_of(tree: Path) -> dict[bytes, File]:
    """Return what is below a folder, but for Git's own file at its top."""
    found = {}
    top = os.fsencode(tree.resolve())
    for folder, folders, names in os.walk(top):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                file = File(os.readlink(path), SYMLINK)
            else:
                mode = EXECUTABLE if os.stat(path).st_mode & 0o100 else REGULAR
                file = File(Path(os.fsdecode(path)).read_bytes(), mode)
            found[os.path.relpath(path, top)] = file
    del found[b".git"]
    return found
