"""The active operation and how it came about: one file, replaced as a whole, and a line an event.

The states of an operation, and what takes it from one to the next:

                        start           all is up            confirm             DAGs unpaused,
                        |               |                    |                   old database kept
    begin --> prepared --> switching ------> unconfirmed ---------> finishing -----------> succeeded
              |   ^        |   |   |               |
              |   |        |   |   | a step fails, | refused, or nobody confirms,
              |   +--------+   |   | interrupted   | or a step fails
              |   no unit      |   v               |
              |   started      |   reverting <-----+
              |                |   |
              | abandon        |   | the old release runs again
              v                |   v
              abandoned <------+   reverted
                         abandon, while no step was taken

`MOVES` has the same as a table. `prepared`: nothing that runs has changed; Ansible builds and rehearses, and
`begin --take-over` may replace it. `switching`: airflow-release.service drains, migrates and renames; while
`done` is empty, it has not begun, and `abandon` can still end it. `unconfirmed`: the new release serves, only
the smoke test's DAG runs, and the way back loses nothing. `finishing`: there is no way back any more, and
what fails is tried again. `reverting` is tried again until it is done. succeeded, reverted and abandoned are
the ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from airflow_release.core import lock
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host

MOVES: dict[str, tuple[str, ...]] = {
    "prepared": ("switching", "abandoned"),
    "switching": ("unconfirmed", "reverting", "prepared", "abandoned"),
    "unconfirmed": ("finishing", "reverting"),
    "finishing": ("succeeded",),
    "reverting": ("reverted",),
    "succeeded": (),
    "reverted": (),
    "abandoned": (),
}
"""The states of an operation, and those that it can move to from each; the diagram above shows them."""

ACTIVE = tuple(state for state, following in MOVES.items() if following)
"""States of an operation that is not over. Nothing that runs has changed in `prepared`."""

ENDED = tuple(state for state, following in MOVES.items() if not following)
"""States of an operation that is over."""

REPAIRS = ("rollback", "restore")
"""Kinds that one needs when the platform is ill, so illness keeps none of them from its end."""

PHASES = (
    "build",
    "report",
    "rehearse",
    "drain",
    "migrate",
    "start",
    "serve",
    "verify",
    "smoke",
    "finish",
    "backup",
    "revert",
)
"""The steps of an operation; no operation has them all.

`build`, `report` and `rehearse` come before the switch, while the operation is `prepared`. Ansible takes
these. It notes `begin` and `done` of `build` and `report` by `airflow-release phase`; `airflow-release
rehearse` notes its own. `Engine` takes the next ones: each is its method `_<name>`, listed in `_forward`,
`_prove` or `_complete`. `way_back.py` takes `revert`, which undoes them.

To add a phase, add its name here, and:

- before the switch, add its tasks to `playbooks/tasks/prepare.yml`, with a note of `begin` and of `done`, its
  name to `molecule/upgrade/tests/test_20_trial.py`, and a command of `airflow-release` that it calls to
  `tests/policy/test_operation_playbooks.py`;
- in the switch or after it, add its method to `Engine`, its place to one of the three lists there, and its
  name to `CLOSED` in `molecule/workers/tests/test_90_upgrade.py`, if no old worker may be let in then;
- in the switch, add what undoes it to `way_back.py`. If its failure says nothing of the prepared database,
  add it to `WORTHLESS_AFTER` there;
- in any case, add it to each table by phase in `docs/upgrade.md`, and to the lists in
  `tests/release/test_switch.py` and `molecule/upgrade/tests/test_40_upgrade.py`.

