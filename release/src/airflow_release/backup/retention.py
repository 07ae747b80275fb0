"""Which backups are kept: those of the last days and the newest few, and always a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

from airflow_release.backup.bundle import NAME


def created(name: str) -> datetime | None:
    """Return when a bundle was made, by its name; None for the name of another file."""
    found = NAME.fullmatch(name)
    if not found:
        return None
    return datetime.strptime(found["created"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def newest_first(names: Iterable[str]) -> list[str]:
    """Return the bundles among these file names, the newest first."""
    made = {name: created(name) for name in names}
    return sorted(
        (name for name, at in made.items() if at), key=lambda name: (made[name], name), reverse=True
    )


def expired(
    names: Iterable[str],
    *,
    days: int,
    count: int,
    now: datetime,
    is_good: Callable[[str], bool],
    keep: Iterable[str] = (),
) -> list[str]:
    """Return the bundles that may go: older than `days` days, not among the newest `count`, not in `keep`.

    When none of those that stay is good, the newest good one stays, too, whatever its age. `is_good` reads a
    whole bundle, and is asked only about as many as it takes to find a good one.
    """
    bundles = newest_first(names)
    kept = {*bundles[:count], *keep}
    limit = now - timedelta(days=days)
    stays = [name for name in bundles if name in kept or (created(name) or now) >= limit]
    goes = [name for name in bundles if name not in stays]
    if goes and not any(is_good(name) for name in stays):
        last_good = next((name for name in goes if is_good(name)), None)
        goes = [name for name in goes if name != last_good]
    return goes
