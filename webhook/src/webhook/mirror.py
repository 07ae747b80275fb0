"""The bare mirror of the one branch that matters. Repairs itself: stale locks are removed, a broken mirror is
replaced.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from webhook import ssh
from webhook.git import Git, GitError
from webhook.settings import RepositorySettings
from webhook.state import Commit


class BranchMissingError(Exception):
    """The remote answers, and has no such branch. What is live stays live."""


class UnknownCommitError(Exception):
    """The mirror has no such commit, or more than one begins with these digits."""


class RemoteError(Exception):
    """The remote did not answer, or refused. The mirror itself is sound."""


@dataclass(frozen=True)
class Fetched:
    """What a fetch found. `forced_from`: the old head, when the branch moved to a commit that lacks it."""

    head: str
    forced_from: str | None


@dataclass(frozen=True)
class Entry:
    """One file of a commit as `git ls-tree -r -l` lists it; `size` in bytes, None for a submodule."""

    mode: str
    oid: str
    size: int | None
    path: str


class Mirror:
    """The mirror in `directory`. Call only while holding the sync lock, whose descriptor is `lock`."""

    def __init__(self, directory: Path, repository: RepositorySettings, lock: int) -> None:
        """Touch nothing yet."""
        self.directory = directory
        self._repository = repository
        self._lock = lock

    def git(self, directory: Path | None = None) -> Git:
        """Return a git bound to the mirror, or to a worktree of it."""
        return Git(
            directory or self.directory,
            self._repository.timeout,
            ssh.ssh_environment(self._repository),
            (self._lock,),
        )

    @property
    def _ref(self) -> str:
        return f"refs/heads/{self._repository.branch}"

    def fetch(self) -> Fetched:
        """Bring the branch up to date, following a force-push; build the mirror first where there is none.

        Raises:
            BranchMissingError, RemoteError: nothing changed.
        """
        self.remove_stale_locks()
        if not self.directory.exists():
            self.rebuild()
        before = self.head()
        retrying = Retrying(
            retry=retry_if_exception_type(RemoteError),
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=self._repository.retry_pause, max=5),
            reraise=True,
        )
        retrying(self._fetch_or_repair)
        head = self.head()
        if head is None:
            raise RemoteError(f"{self._repository.branch} is not in the mirror after a fetch")
        forced = before is not None and before != head and not self._contains(head, before)
        return Fetched(head, before if forced else None)

    def _fetch_or_repair(self) -> None:
        try:
            self._fetch_into(self.directory)
        except GitError as error:
            if not self.is_sound():
                self.rebuild()
                return
            raise self._explain(error) from None

    def _fetch_into(self, directory: Path) -> None:
        options = [
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
        ]
        self.git(directory).bytes("fetch", *options, self._repository.url, f"+{self._ref}:{self._ref}")

    def _explain(self, error: GitError) -> Exception:
        """Tell a deleted branch from a remote that cannot be reached, and say what to do about that."""
        branch = self._repository.branch
        if "couldn't find remote ref" in error.message:
            return BranchMissingError(f"the branch {branch} no longer exists on the remote")
        reason = ssh.explain(error.message, self._repository) or error.message
        return RemoteError(f"{branch} could not be fetched: {reason}")

    def remove_stale_locks(self) -> None:
        """Remove git's own lock files: we hold the sync lock, so whoever made them is dead."""
        for lock in self.directory.rglob("*.lock"):
            lock.unlink()

    def is_sound(self) -> bool:
        """Say whether every object can be read. Reads all of the mirror: for use after a failure only."""
        git = self.git()
        return (
            self.directory.is_dir()
            and git.succeeds("rev-parse", "--resolve-git-dir", ".")
            and git.succeeds("fsck", "--full", "--no-dangling", "--no-progress")
        )

    def rebuild(self) -> None:
        """Make the mirror anew beside the old one, then put it in its place.

        Raises:
            BranchMissingError, RemoteError: the old one, such as it is, stays.
        """
        new = self.directory.with_name(self.directory.name + ".new")
        old = self.directory.with_name(self.directory.name + ".broken")
        for leftover in (new, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        new.mkdir(parents=True)
        try:
            self.git(new).bytes("init", "--quiet", "--bare", "--initial-branch", self._repository.branch)
            self._fetch_into(new)
        except GitError as error:
            raise self._explain(error) from None
        if self.directory.exists():
            self.directory.rename(old)
        new.rename(self.directory)
        if old.exists():
            shutil.rmtree(old)

    def head(self) -> str | None:
        """Return the commit of the branch as of the last fetch."""
        try:
            return self.git().text("rev-parse", "--verify", "--quiet", self._ref + "^{commit}")
        except (GitError, OSError):
            return None

    def resolve(self, digits: str) -> str:
        """Return the full id of a commit of which the first digits are given.

        Raises:
            UnknownCommitError: no such commit, or several.
        """
        if not re.fullmatch(r"[0-9a-f]{4,40}", digits):
            raise UnknownCommitError(f"{digits!r} is not a commit id: 4 to 40 of the digits 0-9 a-f")
        try:
            return self.git().text("rev-parse", "--verify", "--quiet", digits + "^{commit}")
        except (GitError, OSError):
            raise UnknownCommitError(
                f"no commit of {self._repository.branch} begins with {digits}, or several do"
            ) from None

    def has(self, commit: str) -> bool:
        """Say whether the mirror holds a commit: after a force-push a rebuilt one may lack what is live."""
        return self.git().succeeds("cat-file", "-e", commit + "^{commit}")

    def describe(self, commit: str) -> Commit:
        """Return author, date and subject of a commit."""
        fields = self.git().text("show", "--no-patch", "--format=%an%x00%ct%x00%s", commit).split("\0")
        return Commit(id=commit, author=fields[0], committed_at=float(fields[1]), subject=fields[2])

    def entries(self, commit: str) -> list[Entry]:
        """List every file of a commit, with its size."""
        entries = []
        for line in self.git().bytes("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split(b"\0"):
            if line:
                facts, path = line.split(b"\t", 1)
                mode, _, oid, size = facts.decode().split()
                name = path.decode(errors="surrogateescape")
                if size == "BAD":  # git's word for an object that it cannot find
                    raise GitError(("ls-tree",), f"the object of {name!r} is missing")
                entries.append(Entry(mode, oid, None if size == "-" else int(size), name))
        return entries

    def changed_outside(self, folder: str, since: str, commit: str) -> list[str]:
        """List the paths outside `folder` that differ between commits; none when `since` is not known."""
        if not self.has(since):
            return []
        names = self.git().bytes("diff", "--name-only", "-z", since, commit, "--", ".", f":(exclude){folder}")
        return [name.decode(errors="backslashreplace") for name in names.split(b"\0") if name]

    def tidy(self) -> None:
        """Forget worktrees that are gone and pack when git thinks it is due."""
        git = self.git()
        git.bytes("worktree", "prune")
        git.bytes("gc", "--auto", "--quiet")

    def _contains(self, commit: str, ancestor: str) -> bool:
        return self.git().succeeds("merge-base", "--is-ancestor", ancestor, commit)
