"""What going back to an earlier release means for the data: nothing, or the loss of what came after it."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_release.backup import bundle
from airflow_release.core import records
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.records import Release


@dataclass(frozen=True)
class Plan:
    """How an earlier release comes back."""

    release: Release
    database: str
    """Where its database comes from: `copy` of the live one, or `bundle:<path>`."""
    lost: list[str]
    """What is in the live database and not in that one, in words; [] when nothing is lost."""


def plan(host: Host, identifier: str = "") -> Plan:
    """Say how a release comes back, by default the one before the one that runs.

    The live database serves an earlier release when its schema is the same. Airflow cannot run on a later
    one; then the backup comes back that was made when the release was left.

    Raises:
        ReleaseError: there is no such release, or its backup is missing or damaged.
    """
    database = Database(host)
    revision = database.revision()
    running = records.current(host, revision)
    release = records.load(host, identifier) if identifier else records.previous(host)
    if release.id == running.id:
        raise ReleaseError(f"Release {release.id} is the one that runs.")
    if release.revision == revision:
        return Plan(release, "copy", [])
    if not release.bundle:
        raise ReleaseError(
            f"Release {release.id} has another schema, and no backup was made when it was left."
        )
    manifest = bundle.verify(host.backups / release.bundle)
    live = database.counts()
    lost = [
        f"{table}: {live[table]} rows now, {rows} in the backup"
        for table, rows in manifest.counts.items()
        if live.get(table, rows) != rows
    ]
    newest = database.newest_run()
    return Plan(
        release,
        f"bundle:{host.backups / release.bundle}",
        [f"everything since {manifest.created} (the newest DAG run started at {newest})", *lost],
    )
