"""The worktrees and the link `current`: made beside what is live, switched by one rename, kept while tasks
read them.

<trees_dir>/current               -> worktrees/<commit>
<trees_dir>/worktrees/<commit>    complete, by construction: it got this name by a rename
<trees_dir>/worktrees/<commit>-2  made because the one before was damaged; that name may be a link to this one
<trees_dir>/worktrees/.new-…      being made, or left over from a sync that was killed

Limits of names, paths and links stand here; that of a file's size is `blob_limit` in settings.py.
"""

import logging
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from webhook.git import Git, GitError
from webhook.mirror import Entry, Mirror
from webhook.settings import Settings
from webhook.state import Reason

log = logging.getLogger(__name__)
# Said on the command line, too, which the timer calls: whatever goes is named.
removals = logging.getLogger("webhook.removals")

MODE_SYMLINK = "120000"
MODE_SUBMODULE = "160000"

# Airflow parses a file again when its time is later than the end of the last parse. A parse of the old
# content that ends just after the switch would hide the new one until the next interval, so new files are
# dated this far ahead.
LEAD_SECONDS = 2

BLOCK = 4096  # bytes: what even the smallest file takes on the disk

# Bytes of a name and of a path, and folders in it. Linux takes 255 for a name. Airflow's database takes 1024
# for a path (`import_error.filename`), with the way to the tree. Python removes no folders that are nested as
# deep as its stack.
NAME_LIMIT = 255
PATH_LIMIT = 900
DEPTH_LIMIT = 100
TARGET_LIMIT = 4095  # bytes of a symlink's target, by Linux

# What Git LFS commits in a file's place (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
LFS_POINTER = re.compile(
    rb"version https?://(?:git-lfs|hawser)\.github\.com/spec/v\d+\r?\n(?:.*\n)*oid sha256:[0-9a-f]{64}\r?\n"
)
LFS_POINTER_LIMIT = 1024  # bytes

Done = TypeVar("Done")

# Says of a retired worktree, by name, given when each retired and the time now, whether a task may still read
# it.
MayBeUsed = Callable[[str, Mapping[str, float], float], bool]


class DiskFullError(OSError):
    """There is too little disk for another worktree; the message says how much is free."""


