"""What the host's checker found, for the status page and Prometheus: a file that only the host writes.

Its schema is in airflow_checker/report.py. All of it is checked, so that nothing in it can break the page.
"""

import calendar
import json
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The checker writes every 30 seconds.
SILENT_SECONDS = 180
LEVELS = {"ok": 0, "warning": 1, "critical": 2}
UNKNOWN = 3
SEVERITIES = ("critical", "warning", "notice")
STATES = ("running", "stopped", "switching")
WORKER_STATES = ("live", "preparing", "fenced", "silent")
OPERATIONS = "docs/when-something-is-wrong.md"
LOOK = f"{OPERATIONS}#check-that-all-is-well"
SILENT = f"{OPERATIONS}#light-checker-silent"

MOST_BYTES = 2**20
MOST_ENTRIES = 500
MOST_CHARACTERS = 500

Take = Callable[[Any], Any]
"""Returns a value as the page may show it; ValueError or TypeError when it has another form."""


@dataclass(frozen=True)
class Need:
    """Something that needs a look: what it is, what to do, and where that is written."""

    what: str
    advice: str = ""
    severity: str = "warning"
    since: str | None = None
    document: str = LOOK

    def __str__(self) -> str:
        """Return both sentences."""
        return f"{self.what} {self.advice}".strip()


def read(path: Path, now: float) -> dict[str, Any]:
    """Return the checker's document, with `error` None and its age in seconds.

    Where there is nothing fresh, `overall` is `unknown`, nothing is found, and `error` says why.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        found: dict[str, Any] = _DOCUMENT(json.loads(content.decode("utf-8")))
    except FileNotFoundError:
        return {**_NOTHING, "error": "The checker of the host has not said anything yet"}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return {**_NOTHING, "error": f"{path.name} cannot be read: {type(error).__name__}"}
    age = now - seconds(found["generated"])
    if not -SILENT_SECONDS < age <= SILENT_SECONDS:
        known = {name: found[name] for name in ("generated", "environment", "host")}
        silence = f"The checker of the host is silent since {found['generated']}: nobody knows what works"
        return {**_NOTHING, **known, "age_seconds": age, "error": silence}
    return {**found, "age_seconds": age, "error": None}


def needs(health: dict[str, Any]) -> list[Need]:
    """Return what needs a look, the gravest first; notices can wait."""
    if health["error"]:
        remedy = "Run `systemctl status airflow-checker.timer airflow-checker` on the host."
        return [Need(f"{health['error']}.", remedy, "critical", document=SILENT)]
    found = [
        Need(
            finding["what"],
            finding["advice"],
            finding["severity"],
            finding["since"],
            f"{OPERATIONS}#{finding['anchor']}",
        )
        for finding in health["findings"]
    ]
    found = [need for need in found if need.severity != "notice"]
    if not found and health["overall"] != "ok":
        found.append(Need(f"the checker's verdict is {health['overall']}", severity=health["overall"]))
    return found


def is_up(service: dict[str, Any]) -> bool:
    """Say whether a service runs and, where it has a health check, passes it."""
    return service["state"] == "running" and service["health"] in ("healthy", "")


def takes_tasks(host: Mapping[str, Any]) -> bool:
    """Say whether a worker host is heard and not cut off from the broker."""
    return host["state"] in ("live", "preparing")


def seconds(moment: str) -> float:
    """Return a time of the checker's, ISO 8601 in UTC, in seconds since the epoch.

    Raises:
        ValueError: it has another form.
    """
    return float(calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")))


def _text(value: Any) -> str:
    """Take words of a bounded length; half of a surrogate pair, which JSON can name, has no form in UTF-8."""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value[:MOST_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> float:
    """Take a number that is neither negative nor without end."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    if not 0 <= value < 2**63 or not math.isfinite(value):
        raise ValueError("no such number")
    return value


def _change(value: Any) -> float:
    """Take a number that may be negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    return math.copysign(_number(abs(value)), value)


def _count(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("no whole number")
    return int(_number(value))


def _moment(value: Any) -> str:
    moment = _text(value)
    seconds(moment)
    return moment


def _date(value: Any) -> str | None:
    """Take a time; one beyond the calendar, as a token's end may be, is as good as none."""
    try:
        return _moment(value)
    except ValueError:
        return None


