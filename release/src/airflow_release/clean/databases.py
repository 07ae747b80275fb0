"""Databases that an operation left: `airflow_failed`, for a look, and `airflow_kept_…`, without a backup."""

from __future__ import annotations

import time

from airflow_release.core import records
from airflow_release.core.database import ADMINISTRATION, FAILED, SAMPLE, Database, kept_since
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings


def clean(
    host: Host, settings: Settings, *, short: bool, dry_run: bool = False, now: float | None = None
) -> list[str]:
    """Drop what was left for so many days; return in words what went.

    Where disk is `short`, `airflow_failed` goes after a day. A kept database has data that no backup has: it
    goes by days alone, and never while the release before the running one needs it. The caller holds the
    platform's lock, and no operation is active.
    """
    now = time.time() if now is None else now
    limit = now - settings.database_days * 86_400
    database, said = Database(host), []
    needed = {release.kept for release in records.needed(host)}
    for name in sorted(database.names() - needed):
        if name == FAILED:
            since = _made(database, name)
            goes = since < (max(limit, now - 86_400) if short else limit)
        elif name == SAMPLE:
            since, goes = _made(database, name), True  # a command was killed: nobody measures now
        elif (left := kept_since(name)) is not None:
            since, goes = left, left < limit
        else:
            continue
        if goes:
            size = database.size(name)
            if not dry_run:
                database.drop(name)
            day = time.strftime("%Y-%m-%d", time.gmtime(since))
            said.append(f"the database {name} of {day}, {size / 2**20:.0f} MiB")
    return said


def _made(database: Database, name: str) -> float:
    """Return when a database was made: one that failed was made in the switch that failed."""
    return float(
        database.sql(
            "SELECT extract(epoch FROM (pg_stat_file('base/' || oid || '/PG_VERSION')).modification)"
            f" FROM pg_database WHERE datname = '{name}'",
            ADMINISTRATION,
            doing=f"looking at the age of {name}",
        )
    )
