"""What the host's backups say of themselves, for the status page: a file that only the host writes."""

import json
from pathlib import Path
from typing import Any

# One is taken every day; a missed night may be a host that was off.
OLD_SECONDS = 2 * 86_400


def read(path: Path, now: float) -> dict[str, Any]:
    """Return `last_good`, `last_failure`, `last_copied` and `since`, when backups began; each None for none.

    A file that is not there or cannot be read has its reason in `error`.
    """
    nothing: dict[str, Any] = dict.fromkeys(("last_good", "last_failure", "last_copied", "since", "error"))
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        last, copied = written.get("last_good"), written.get("last_copied")
        return {
            **nothing,
            "last_good": {**last, "age_seconds": now - last["at"]} if last else None,
            "last_failure": written.get("last_failure"),
            "last_copied": {**copied, "age_seconds": now - copied["at"]} if copied else None,
            "since": written.get("installed_at"),
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        return {**nothing, "error": f"{path.name} cannot be read: {error}"}


def attention(backup: dict[str, Any], now: float) -> list[str]:
    """Say in words what is not as it should be."""
    lines = [backup["error"]] if backup["error"] else []
    last = backup["last_good"]
    # A new host has until its first nights to take one.
    since = last["at"] if last else backup["since"]
    if since is not None and now - since > OLD_SECONDS:
        lines.append("the last good backup is more than two days old" if last else "no backup was ever taken")
    if failure := backup["last_failure"]:
        what = "copy of a backup elsewhere" if failure.get("copying") else "backup"
        lines.append(f"the last {what} failed: {failure['reason']}")
    return lines