def _anchor(value: Any) -> str:
    """Take what can stand behind the # of an address."""
    if not re.fullmatch(r"[a-z0-9-]+", anchor := _text(value)):
        raise ValueError("no anchor")
    return anchor


def _one_of(values: Collection[Any]) -> Take:
    def take(value: Any) -> Any:
        if value not in values:
            raise ValueError("none of the known values")
        return value

    return take


def _maybe(take: Take, otherwise: Any = None) -> Take:
    """Let a value be absent: it is not known, or the checker on the host is of an earlier version."""
    return lambda value: otherwise if value is None or value == "" else take(value)


def _record(**fields: Take) -> Take:
    """Take an object with these fields, and leave all others."""

    def take(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError("no object")
        return {name: each(value.get(name)) for name, each in fields.items()}

    return take


def _many(take: Take) -> Take:
    def each(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > MOST_ENTRIES:
            raise TypeError("no list of a bounded length")
        return [take(entry) for entry in value]

    return each


def _named(take: Take) -> Take:
    def each(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > MOST_ENTRIES:
            raise TypeError("no object of a bounded size")
        return {_text(name): take(entry) for name, entry in value.items()}

    return each


_FINDING = _record(
    id=_text,
    severity=_one_of(SEVERITIES),
    since=_maybe(_moment),
    subject=_text,
    what=_text,
    advice=_text,
    anchor=_anchor,
)
_SERVICE = _record(name=_text, state=_text, health=_text, since=_maybe(_moment), restarts=_count)
_DISK = _record(
    path=_text,
    size=_count,
    free=_count,
    inodes=_maybe(_count, 0),
    inodes_free=_maybe(_count, 0),
    days_until_full=_maybe(_number),
)
_HOUR = _record(
    **{"from": _moment, "succeeded": _count, "failed": _count},
    seconds=_maybe(_number),
    longest=_maybe(_number),
)
_WORKER = _record(service=_text, queues=_many(_text), slots=_count)
_WORKER_HOST = _record(
    name=_text,
    state=_one_of(WORKER_STATES),
    release=_maybe(_text, ""),
    commit=_maybe(_text, ""),
    queues=_many(_text),
    slots=_count,
    heard_seconds_ago=_maybe(_number),
)
_FIGURES = _record(
    disks=_maybe(_many(_DISK), []),
    database_bytes=_maybe(_number),
    database_growth_bytes=_maybe(_change),
    tasks_running=_maybe(_count),
    tasks_queued=_maybe(_count),
    hours=_maybe(_many(_HOUR)),
    queues=_maybe(_named(_count)),
    queue_ages=_maybe(_named(_number)),
    overdue=_maybe(_named(_number)),
    refusals=_maybe(_named(_count), {}),
    workers=_maybe(_many(_WORKER), []),
    worker_hosts=_maybe(_many(_WORKER_HOST), []),
    unconsumed=_maybe(_named(_number), {}),
    dag_commit=_maybe(_text, ""),
    checker_seconds=_maybe(_number),
    **dict.fromkeys(("certificate_ends", "token_ends", "last_backup", "last_copy"), _maybe(_date)),
)
_DOCUMENT = _record(
    schema=_one_of((1,)),
    generated=_moment,
    environment=_maybe(_text, ""),
    host=_maybe(_text, ""),
    airflow_version=_maybe(_text, ""),
    overall=_one_of(LEVELS),
    state=_maybe(_one_of(STATES), "running"),
    doing=_maybe(_text, ""),
    findings=_many(_FINDING),
    services=_many(_SERVICE),
    figures=_maybe(_FIGURES, _FIGURES({})),
)
_NOTHING: dict[str, Any] = {
    "generated": None,
    "age_seconds": None,
    **dict.fromkeys(("environment", "host", "airflow_version", "doing"), ""),
    "overall": "unknown",
    "state": "unknown",
    "findings": [],
    "services": [],
    "figures": _FIGURES({}),
}
