"""The way back: the old files, database and containers again. It uses no option, and can be taken again."""

from __future__ import annotations

import contextlib

from airflow_release.core import records, services
from airflow_release.core.database import FAILED, LIVE, NEXT, PREVIOUS, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import HAPROXY, POSTGRES, REDIS, WEBSERVER
from airflow_release.switch import haproxy, next_database, release_files, reserve, stack, standby
from airflow_release.switch.journal import Journal, Operation

POSTGRES_SECONDS = 3600
"""After a crash it first repeats what its log has, which may be much."""

SERVICE_SECONDS = 300
"""For the webserver, and then for the rest. What is not healthy by then is told, and the way back ends."""

HEARTBEAT_SECONDS = 60
"""By then every part of Airflow that runs has been heard of."""

WORTHLESS_AFTER = ("drain", "interrupted")
"""Phases whose failure says nothing of the database that was prepared."""


def take(host: Host, operation: Operation) -> None:
    """Take an operation from `reverting` to `reverted`.

    Raises:
        ReleaseError: files, database or containers could not be put back.
    """
    journal = Journal(host)
    with journal.phase(operation, "revert") as phase:
        _revert(host, operation, journal)
        ill = _ill(host, operation.from_version)
        if LIVE not in Database(host).names():
            ill.insert(0, "there is no live database, as before the switch: restore a backup")
        for text in ill:
            journal.warn(operation, text)
        phase.note = f"Airflow {operation.from_version} runs as before" + (
            f", but: {'; '.join(ill)}" if ill else ""
        )
    (host.releases / "verdict.json").unlink(missing_ok=True)
    journal.move(operation, "reverted")


def _revert(host: Host, operation: Operation, journal: Journal) -> None:
    database = Database(host)
    reserve.give_back(host)
    # First: Compose cannot read a project of which only some files are the old ones.
    if saved := operation.done.get("saved"):
        changed = release_files.install(records.load(host, saved).files(host), host.directory)
        if any(name.startswith("haproxy/") for name in changed):
            # Kept: a second attempt finds the files as they should be, and HAProxy perhaps not.
            operation.done["haproxy_changed"] = True
            journal.save(operation)
    # A switch that was still draining has stopped the scheduler only, and workers may be at work.
    if "pages_closed" in operation.done:
        if HAPROXY in host.running():
            # It only makes the pages go in good order: what serves them is stopped next in any case.
            with contextlib.suppress(ReleaseError):
                haproxy.use(host, None)
        _remove_what_is_new(host, operation, journal)
        stack.stop(host, *services.read(host).users(POSTGRES, REDIS, optional=True), seconds=10)
    stack.start(host, POSTGRES, seconds=POSTGRES_SECONDS)
    database.end_leftovers()
    _take_back_database(database, operation)
    next_database.set_password(database, host.directory)
    # People first: whatever else is ill must not keep the pages away.
    stack.try_to_start(host, WEBSERVER, HAPROXY, seconds=SERVICE_SECONDS)
    if "haproxy_changed" in operation.done:
        haproxy.reload(host)
    haproxy.use(host, haproxy.LIVE)
    standby.remove(host)
    stack.try_to_start(host, seconds=SERVICE_SECONDS)


def _remove_what_is_new(host: Host, operation: Operation, journal: Journal) -> None:
    """Remove the services that only the next release has. The old release comes back even if one stays."""
    try:
        stack.remove_others(host, host.next)
    except ReleaseError as error:
        journal.warn(operation, f"what only the next release has is not removed: {error}")


def _ill(host: Host, version: str) -> list[str]:
    """Return in words what is not as it should be, now that all has been started."""
    try:
        stack.verify(host, version, seconds=HEARTBEAT_SECONDS)
    except Exception as error:  # whatever the webserver answers: the pages are back, and must not go again
        return [str(error) or type(error).__name__]
    return []


def _take_back_database(database: Database, operation: Operation) -> None:
    """Give the old database its name back. One that failed is kept for a look as `airflow_failed`.

    So is one that was interrupted, once somebody may have written to it; before that it is worth nothing.
    """
    names, done = database.names(), operation.done
    worthless = operation.failure.get("phase") in WORTHLESS_AFTER and "served" not in done
    # What lies there from an operation that was thrown away is not this one's to take.
    old = [(PREVIOUS, LIVE)] if PREVIOUS in names else []
    # Where the live database was lost, none comes back: the old release must not run on the new one.
    if "renaming" in done and NEXT not in names and LIVE in names and (old or done.get("lost")):
        aside = NEXT if worthless else FAILED
        database.close(LIVE)
        database.drop(aside)
        database.rename((LIVE, aside), *old)
    if NEXT in database.names():
        if worthless or "pages_closed" not in done:
            database.drop(NEXT)
        else:
            database.drop(FAILED)
            database.rename((NEXT, FAILED))
    if LIVE in database.names():
        database.open(LIVE)
