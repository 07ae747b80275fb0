"""How long a copy of the database takes here, as measured by the last ones: what a switch is estimated by."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_release.core.files import replace_file
from airflow_release.core.host import Host

SECONDS_BESIDE_THE_DATA = 10
"""What the pages are away for whatever the size: sessions end, files are put in place, HAProxy is told."""


def remember(host: Host, size: int, seconds: float) -> None:
    """Keep how long a copy of so many bytes took."""
    replace_file(_file(host), json.dumps({"bytes": size, "seconds": round(seconds, 2)}) + "\n")


def copy_seconds(host: Host, size: int) -> float | None:
    """Return how long a copy of so many bytes will take; None when none was ever measured."""
    try:
        last = json.loads(_file(host).read_text())
        return float(last["seconds"]) * size / max(int(last["bytes"]), 1)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(host: Host) -> Path:
    return host.releases / "pace.json"
