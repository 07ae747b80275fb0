"""Tries the next release out beside the one that runs: its database is made, migrated and served."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_release.backup import backups
from airflow_release.core.database import LIVE, NEXT, SCRATCH, Database
from airflow_release.core.host import Host
from airflow_release.switch import next_database, pace, standby
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options


def rehearse(host: Host, operation: Operation) -> None:
    """Make the next database beside the live one, migrate it, and have the new webserver serve it.

    For a change that keeps the data it is made from a fresh backup and thrown away: the switch copies the
    live database when nothing writes to it. Data from elsewhere are the very ones that the switch will use.

    Raises:
        ReleaseError: a step failed, or the switch would keep pages away for longer than `outage_limit`.
    """
    database, journal, options = Database(host), Journal(host), Options.load(operation.options)
    with journal.phase(operation, "rehearse") as phase:
        replaces = operation.database != "copy"
        if replaces and _password_changes(host):
            phase.note = "not rehearsed: Postgres gets another password with the new release"
            return

        def say(doing: str) -> None:
            """Show it to whoever asks for the status; a step takes as long as the database is large."""
            journal.say(operation, doing)

        source = operation.database if replaces else f"bundle:{_fresh_backup(host, operation, say)}"
        say(f"making the next database from {source.partition(':')[2]}")
        next_database.make(database, source)
        began = time.time()
        say(f"migrating {database.size(NEXT) / 2**20:.0f} MiB")
        next_database.migrate(host, source, options.accept_undecryptable)
        migrated = time.time() - began
        # Before anybody is connected to it, as a copy asks for.
        copied = 0.0 if replaces else _copy_seconds(database, say)
        say("starting the new webserver on it")
        standby.start(host, options.start_timeout)
        if replaces:
            operation.done["prepared"] = True
            phase.note = f"migrating took {migrated:.1f} s, and the new webserver serves what will be live"
            return
        expected = copied + migrated + pace.SECONDS_BESIDE_THE_DATA
        phase.note = (
            f"migrating took {migrated:.1f} s, and the new webserver serves the result; "
            f"the switch will keep pages away for about {expected:.0f} s"
        )
        pace.require_outage(expected, database.size(LIVE), options.outage_limit)


def clean_up(host: Host) -> None:
    """Remove what a rehearsal left: the standby webserver and its database, and the copy that was timed."""
    standby.remove(host)
    for name in (NEXT, SCRATCH):
        Database(host).drop(name)


def _fresh_backup(host: Host, operation: Operation, say: Callable[[str], None]) -> str:
    return str(backups.take(host, reason=f"rehearsal of {operation.id}", progress=say))


def _password_changes(host: Host) -> bool:
    return next_database.password(host, host.directory) != next_database.password(host, host.next)


def _copy_seconds(database: Database, say: Callable[[str], None]) -> float:
    """Measure a copy of the rehearsed database, and scale it to the size of the live one."""
    size = database.size(NEXT)
    say(f"copying {size / 2**20:.0f} MiB, as the switch will")
    began = time.time()
    database.copy(NEXT, SCRATCH)
    pace.remember(database.host, size, time.time() - began)
    database.drop(SCRATCH)
    return pace.copy_seconds(database.host, database.size(LIVE)) or 0.0
