"""Tries the next release out beside the one that runs: its database is made, migrated and served."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_release.backup import backups, space
from airflow_release.core.database import LIVE, NEXT, SAMPLE, SCRATCH, Database
from airflow_release.core.host import Host
from airflow_release.switch import next_database, pace, standby
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options


def rehearse(host: Host, operation: Operation) -> None:
    """Make the next database beside the live one, migrate it, and have the new webserver serve it.

    For a change that keeps the data it is made from a fresh backup and thrown away: the switch copies the
    live database when nothing writes to it. Data from elsewhere are the very ones that the switch will use.
    Where Postgres gets another password, no webserver is started: it takes the present one until the switch.

    Raises:
        ReleaseError: a step failed, or the switch would keep pages away for longer than `outage_limit`.
    """
    database, journal, options = Database(host), Journal(host), Options.load(operation.options)
    with journal.phase(operation, "rehearse") as phase:
        replaces, serves = operation.database != "copy", not _password_changes(host)

        def say(doing: str) -> None:
            """Show it to whoever asks for the status; a step takes as long as the database is large."""
            journal.say(operation, doing)

        source = operation.database if replaces else f"bundle:{_fresh_backup(host, operation, say)}"
        say(f"making the next database from {source.partition(':')[2]}")
        next_database.make(database, source)
        began = time.time()
        say(f"migrating {database.size(NEXT) / 2**20:.0f} MiB")
        login = None if serves else host.directory
        next_database.migrate(host, source, options.accept_undecryptable, login=login)
        migrated = time.time() - began
        # Before anybody is connected to it, as a copy asks for.
        copied = 0.0 if replaces else _copy_seconds(database, say)
        tried = "no webserver was tried on it, since Postgres gets another password"
        if serves:
            say("starting the new webserver on it")
            standby.start(host, options.start_timeout)
            tried = f"the new webserver serves {'what will be live' if replaces else 'the result'}"
        # What replaces the live database only changes its name in the switch, however large it is.
        expected = 0.0 if replaces else copied + migrated
        expected += pace.SECONDS_BESIDE_THE_DATA + (0 if serves else pace.SECONDS_TO_START)
        phase.note = (
            f"migrating took {migrated:.1f} s, and {tried}; "
            f"the switch will keep pages away for about {expected:.0f} s"
        )
        if replaces:
            operation.done["prepared"] = True
        else:
            pace.require_outage(expected, database.size(LIVE), options.outage_limit)


def measure_rotation(host: Host, options: Options, *, fernet_key: bool, say: Callable[[str], None]) -> float:
    """Do beside the live database what a rotation does without pages; return for how long they will be away.

    It is for before the vault has other values, so there is neither an operation nor a next release. The
    caller holds the platform's lock.

    Raises:
        ReleaseError: the Fernet key does not decrypt more values than was accepted, a step failed, or it will
            take longer than `outage_limit`.
    """
    database = Database(host)
    if fernet_key:
        # First, since it needs no copy.
        say("reading every encrypted value")
        next_database.check_live_fernet(host, options.accept_undecryptable)
    clean_up(host)  # what was killed here, or an operation that is taken over
    try:
        with backups.working_directory(host) as work:
            say(f"copying {database.size(LIVE) / 2**20:.0f} MiB beside the live database")
            dump = work / "database.dump"
            database.dump(dump)
            database.restore(dump, NEXT)
        began = time.time()
        say("re-encrypting every value" if fernet_key else "looking at the schema")
        next_database.try_rotation(host, options.accept_undecryptable, fernet_key=fernet_key)
        expected = time.time() - began + _copy_seconds(database, say)
        expected += pace.SECONDS_BESIDE_THE_DATA + pace.SECONDS_TO_START
        pace.require_outage(expected, database.size(LIVE), options.outage_limit)
    finally:
        clean_up(host)
    return expected


def measure_pace(host: Host, say: Callable[[str], None]) -> None:
    """Measure how long this host takes for a copy, unless one like the live database's was measured before.

    The live one cannot be copied while it serves, and may be too damaged to be dumped. So a sample is copied,
    of a quarter of its size and 1 GiB at most. The caller holds the platform's lock.

    Raises:
        ReleaseError: there is too little disk, or Postgres cannot copy a database.
    """
    database = Database(host)
    live = database.size(LIVE)
    if pace.copy_seconds(host, live) is not None:
        return
    sample = min(live // pace.COMPARABLE + 1, pace.SAMPLE_BYTES)
    space.require_space(host, sample, copies_of_database=2, copies_of_dump=0, dump=0)
    say(f"copying a sample of {sample / 2**20:.0f} MiB, to see how long a copy takes on this host")
    try:
        database.create(SAMPLE)
        database.fill(SAMPLE, sample)
        size, seconds = _time_copy(database, SAMPLE)
    finally:
        for name in (SAMPLE, SCRATCH):
            database.drop(name)
    # Last: once it is known, nobody comes here again, and what a kill left would stay.
    pace.remember(host, size, seconds)


def clean_up(host: Host) -> None:
    """Remove what a rehearsal left: the standby webserver, its database, and the copies that were timed."""
    standby.remove(host)
    for name in (NEXT, SCRATCH, SAMPLE):
        Database(host).drop(name)


def _fresh_backup(host: Host, operation: Operation, say: Callable[[str], None]) -> str:
    return str(backups.take(host, reason=f"rehearsal of {operation.id}", progress=say))


def _password_changes(host: Host) -> bool:
    return next_database.password(host, host.directory) != next_database.password(host, host.next)


def _copy_seconds(database: Database, say: Callable[[str], None]) -> float:
    """Measure a copy of the rehearsed database, and scale it to the size of the live one."""
    say(f"copying {database.size(NEXT) / 2**20:.0f} MiB, as the switch will")
    size, seconds = _time_copy(database, NEXT)
    pace.remember(database.host, size, seconds)
    database.drop(SCRATCH)
    # The live one may be many times as large, with the room of rows that are gone: a backup has none of it.
    return seconds * database.size(LIVE) / max(size, 1)


def _time_copy(database: Database, source: str) -> tuple[int, float]:
    """Copy a database to the scratch database; return its bytes, and the seconds that it took."""
    size, began = database.size(source), time.time()
    database.copy(source, SCRATCH)
    return size, time.time() - began