class Trees:
    """The folder that Airflow mounts."""

    def __init__(self, directory: Path) -> None:
        """Create the folder when it is missing."""
        self.directory = directory
        self.current = directory / "current"
        self.worktrees = directory / "worktrees"
        self.worktrees.mkdir(parents=True, exist_ok=True)

    def live(self) -> Path | None:
        """Return the worktree that `current` names, or None before the first sync.

        Before it, the link is absent or names a tree that is not of the repository.
        """
        try:
            target = Path(os.readlink(self.current))
        except FileNotFoundError:
            return None
        return self.directory / target if target.parts[0] == "worktrees" else None

    def remove_leftovers(self) -> None:
        """Remove what a killed sync left half made."""
        for pattern in (".current-*", "worktrees/.new-*", "worktrees/.old-*"):
            for leftover in self.directory.glob(pattern):
                _remove(leftover)

    def find(self, mirror: Mirror, commit: str) -> Path | None:
        """Return a kept worktree of the commit whose files are as committed."""
        candidates = [path for path in self._made() if commit_of(path) == commit]
        return next((path for path in sorted(candidates) if is_intact(mirror.git(path), commit)), None)

    def _made(self) -> list[Path]:
        """Return the worktrees, without links that stand for a damaged one."""
        return [path for path in self.worktrees.iterdir() if path.name[0] != "." and not path.is_symlink()]

    def free_percent(self, taken: int = 0) -> float:
        """Return the percentage of the worktrees' disk that is free when so many more bytes are taken."""
        disk = shutil.disk_usage(self.worktrees)
        return 100 * max(0, disk.free - taken) / disk.total if disk.total else 100.0

    def build(self, mirror: Mirror, commit: str, entries: Collection[Entry], least_free: float) -> Path:
        """Check the commit out under a passing name, if that leaves this percentage of the disk free.

        Raises:
            DiskFullError: nothing was begun, because too little disk would be free.
        """
        taken = sum(BLOCK + (entry.size or 0) // BLOCK * BLOCK for entry in entries)
        if (free := self.free_percent(taken)) < least_free:
            raise DiskFullError(
                f"the disk of {self.directory} would have {free:.1f}% free with {commit[:12]}, which is less "
                f"than {least_free:g}%"
            )
        mirror.git().bytes("worktree", "prune")
        building = self.worktrees / f".new-{commit}"
        # Twice: git locks a worktree while it makes it, and leaves that behind when it is killed then.
        force = ("--force", "--force")
        mirror.git().bytes("worktree", "add", *force, "--quiet", "--detach", str(building), commit)
        return building

    def finish(self, mirror: Mirror, building: Path, commit: str) -> Path:
        """Give a checked worktree its final name. A damaged one may stand there, and be in use."""
        final = self.worktrees / commit
        number = 1
        while os.path.lexists(final):
            number += 1
            final = self.worktrees / f"{commit}-{number}"
        building.rename(final)
        mirror.git().bytes("worktree", "repair", str(final))
        return final

    def switch(self, tree: Path) -> None:
        """Make the worktree live with one rename: whoever opens `current` finds the old or the new tree."""
        link = self.directory / f".current-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(self.worktrees.name) / tree.name)
        os.replace(link, self.current)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def prune(self, retired: dict[str, float], may_be_used: MayBeUsed, now: float) -> list[str]:
        """Remove worktrees that no task can be reading any more; return their names.

        `retired` is brought up to date: a worktree seen for the first time since it stopped being current
        retires now.
        """
        live = self.live()
        names = {path.name for path in self.worktrees.iterdir() if not path.name.startswith(".")}
        for name in set(retired) - names:
            del retired[name]
        if live is not None:
            names.discard(live.name)
            retired.pop(live.name, None)
        for name in names:
            retired.setdefault(name, now)
        removed = []
        for name in sorted(names):
            if not may_be_used(name, retired, now):
                # Renamed first, so that nobody can take a half-removed tree for a whole one.
                old = self.worktrees / f".old-{name}"
                (self.worktrees / name).rename(old)
                _remove(old)
                del retired[name]
                removed.append(name)
        return removed

    def remove_unused(self, settings: Settings, retired: dict[str, float], now: float) -> None:
        """Remove what no task can be reading any more, and more of that when the disk is low."""
        low = self.free_percent() < settings.disk_low_percent
        count = 0 if low else settings.keep_trees_count
        rule = kept_by_age_and_count(settings.keep_trees_seconds, count)
        for name in self.prune(retired, rule, now):
            removals.info("removed the worktree %s", name)
        for name in self.link_damaged() if low else ():
            removals.info("removed the damaged worktree %s: its name is now a link to its successor", name)

    def with_sound_mirror(self, mirror: Mirror, work: Callable[[], Done]) -> Done:
        """Do work that needs no remote; if it fails over a damaged mirror, once more on a new one."""
        try:
            return work()
        except GitError:
            # The fetch went well, so it takes a damaged object to fail here.
            if mirror.is_sound():
                raise
            log.warning("the mirror is damaged: recreating it")
            mirror.rebuild()
            self.remove_leftovers()
            return work()

    def link_damaged(self) -> list[str]:
        """Remove all but the last tree of each commit; return their names, which become links to that one.

        The others were damaged, else there would be no later one. A task that began in one of them finds the
        same files by the same path.
        """
        made = sorted(self._made(), key=_number)
        last = {commit_of(path): path for path in made}
        if (live := self.live()) is not None:
            last[commit_of(live)] = live
        removed = []
        for path in made:
            if (stands_in := last[commit_of(path)]) != path:
                old = self.worktrees / f".old-{path.name}"
                path.rename(old)
                path.symlink_to(stands_in.name)
                _remove(old)
                removed.append(path.name)
        return removed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _number(tree: Path) -> int:
    """Return which of its commit's trees this is, as `finish` counts them."""
    number = tree.name.partition("-")[2]
    return int(number) if number.isdecimal() else 1


def commit_of(tree: Path | None) -> str | None:
    """Return the commit that a worktree's name states."""
    return None if tree is None else tree.name.partition("-")[0]


def is_intact(git: Git, commit: str) -> bool:
    """Say whether a worktree is at the commit and no tracked file was changed, lost or cut short."""
    try:
        return git.text("rev-parse", "HEAD") == commit and not differing(git)
    except (GitError, OSError):
        return False


def differing(git: Git) -> list[str]:
    """Return the paths of a worktree that are not as committed."""
    lines = git.bytes("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no").split(b"\0")
    return [os.fsdecode(line[len("XY ") :]) for line in lines if line]


def kept_by_age_and_count(seconds: float, count: int) -> MayBeUsed:
    """Return the default rule: a tree may be in use until `seconds` after it stopped being current.

    The `count` trees retired last are kept in any case, so that a pin to one of them is a mere switch.
    """

    def may_be_used(name: str, retired: Mapping[str, float], now: float) -> bool:
        newest = sorted(retired, key=lambda other: retired[other], reverse=True)[:count]
        return name in newest or now - retired[name] < seconds

    return may_be_used


def carry_times(
    new: Path,
    entries: Collection[Entry],
    live: Path | None,
    live_entries: Collection[Entry],
    refresh: Collection[str],
) -> None:
    """Give files that are the same in the live tree their times there, and all others a new one.

    Airflow then parses what changed and nothing else. `refresh` names files that are the same themselves, but
    read others that changed. Compared with the live tree, not with an older one: after a rollback, too, what
    differs from what Airflow parsed last must look new.
    """
    known = {entry.path: (entry.mode, entry.oid) for entry in live_entries}
    fresh = time.time_ns() + LEAD_SECONDS * 10**9
    for entry in entries:
        if entry.mode == MODE_SUBMODULE:
            continue
        times = (fresh, fresh)
        if (
            live is not None
            and entry.path not in refresh
            and known.get(entry.path) == (entry.mode, entry.oid)
        ):
            status = os.lstat(live / entry.path)
            times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(new / entry.path, ns=times, follow_symlinks=False)


def changed_paths(entries: Collection[Entry], others: Collection[Entry]) -> set[str]:
    """Return the paths that differ between two trees, with the folders whose listing differs, these with a /
    at the end.
    """
    ours = {(entry.path, entry.mode, entry.oid) for entry in entries}
    theirs = {(entry.path, entry.mode, entry.oid) for entry in others}
    changed = {path for path, _, _ in ours ^ theirs}
    came_or_went = {entry.path for entry in entries} ^ {entry.path for entry in others}
    return changed | {f"{parent}/" for path in came_or_went for parent in Path(path).parents}


def reasons_before_checkout(entries: Collection[Entry], dags_folder: str, blob_limit: int) -> list[Reason]:
    """Check what the listing alone shows: all can be checked out as committed, DAGs are where they belong."""
    reasons = [
        Reason(kind, printable(entry.path), message)
        for entry in entries
        for kind, message in _problems(entry, dags_folder, blob_limit)
    ]
    message = "the commit has this name twice, or as a file and as a folder"
    reasons += [Reason("name", printable(path), message) for path in sorted(_ambiguous(entries))]
    if not any(entry.path.startswith(dags_folder + "/") for entry in entries):
        reasons.append(
            Reason("layout", dags_folder, "the folder with the DAGs is missing: every DAG would vanish")
        )
    return reasons


def _problems(entry: Entry, dags_folder: str, blob_limit: int) -> Iterator[tuple[str, str]]:
    """Yield kind and message of what is wrong with one file."""
    size = entry.size or 0
    if entry.mode == MODE_SUBMODULE:
        yield "submodule", "submodules are not fetched: commit the files themselves"
    elif entry.mode == MODE_SYMLINK and not 0 < size <= TARGET_LIMIT:
        yield "symlink", "the symlink's target is empty, or too long"
    elif size > blob_limit:
        yield "size", f"{size / 2**20:.0f} MiB is over the limit of {blob_limit / 2**20:.0f} MiB for a file"
    names = entry.path.split("/")
    if any(name.lower() in ("", ".", "..", ".git") for name in names):
        yield "name", "Git checks out no file of this name"
    elif entry.mode == MODE_SYMLINK and names[-1].lower() == ".gitmodules":
        yield "name", "Git checks out no symlink of this name"
    elif max(len(os.fsencode(name)) for name in names) > NAME_LIMIT:
        yield "name", f"a name in the path is longer than {NAME_LIMIT} bytes"
    elif len(os.fsencode(entry.path)) > PATH_LIMIT or len(names) > DEPTH_LIMIT:
        yield "name", f"the path is longer than {PATH_LIMIT} bytes, or has more than {DEPTH_LIMIT} folders"
    elif entry.path.startswith(dags_folder + "/") and encodable(entry.path) != entry.path:
        yield "name", "the name is not in UTF-8, and Airflow's database takes no other: rename the file"


def _ambiguous(entries: Collection[Entry]) -> set[str]:
    """Return the paths that a commit has twice, or as a file and as a folder: only malformed ones have."""
    folders: set[str] = set()
    for entry in entries:
        folder = entry.path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    counts = Counter(entry.path for entry in entries)
    return {path for path, count in counts.items() if count > 1 or path in folders}


def reasons_after_checkout(tree: Path, entries: Collection[Entry], git: Git) -> list[Reason]:
    """Check that every file is as committed, and no mere pointer to its content; that no symlink leads out
    of the tree, or round in circles, as the file system resolves it.
    """
    message = "the file cannot be checked out as it was committed"
    reasons = [Reason("checkout", printable(path), message) for path in differing(git)]
    if reasons:
        return reasons
    root = tree.resolve()
    for entry in entries:
        path = tree / entry.path
        if entry.mode == MODE_SYMLINK:
            if not _stays_below(root, path):
                message = "the symlink leads out of the repository, or to itself"
                reasons.append(Reason("symlink", printable(entry.path), message))
        elif (entry.size or 0) < LFS_POINTER_LIMIT and LFS_POINTER.match(path.read_bytes()):
            message = "this is a Git LFS pointer, and what it names is not fetched: commit the file itself"
            reasons.append(Reason("lfs", printable(entry.path), message))
    return reasons


def _stays_below(root: Path, link: Path) -> bool:
    try:
        os.stat(link)
    except FileNotFoundError:
        pass  # to a file that is not there: harmless, and `realpath` says where it would be
    except OSError:  # a loop
        return False
    return not os.path.isabs(os.readlink(link)) and Path(os.path.realpath(link)).is_relative_to(root)


def printable(path: str) -> str:
    """Return a path as one line that any log or page can show, whatever bytes the commit has in it."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def encodable(text: str) -> str:
    """Return text that can be written as UTF-8: bytes of a file's name that are none stand for themselves."""
    return text.encode(errors="backslashreplace").decode()
