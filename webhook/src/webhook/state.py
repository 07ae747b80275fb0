"""What a sync remembers between runs: one JSON file, replaced atomically, read by the status page and
`dag-sync status`.

Which commit is live is not remembered here: the link `current` says it. Times are seconds since the epoch.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REFUSALS_KEPT = 10


@dataclass(frozen=True)
class Commit:
    """A commit as people know it."""

    id: str
    author: str
    committed_at: float
    subject: str


@dataclass(frozen=True)
class Reason:
    """Why a tree was refused: `kind` is a word such as `syntax` or `import`; `path` may be empty."""

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        """One line for a log or a chat: of a traceback the last, which says what happened."""
        line = self.message.strip().rpartition("\n")[2]
        return f"{self.path}: {line}" if self.path else line


@dataclass(frozen=True)
class Refusal:
    """A commit that was not let through, and when that was first found."""

    commit: Commit
    at: float
    reasons: list[Reason]


@dataclass(frozen=True)
class SyncRecord:
    """One sync: what set it off, how it ended, how long it took."""

    at: float
    trigger: str
    outcome: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class ForcedPush:
    """The branch was moved to a commit that lacks its former head. It was followed."""

    at: float
    before: str
    after: str


@dataclass
class State:
    """The file's content. `retired` maps the name of a worktree to the time when it stopped being current."""

    live: Commit | None = None
    live_since: float | None = None
    head: Commit | None = None
    pin: str | None = None
    last_sync: SyncRecord | None = None
    last_success: float | None = None
    refused: list[Refusal] = field(default_factory=list)
    forced_push: ForcedPush | None = None
    infrastructure_changed: list[str] = field(default_factory=list)
    retired: dict[str, float] = field(default_factory=dict)
    reported: str | None = None
    notified: str | None = None

    def refusal_of(self, commit: str) -> Refusal | None:
        """Return the standing refusal of a commit, if any."""
        return next((refusal for refusal in self.refused if refusal.commit.id == commit), None)

    def refuse(self, commit: Commit, reasons: list[Reason], now: float) -> None:
        """Record a refusal; the same commit refused again keeps the time of the first."""
        before = self.refusal_of(commit.id)
        others = [refusal for refusal in self.refused if refusal.commit.id != commit.id]
        self.refused = [Refusal(commit, before.at if before else now, reasons), *others][:REFUSALS_KEPT]

    def accept(self, commit: str) -> None:
        """Drop the refusal of a commit that is live now."""
        self.refused = [refusal for refusal in self.refused if refusal.commit.id != commit]


class StateError(Exception):
    """The state file cannot be understood."""


def load(path: Path) -> State:
    """Read the file; a host without one has synced nothing yet.

    Raises:
        StateError: not written by this package. It is not thrown away by itself, since it may hold a pin.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return State()
    try:
        return _from_json(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(
            f"{path} cannot be read ({error}): move it away, then sync, and pin again if it was"
        ) from None


def save(path: Path, state: State) -> None:
    """Replace the file as one step."""
    write_atomically(path, json.dumps(dataclasses.asdict(state), indent=2).encode(), mode=0o644)


def write_atomically(path: Path, content: bytes, mode: int) -> None:
    """Write beside, then rename over: whoever reads sees the old or the new content, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _from_json(value: Mapping[str, Any]) -> State:
    def commit(data: Mapping[str, Any] | None) -> Commit | None:
        return Commit(**data) if data else None

    return State(
        live=commit(value["live"]),
        live_since=value["live_since"],
        head=commit(value["head"]),
        pin=value["pin"],
        last_sync=SyncRecord(**value["last_sync"]) if value["last_sync"] else None,
        last_success=value["last_success"],
        refused=[
            Refusal(Commit(**item["commit"]), item["at"], [Reason(**reason) for reason in item["reasons"]])
            for item in value["refused"]
        ],
        forced_push=ForcedPush(**value["forced_push"]) if value["forced_push"] else None,
        infrastructure_changed=list(value["infrastructure_changed"]),
        retired=dict(value["retired"]),
        reported=value["reported"],
        notified=value["notified"],
    )
