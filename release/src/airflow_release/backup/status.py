"""What the status page shows of the backups; it may read this file and nothing else of them."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any

from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host


def read(host: Host) -> dict[str, Any]:
    """Return what is known: `last_good`, and `last_failure` when that came later; {} where nothing is."""
    try:
        state: dict[str, Any] = json.loads((host.status / "backup.json").read_text())
    except (OSError, ValueError):
        return {}
    return state


def record(host: Host, **changes: object) -> None:
    """Write what the status page shows.

    Raises:
        OSError: the file cannot be written.
    """
    host.status.mkdir(mode=0o755, parents=True, exist_ok=True)
    state = {**read(host), **changes}
    replace_file(host.status / "backup.json", json.dumps(state, indent=2) + "\n", mode=0o644)


def record_failure(host: Host, error: Exception, doing: str = "the backup", **more: object) -> ReleaseError:
    """Record any error as the last failure, and return it as one sentence for the caller to raise.

    A status file that cannot be written does not hide the error itself.
    """
    failure = error if isinstance(error, ReleaseError) else ReleaseError(f"{doing} failed: {_words(error)}")
    with contextlib.suppress(OSError):
        record(host, last_failure={"at": time.time(), "reason": _reason(failure), **more})
    return failure


def failed_copy(host: Host) -> dict[str, Any] | None:
    """Return the last failure, if it was that of a copy: a good backup here does not mend it."""
    failure: dict[str, Any] | None = read(host).get("last_failure")
    return failure if failure and failure.get("copying") else None


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _reason(error: ReleaseError) -> str:
    """Return the error with what the failed program called its error; other lines may show rows of data."""
    said = next((line for line in error.log.splitlines() if re.search(r"error|fatal", line, re.I)), "")
    return f"{error}: {said.strip()[:300]}" if said else str(error)
