"""How long a copy of the database takes here, as measured by the last ones: what a switch is estimated by."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host

COMPARABLE = 4
"""How many times as large a database may be as the one that was measured."""

SAMPLE_BYTES = 2**30
"""A copy of so many bytes is nearly all reading and writing, and says how long any larger one takes."""

SECONDS_BESIDE_THE_DATA = 10
"""What the pages are away for whatever the size: sessions end, files are put in place, HAProxy is told."""

SECONDS_TO_START = 30
"""What a webserver takes to be healthy on two cores, where no standby webserver serves meanwhile."""


def remember(host: Host, size: int, seconds: float) -> None:
    """Keep how long a copy of so many bytes took."""
    replace_file(_file(host), json.dumps({"bytes": size, "seconds": round(seconds, 2)}) + "\n")


def copy_seconds(host: Host, size: int) -> float | None:
    """Return how long a copy of so many bytes will take; None when none like it was ever measured.

    That of a small database is nearly all a fixed cost, and says nothing of a large one.
    """
    try:
        last = json.loads(_file(host).read_text())
        measured = int(last["bytes"])
        if size > COMPARABLE * measured and measured < SAMPLE_BYTES:
            return None
        return float(last["seconds"]) * size / max(measured, 1)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def outage_seconds(host: Host, size: int) -> float | None:
    """Return how long an unrehearsed copy keeps pages away; None if nothing like it was measured."""
    seconds = copy_seconds(host, size)
    return None if seconds is None else seconds + SECONDS_BESIDE_THE_DATA + SECONDS_TO_START


def require(host: Host, size: int, limit: int) -> None:
    """Refuse a copy that would keep the pages away for longer than `limit` seconds; unknown is no reason.

    For a rollback `rehearsal.measure_pace` has measured it. `check-rotation` has judged a rotation, and by
    now the vault has new values.

    Raises:
        ReleaseError: it would, and says what to do.
    """
    seconds = outage_seconds(host, size)
    if seconds is not None:
        require_outage(seconds, size, limit)


def require_outage(seconds: float, size: int, limit: int) -> None:
    """Refuse what would keep the pages away for longer than `limit` seconds.

    Raises:
        ReleaseError: it would, and says what to do.
    """
    if seconds > limit:
        raise ReleaseError(
            f"The switch would keep Airflow's pages away for about {seconds:.0f} s, mostly for the "
            f"{size / 2**20:.0f} MiB of the database, and upgrade_outage_limit is {limit} s. Make the "
            "database smaller (`airflow db clean`), or give it the time: "
            f"-e upgrade_outage_limit={seconds * 2:.0f}."
        )


def _file(host: Host) -> Path:
    return host.releases / "pace.json"
