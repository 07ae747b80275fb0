"""The bare mirror of the one branch that matters. Repairs itself: stale locks are removed, a broken mirror is
replaced. The first clone goes on where it was interrupted.
"""

import re
import shutil
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from webhook import ssh
from webhook.git import Git, GitError, SilentRemoteError
from webhook.settings import RepositorySettings
from webhook.state import Commit

# Above all attributes that a commit, the host or a user has (gitattributes(5)): a worktree has the bytes of
# the blobs, whatever those say.
_ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding\n"

_NO_BRANCH = "couldn't find remote ref"  # in git's words
_FIRST_DEEPENING = 100  # commits; each further one is four times as large
SUBJECT_LIMIT = 300  # characters
LATEST = 253_402_300_799.0  # the last second of the year 9999, after which no calendar goes


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
    """The mirror in `directory`. Call only while holding the sync lock, whose descriptor is `lock`; to look
    something up, not even that.
    """

    def __init__(
        self,
        directory: Path,
        repository: RepositorySettings,
        lock: int | None,
        go_on: Callable[[], None] = lambda: None,
        commit: str | None = None,
    ) -> None:
        """Touch nothing yet. `go_on` is called while git talks to the remote, and may raise to end that.

        With a `commit`, that is what is fetched from the remote's objects, whatever its branches have.
        """
        self.directory = directory
        self._repository = repository
        self._inherited = () if lock is None else (lock,)
        self._go_on = go_on
        self._source = commit or f"refs/heads/{repository.branch}"

    def git(self, directory: Path | None = None) -> Git:
        """Return a git bound to the mirror, or to a worktree of it."""
        return Git(directory or self.directory, ssh.ssh_environment(self._repository), self._inherited)

    @property
    def _new(self) -> Path:
        """A mirror that is being made, in parts. What arrived stays, whatever ends the fetch."""
        return self.directory.with_name(self.directory.name + ".new")

    @property
    def _ref(self) -> str:
        """The branch's name here. It has no /, so that `production/live` can come after `production`."""
        return f"refs/branches/{urllib.parse.quote(self._repository.branch, safe='')}"

    def fetch(self) -> Fetched:
        """Update the branch, following a force-push; build the mirror first where there is none.

        Raises:
            BranchMissingError, RemoteError: nothing changed.
        """
        before = self.head()
        retrying = Retrying(
            retry=retry_if_exception(_may_go_away),
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=self._repository.retry_pause, max=5),
            reraise=True,
        )
        try:
            retrying(self._fetch_or_clone)
        except GitError as error:
            used = self.directory if self.directory.exists() else self._new
            if not self._remote_answers(error) or self._is_sound(used):
                raise self._explain(error) from None
            self.rebuild()
        head = self.head()
        if head is None:
            raise RemoteError(f"{self._repository.branch} is not in the mirror after a fetch")
        forced = before is not None and before != head and not self._contains(head, before)
        return Fetched(head, before if forced else None)

    def _fetch_or_clone(self) -> None:
        if self.directory.exists():
            self._fetch_into(self.directory)
        else:
            self._clone()

    def _fetch_into(self, directory: Path, *options: str) -> None:
        self.git(directory).talk(
            "fetch",
            *options,
            "--progress",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            self._repository.url,
            f"+{self._source}:{self._ref}",
            silence=self._repository.timeout,
            go_on=self._go_on,
        )

    def _remote_answers(self, error: GitError) -> bool:
        """Say after a fetch that failed whether the remote answers: then the fault may be the mirror's."""
        if isinstance(error, SilentRemoteError) or _NO_BRANCH in error.message:
            return False
        try:
            self.git(self.directory.parent).talk(
                "ls-remote",
                self._repository.url,
                f"refs/heads/{self._repository.branch}",
                silence=self._repository.timeout,
                go_on=self._go_on,
            )
        except GitError:
            return False
        return True

    def _explain(self, error: GitError) -> Exception:
        """Tell a deleted branch from a remote that cannot be reached, and say what to do about that."""
        branch = self._repository.branch
        if _NO_BRANCH in error.message:
            return BranchMissingError(f"the branch {branch} no longer exists on the remote")
        reason = ssh.explain(error.message, self._repository) or error.message
        return RemoteError(f"{branch} could not be fetched: {reason}")

    def make_ready(self) -> None:
        """Remove git's lock files and half packs: we hold the sync lock, so whoever made them is dead."""
        if self.directory.is_dir():
            _remove_leftovers(self.directory)
            _let_no_attribute_count(self.directory)

    def is_sound(self) -> bool:
        """Say whether every object can be read. Reads all of the mirror: for use after a failure only.

        What git thinks of an object's form does not count: a malformed commit is that in a new mirror, too.
        """
        return self._is_sound(self.directory)

    def _is_sound(self, directory: Path) -> bool:
        git = self.git(directory)
        return (
            directory.is_dir()
            and git.succeeds("rev-parse", "--resolve-git-dir", ".")
            and git.succeeds("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
            and git.succeeds("cat-file", "--batch-all-objects", "--batch", "--unordered", "--buffer")
        )

    def rebuild(self) -> None:
        """Make the mirror anew beside the old one, then put it in its place.

        Raises:
            BranchMissingError, RemoteError: the old one, such as it is, stays.
        """
        if self._new.exists() and not self._is_sound(self._new):
            shutil.rmtree(self._new)
        try:
            self._clone()
        except GitError as error:
            raise self._explain(error) from None

    def _clone(self) -> None:
        """Fetch the newest commit, then older ones in parts, going on from what is there already."""
        new = self._new
        old = self.directory.with_name(self.directory.name + ".broken")
        if old.exists():
            shutil.rmtree(old)
        if self._head(new) is None:
            if new.exists():
                shutil.rmtree(new)
            new.mkdir(parents=True)
            self.git(new).bytes("init", "--quiet", "--bare", "--template=")
            _let_no_attribute_count(new)
            self._fetch_into(new, "--depth=1")
        else:
            _remove_leftovers(new)
            self._fetch_into(new)
        commits, before = _FIRST_DEEPENING, b""
        # When it stays as it was, the remote itself has no older ones.
        while (oldest := _oldest_of_a_part(new)) not in (b"", before):
            self._fetch_into(new, f"--deepen={commits}")
            commits, before = 4 * commits, oldest
        if self.directory.exists():
            self.directory.rename(old)
        new.rename(self.directory)
        if old.exists():
            shutil.rmtree(old)

    def head(self) -> str | None:
        """Return the commit of the branch as of the last fetch."""
        return self._head(self.directory)

    def _head(self, directory: Path) -> str | None:
        try:
            return self.git(directory).text("rev-parse", "--verify", "--quiet", self._ref + "^{commit}")
        except (GitError, OSError):
            return None

    def resolve(self, digits: str) -> str:
        """Return the full id of a commit of which the first digits (`is_commit_id`) are given.

        Raises:
            UnknownCommitError: no such commit, or several.
        """
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
        format_ = "--format=%an%x00%ct%x00%s"
        author, time, subject = self.git().text("show", "--no-patch", format_, commit).split("\0")
        # A malformed commit has no time, and any can state one that no calendar has.
        committed_at = min(float(time or 0), LATEST)
        return Commit(commit, author[:SUBJECT_LIMIT], committed_at, subject[:SUBJECT_LIMIT])

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


def _remove_leftovers(mirror: Path) -> None:
    """Remove what a killed git left."""
    for leftover in (*mirror.rglob("*.lock"), *(mirror / "objects").rglob("tmp_*")):
        leftover.unlink()


def _oldest_of_a_part(mirror: Path) -> bytes:
    """Return the commits whose parents are missing, as git lists them; of a whole mirror none."""
    path = mirror / "shallow"
    return path.read_bytes() if path.exists() else b""


def _let_no_attribute_count(mirror: Path) -> None:
    """Have every worktree equal its blobs; those that were made without this are no longer known."""
    attributes = mirror / "info/attributes"
    if not attributes.is_file() or attributes.read_text() != _ATTRIBUTES:
        shutil.rmtree(mirror / "worktrees", ignore_errors=True)
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text(_ATTRIBUTES)


def is_commit_id(digits: str) -> bool:
    """Say whether a commit id can begin so."""
    return re.fullmatch(r"[0-9a-f]{4,40}", digits) is not None


def _may_go_away(error: BaseException) -> bool:
    """Say whether a fetch that failed so is worth another try at once."""
    remote = isinstance(error, GitError) and not isinstance(error, SilentRemoteError)
    return remote and _NO_BRANCH not in str(error)
