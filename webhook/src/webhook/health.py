"""What the host's checker found, for the status page and Prometheus: a file that only the host writes.

Its schema is in airflow_checker/report.py.
"""

import calendar
import json
import time
from pathlib import Path
from typing import Any

# The checker writes every 30 seconds.
SILENT_SECONDS = 180
LEVELS = {"ok": 0, "warning": 1, "critical": 2}
UNKNOWN = 3


def read(path: Path, now: float) -> dict[str, Any]:
    """Return `overall`, `findings`, `services` and `doing`.

    Where there is nothing fresh, `overall` is `unknown` and `error` says why.
    """
    nothing: dict[str, Any] = {
        "overall": "unknown",
        "doing": "",
        "findings": [],
        "services": [],
        "error": None,
    }
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        generated = calendar.timegm(time.strptime(written["generated"], "%Y-%m-%dT%H:%M:%SZ"))
        found = {name: written[name] for name in ("overall", "doing", "findings", "services")}
        if found["overall"] not in LEVELS:
            raise ValueError(f"no verdict is called {found['overall']!r}")
    except FileNotFoundError:
        return {**nothing, "error": "the checker of the host has not said anything yet"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {**nothing, "error": f"{path.name} cannot be read: {type(error).__name__}"}
    if not -SILENT_SECONDS < now - generated <= SILENT_SECONDS:
        since = written["generated"]
        return {
            **nothing,
            "error": f"the checker of the host is silent since {since}: what follows may be old",
        }
    return {**found, "error": None}


def attention(health: dict[str, Any]) -> list[str]:
    """Say in words what is not as it should be; notices can wait."""
    lines = [health["error"]] if health["error"] else []
    lines += [
        f"{finding['what']} {finding['advice']}"
        for finding in health["findings"]
        if finding["severity"] != "notice"
    ]
    if not lines and health["overall"] != "ok":
        lines.append(f"the checker's verdict is {health['overall']}")
    return lines


def level(path: Path) -> float:
    """Return the verdict as a number: 0 ok, 1 warning, 2 critical, 3 unknown."""
    return LEVELS.get(read(path, time.time())["overall"], UNKNOWN)
