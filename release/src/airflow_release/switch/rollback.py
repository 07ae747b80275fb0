"""What going back to an earlier release means for the data: nothing, or the loss of what came after it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from airflow_release.backup import bundle
from airflow_release.core import records
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.records import Release
from airflow_release.switch import pace, stack


@dataclass(frozen=True)
class Plan:
    """How an earlier release comes back."""

    release: Release
    database: str
    """Where its database comes from: `copy` of the live one, `bundle:<path>` or `database:<name>`."""
    lost: list[str]
    """What is in the live database and not in that one, in words; [] when nothing is lost."""
    outage: str = ""
    """How long pages will be away, in words; "" where the rehearsal says so."""


def plan(host: Host, identifier: str = "") -> Plan:
    """Say how a release comes back, by default the one before the one that runs.

    The live database serves an earlier release when its schema is the same. Airflow cannot run on a later
    one; then the backup comes back that was made when the release was left, or the database that was kept.

    Raises:
        ReleaseError: there is no such release, or its backup is missing or damaged.
    """
    database = Database(host)
    # One that merely does not run must not be taken for one that is lost.
    stack.ensure_database(host)
    revision = database.revision_or_none()
    running = records.current(host, revision)
    release = records.load(host, identifier) if identifier else records.previous(host)
    if release.id == running.id:
        raise ReleaseError(f"Release {release.id} is the one that runs.")
    # A schema that nobody can read is no other one's.
    if revision and release.revision == revision:
        return Plan(release, "copy", [], _outage(host, database.size()))
    newest = f"the newest DAG run started at {_newest_run(database)}"
    if release.kept and release.kept in database.names():
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(running.since))
        return Plan(release, f"database:{release.kept}", [f"everything since {since} ({newest})"])
    if not release.bundle:
        raise ReleaseError(
            f"Release {release.id} has another schema, and no backup was made when it was left."
        )
    manifest = bundle.verify(host.backups / release.bundle)
    return Plan(
        release,
        f"bundle:{host.backups / release.bundle}",
        [f"everything since {manifest.created} ({newest})", *_fewer_rows(database, manifest.counts)],
    )


def _outage(host: Host, size: int) -> str:
    """Say how long pages will be away for a copy of the live database, or that it is measured first."""
    seconds = pace.outage_seconds(host, size)
    if seconds is not None:
        return f"Airflow's pages will be away for about {seconds:.0f} s."
    return (
        "How long Airflow's pages will be away is measured before anything stops: no copy of a database of "
        f"about {size / 2**20:.0f} MiB was measured on this host yet. If it is longer than "
        "upgrade_outage_limit, the rollback is refused."
    )


def _newest_run(database: Database) -> str:
    try:
        return database.newest_run() or "an unknown time"
    except ReleaseError:
        return "an unknown time: the database does not say"


def _fewer_rows(database: Database, counts: dict[str, int]) -> list[str]:
    """Compare rows; a database that is too damaged to be counted is what one may want to leave."""
    try:
        live = database.counts()
    except ReleaseError as error:
        return [f"the rows of the live database cannot be counted: {error}"]
    return [
        f"{table}: {live[table]} rows now, {rows} in the backup"
        for table, rows in counts.items()
        if live.get(table, rows) != rows
    ]