The lists `upgrade_phases` in `playbooks/tasks/operate.yml` are the phases that Ansible waits for by name, to
show their results. A phase that is in none of them is taken all the same. `smoke` is in none because Ansible
itself runs the smoke test and confirms; `finish` and `backup` because Ansible then waits for the end.
"""


_EARLIER_FACTS = {"door_shut": "pages_closed", "door_open": "pages_open"}
"""Facts in `done` under the names of an earlier version, whose journal a host may still have."""


@dataclass
class Phase:
    """A step of an operation, with its times in seconds since the epoch and seconds."""

    name: str
    state: str = "running"
    """`running`, `done` or `failed`."""
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
    command: dict[str, str] = field(default_factory=dict)
    """What the operator asked for, in full; only the same command goes on with it."""
    database: str = "copy"
    """Where the new database comes from: `copy`, `bundle:PATH`, `sql:PATH` or `database:NAME`, a kept one."""
    control: dict[str, Any] = field(default_factory=dict)
    """The process that drives it: host, pid, and the start time that tells it from a later one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Parsed and complete; see `Options.load`."""
    phases: list[Phase] = field(default_factory=list)
    failure: dict[str, str] = field(default_factory=dict)
    """The first thing that failed: its `phase`, `message` and `log`. {} when all is well."""
    warnings: list[str] = field(default_factory=list)
    """What went wrong and does not change the outcome."""
    paused: list[str] = field(default_factory=list)
    """DAGs that are paused only until the new release is confirmed."""
    done: dict[str, Any] = field(default_factory=dict)
    """What can no longer be told from the host itself, such as the bundle that was made."""
    touched: float = 0.0

    @property
    def active(self) -> bool:
        """Say whether it is not over."""
        return self.state in ACTIVE

    @property
    def repairs(self) -> bool:
        """Say whether it is what one does when the platform is ill."""
        return self.kind in REPAIRS

    @property
    def never_began(self) -> bool:
        """Say whether it was handed to its unit, and the unit has not done anything."""
        return self.state == "switching" and not self.done.get("begun")

    @property
    def title(self) -> str:
        """Say what it is, such as `upgrade 2.5.3 -> 2.6.1`."""
        return f"{self.kind} {' -> '.join(dict.fromkeys((self.from_version, self.to_version)))}"

    @property
    def standing(self) -> str:
        """Say where it is and since when, such as `switching, drain since 2026-01-01T00:00:00Z`."""
        if not self.phases:
            return f"{self.state} since {_clock(self.touched)}"
        phase = self.phases[-1]
        if phase.state == "running":
            note = f" ({phase.note})" if phase.note else ""
            return f"{self.state}, {phase.name} since {_clock(phase.started)}{note}"
        return f"{self.state}, {phase.name} {phase.state} since {_clock(phase.started + phase.seconds)}"

    @property
    def outcome(self) -> str:
        """Say in one sentence how it stands, or how it ended and why."""
        text = f"{self.title} ({self.id}): {self.state}"
        if not self.failure or self.state == "succeeded":
            return text
        reason = f"{self.failure.get('phase')} failed: {self.failure.get('message')}"
        if self.state == "finishing":
            return f"{text}: the new release stays; {reason}; it is tried again"
        return f"{text}: {reason}"


class Journal:
    """The operation's file and the journal's lines, below the directory of releases."""

    def __init__(self, host: Host, *, quiet: bool = False) -> None:
        """Look at that host; nothing is read yet. A quiet one prints nothing."""
        self._quiet = quiet
        self._file = host.releases / "operation.json"
        self._lines = host.releases / "journal.jsonl"
        self._lock = host.releases / "operation.lock"

    def read(self) -> Operation | None:
        """Return the operation that is active, or the last one; None when there never was one.

        That of an earlier version is understood: what it lacks has its default.

        Raises:
            ReleaseError: the file is damaged.
        """
        if not self._file.exists():
            return None
        try:
            operation = _parse(json.loads(self._file.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ReleaseError(
                f"{self._file} is damaged: {' '.join(str(error).split())}. journal.jsonl beside it says what "
                "happened. If the platform is healthy and airflow-release.service does not run, "
                "move the file away."
            ) from error
        _settle(operation)
        return operation

    @contextlib.contextmanager
    def changing(self) -> Iterator[Operation | None]:
        """Yield the operation; no other command changes it meanwhile. For moments, unlike `Host.lock`."""
        with lock.exclusive(self._lock, 600, doing="a change of the operation"):
            yield self.read()

    def save(self, operation: Operation) -> None:
        """Write the operation so that a crash leaves the old content or the new."""
        operation.touched = time.time()
        replace_file(self._file, json.dumps(asdict(operation), indent=2) + "\n")

    def note(self, operation: Operation, event: str, detail: str = "") -> None:
        """Append a line to the journal, and say it to whoever watches the unit's log.

        The line is for people. An operation does not fail for want of it, on a full disk for example.
        """
        line = {"time": round(time.time(), 3), "operation": operation.id, "event": event, "detail": detail}
        with contextlib.suppress(OSError):
            descriptor = os.open(self._lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "w") as journal:
                journal.write(json.dumps(line) + "\n")
        if not self._quiet:
            print(f"{operation.id}: {event}" + (f": {detail}" if detail else ""), flush=True)

    def move(self, operation: Operation, state: str) -> None:
        """Take the operation to another state, as `MOVES` allows; a new one is `prepared` already."""
        if state != operation.state and state not in MOVES[operation.state]:
            raise ValueError(f"an operation cannot move from {operation.state} to {state!r}")
        operation.state = state
        _settle(operation)
        self.save(operation)
        self.note(operation, state)

    def fail(self, operation: Operation, phase: str, message: str, log: str = "") -> None:
        """Record what failed. The first failure is the cause and stays; later ones are but journal lines."""
        _keep_first(operation, phase, message, log)
        self.save(operation)
        self.note(operation, f"{phase} failed", message)

    def warn(self, operation: Operation, text: str) -> None:
        """Keep, once, what went wrong and does not change the outcome."""
        if text not in operation.warnings:
            operation.warnings.append(text)
        self.save(operation)
        self.note(operation, "warning", text)

    def record(self, operation: Operation, name: str, result: str, note: str = "", detail: str = "") -> Phase:
        """Write the beginning or the end of a phase: `begin`, `done` or `failed`. Nothing else does.

        `note` stays with the phase, and `detail` is said beside it in the journal's line.

        Raises:
            ReleaseError: there is no such phase, or it has not begun.
        """
        if name not in PHASES:
            raise ReleaseError(f"{name!r} is no phase. There are: {', '.join(PHASES)}.")
        phase = next((one for one in operation.phases if one.name == name), None)
        if result == "begin":
            phase = Phase(name, started=time.time())
            operation.phases = [one for one in operation.phases if one.name != name] + [phase]
            event = f"{name} begins"
        elif phase is None:
            raise ReleaseError(f"The phase {name} of {operation.title} ({operation.id}) has not begun.")
        else:
            phase.state, phase.note = result, note
            phase.seconds = round(time.time() - phase.started, 1)
            event, detail = f"{name} {result}", detail or f"{phase.seconds} s"
        self.save(operation)
        self.note(operation, event, ", ".join(part for part in (detail, note) if part))
        return phase

    def say(self, operation: Operation, note: str) -> None:
        """Show what the phase under way is doing; its end replaces that by what came of it."""
        operation.phases[-1].note = note
        self.save(operation)
        self.note(operation, operation.phases[-1].name, note)

    @contextlib.contextmanager
    def phase(self, operation: Operation, name: str) -> Iterator[Phase]:
        """Time a step; its failure is kept with the operation and raised on."""
        phase = self.record(operation, name, "begin")
        try:
            yield phase
        except Exception as error:
            message = str(error) or type(error).__name__
            _keep_first(operation, name, message, error.log if isinstance(error, ReleaseError) else "")
            self.record(operation, name, "failed", phase.note, message)
            raise
        self.record(operation, name, "done", phase.note)


def _keep_first(operation: Operation, phase: str, message: str, log: str) -> None:
    if not operation.failure:
        operation.failure = {"phase": phase, "message": message, "log": log}


def _settle(operation: Operation) -> None:
    """Make a failure that was overcome a warning: what has succeeded has not failed."""
    if operation.state == "succeeded" and (failure := operation.failure):
        operation.failure = {}
        operation.warnings.append(
            f"{failure.get('phase')} failed at first, and succeeded when it was tried again: "
            f"{failure.get('message')}"
        )


def _parse(content: Any) -> Operation:
    """Read an operation. Raises TypeError or ValueError for what is none."""
    if not isinstance(content, dict):
        raise TypeError("it is no JSON object")
    if "held" in content:  # so it was called before there were `warnings`
        content = {"paused": content["held"], **content}
    operation = _build(Operation("", "", "", ""), content)
    operation.phases = [_build(Phase(""), phase) for phase in operation.phases]
    operation.done = {_EARLIER_FACTS.get(name, name): fact for name, fact in operation.done.items()}
    if operation.state not in MOVES:
        raise ValueError(f"the state {operation.state!r} is not known")
    return operation


Model = TypeVar("Model", Operation, Phase)


def _build(model: Model, content: Any) -> Model:
    """Return an object with the content's values, each of the type that the model's has."""
    if not isinstance(content, dict):
        raise TypeError(f"a {type(model).__name__} is no JSON object")
    values = {one.name: content[one.name] for one in fields(model) if one.name in content}
    for name, value in values.items():
        kind = type(getattr(model, name))
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"{name} is a {type(value).__name__}")
    return type(model)(**values)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
