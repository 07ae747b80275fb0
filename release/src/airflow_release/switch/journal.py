"""The operation under way and how it came about: one file, replaced as a whole, and a line an event."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host

ACTIVE = ("prepared", "switching", "unconfirmed", "finishing", "reverting")
"""States of an operation that is not over. Nothing that runs has changed in `prepared`."""


@dataclass
class Phase:
    """A step of an operation, with its times in seconds since the epoch and seconds."""

    name: str
    state: str = "running"
    started: float = 0.0
    seconds: float = 0.0
    note: str = ""


@dataclass
class Operation:
    """A change of version, configuration or data, from its beginning to its end or back."""

    id: str
    kind: str
    from_version: str
    to_version: str
    state: str = "prepared"
    database: str = "copy"
    """Where the new database comes from: `copy`, `bundle:<path>` or `sql:<path>`."""
    control: dict[str, Any] = field(default_factory=dict)
    """The process that drives it: host, pid, and the start time that tells it from a later one."""
    options: dict[str, Any] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    failure: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    """DAGs that are paused only until the new release is confirmed."""
    done: dict[str, Any] = field(default_factory=dict)
    """What can no longer be told from the host itself, such as the bundle that was made."""
    touched: float = 0.0

    @property
    def active(self) -> bool:
        """Say whether it is not over."""
        return self.state in ACTIVE


class Journal:
    """The operation's file and the journal's lines, below the directory of releases."""

    def __init__(self, host: Host) -> None:
        """Look at that host; nothing is read yet."""
        self._file = host.releases / "operation.json"
        self._lines = host.releases / "journal.jsonl"

    def read(self) -> Operation | None:
        """Return the operation that is under way, or the last one; None when there never was one."""
        if not self._file.exists():
            return None
        content = json.loads(self._file.read_text())
        return Operation(**{**content, "phases": [Phase(**phase) for phase in content["phases"]]})

    def save(self, operation: Operation) -> None:
        """Write the operation so that a crash leaves the old content or the new."""
        operation.touched = time.time()
        replace_file(self._file, json.dumps(asdict(operation), indent=2) + "\n")

    def note(self, operation: Operation, event: str, detail: str = "") -> None:
        """Append a line to the journal, and say it to whoever watches the unit's log."""
        line = {"time": round(time.time(), 3), "operation": operation.id, "event": event, "detail": detail}
        with self._lines.open("a") as journal:
            journal.write(json.dumps(line) + "\n")
        print(f"{operation.id}: {event}" + (f": {detail}" if detail else ""), flush=True)

    def move(self, operation: Operation, state: str) -> None:
        """Take the operation to another state."""
        operation.state = state
        self.save(operation)
        self.note(operation, state)

    def record(self, operation: Operation, name: str, result: str, note: str) -> None:
        """Record the beginning or end of a step that another program takes: `begin`, `done` or `failed`."""
        if result == "begin":
            phase = Phase(name, started=time.time())
            operation.phases = [other for other in operation.phases if other.name != name] + [phase]
        else:
            phase = next(other for other in operation.phases if other.name == name)
            phase.state, phase.note = result, note
            phase.seconds = round(time.time() - phase.started, 1)
        self.save(operation)
        self.note(operation, f"{name} {result}", note)

    @contextlib.contextmanager
    def phase(self, operation: Operation, name: str) -> Iterator[Phase]:
        """Time a step; its failure is kept with the operation and raised on."""
        phase = Phase(name, started=time.time())
        operation.phases = [other for other in operation.phases if other.name != name] + [phase]
        self.save(operation)
        self.note(operation, f"{name} begins")
        try:
            yield phase
        except Exception as error:
            phase.state, phase.seconds = "failed", round(time.time() - phase.started, 1)
            # The first failure is the cause; what fails on the way back is in the journal.
            operation.failure = operation.failure or {
                "phase": name,
                "message": str(error) or type(error).__name__,
                "log": error.log if isinstance(error, ReleaseError) else "",
            }
            self.save(operation)
            self.note(operation, f"{name} failed", str(error))
            raise
        phase.state, phase.seconds = "done", round(time.time() - phase.started, 1)
        self.save(operation)
        self.note(operation, f"{name} done", f"{phase.seconds} s" + (f", {phase.note}" if phase.note else ""))
