"""Airflow's history in the metadata database: `airflow db clean`, and whether it did what it says.

Airflow's command (airflow/utils/db_cleanup.py, 2.5.3 to 2.11.2) copies the rows of a table that go into
`_airflow_deleted__<table>__<time>`, commits, deletes them, and drops the copy. Where a statement fails, for
example because a lock is held for too long, it logs a warning, leaves the copy, goes on and exits 0. So this
module counts what is left, and drops what Airflow left.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from airflow_release.backup import status
from airflow_release.backup.space import require_space
from airflow_release.core.database import APPLICATION, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import INIT
from airflow_release.core.settings import Settings

TABLES = {
    "callback_request": "created_at",
    "celery_taskmeta": "date_done",
    "celery_tasksetmeta": "date_done",
    "dag_run": "start_date",
    "dataset_event": "timestamp",
    "import_error": "timestamp",
    "job": "latest_heartbeat",
    "log": "dttm",
    "sla_miss": "timestamp",
    "task_fail": "start_date",
    "task_instance": "start_date",
    "task_instance_history": "start_date",
    "task_reschedule": "start_date",
    "xcom": "timestamp",
}
"""What is history, and the column that says how old a row is, both as in Airflow's `config_list`.

Two tables of that list are left out. `dag` is no history: a DAG that was not parsed for a while would lose
whether it is paused. The triggerer itself removes the triggers that nothing waits for. Sessions of logged-in
people are removed here, as the older versions' command does not.
"""

LAST_RUNS = (
    "(dag_id, start_date) IN"
    " (SELECT dag_id, max(start_date) FROM dag_run WHERE NOT external_trigger GROUP BY dag_id)"
)
"""Runs that Airflow keeps however old they are: the last scheduled one of each DAG, from which it goes on."""

ARCHIVE = re.compile(r"_airflow_deleted__[a-z_]+__[0-9]{14}")
"""How Airflow names what it copied before it deleted it."""

SESSIONS_OVER = "FROM session WHERE expiry < now() AT TIME ZONE 'UTC'"
"""The rows of Flask-Session that log nobody in any more."""

BACKUP_SECONDS = 25 * 3600
"""How old the last good backup may be: a day, and what the times of two timers differ by."""

LOCK_SECONDS = 60
"""How long a statement waits for what another session holds; else one forgotten session holds up all."""

CONTAINER = "airflow-clean"


def clean(host: Host, settings: Settings, *, dry_run: bool = False, now: float | None = None) -> list[str]:
    """Remove history older than so many days; return in words what went.

    The caller holds the platform's lock, and no operation is active.

    Raises:
        ReleaseError: there is no backup of the last day, an old run has not ended, there is too little disk,
            or rows or tables are left that should not be; with what went all the same.
    """
    now = time.time() if now is None else now
    limit = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now - settings.history_days * 86_400))
    database = Database(host)
    tables, sessions, archives = _tables(database), _sessions(database), _archives(database)
    before = old_rows(database, tables, limit)
    if dry_run or not (sum(before.values()) or sessions or archives):
        return _said(before, limit, sessions, archives)
    _require_backup(host, now)
    _end_leftovers(host, database)
    problems: list[str] = []

    def attempt(work: Callable[..., object], *arguments: Any) -> bool:
        try:
            work(*arguments)
        except ReleaseError as error:
            problems.append(_with_cause(error))
            return False
        return True

    # Before and after: what an earlier run left takes disk that this one needs.
    dropped = [name for name in archives if attempt(_drop, database, name)]
    ran = sum(before.values()) > 0 and attempt(_run, host, tables, limit)
    if sessions and not attempt(_sql, database, f"DELETE {SESSIONS_OVER}", "removing sessions"):
        sessions = 0
    dropped += [
        name for name in _archives(database) if name not in archives and attempt(_drop, database, name)
    ]
    left = {name: count for name, count in old_rows(database, tables, limit).items() if count}
    if left and ran:
        problems.append(
            f"`airflow db clean` left rows from before {limit[:10]}: {_counts(left)}"
            f"{_holders(database, left)}"
        )
    gone = {name: count - left.get(name, 0) for name, count in before.items()}
    said = _said(gone, limit, sessions, dropped)
    if problems:
        raise ReleaseError("; ".join([*problems, *(f"removed: {text}" for text in said)]))
    return said


def old_rows(database: Database, tables: list[str], limit: str) -> dict[str, int]:
    """Count the rows of these tables that are history older than `limit`, a time in ISO 8601 and UTC."""
    if not tables:
        return {}
    counts = " UNION ALL ".join(
        f"SELECT '{table}', count(*) FROM {table} WHERE {TABLES[table]} < '{limit}'"
        + (f" AND ({LAST_RUNS}) IS NOT TRUE" if table == "dag_run" else "")
        for table in tables
    )
    rows = _sql(database, counts, "counting history")
    return {name: int(count) for name, count in (row.split("|") for row in rows.splitlines())}


def _require_backup(host: Host, now: float) -> None:
    last = status.read(host).get("last_good") or {}
    if not last or now - float(last.get("at", 0)) > BACKUP_SECONDS:
        raise ReleaseError(
            "no history is removed, because there is no good backup of the last day; "
            "take one, then clean: airflow-release backup take && systemctl start airflow-clean"
        )


def _run(host: Host, tables: list[str], limit: str) -> None:
    """Run Airflow's command once, in a container of the image that runs, beside the scheduler."""
    _require_ended(Database(host), limit)
    # It copies what it deletes.
    require_space(host, Database(host).size(), copies_of_dump=0, dump=0)
    options = f"-c lock_timeout={LOCK_SECONDS}s -c TimeZone=UTC"
    once = ("--profile=init", "run", "--rm", "--no-deps", "--no-TTY", f"--name={CONTAINER}")
    # By this name a switch would end its sessions, as those of any interrupted command of this package.
    libpq = (f"--env=PGOPTIONS={options}", f"--env=PGAPPNAME={APPLICATION}")
    command = ("airflow", "db", "clean", "--skip-archive", "--yes", f"--clean-before-timestamp={limit}")
    host.run(
        host.compose_command(*once, *libpq, INIT, *command, f"--tables={','.join(tables)}"),
        timeout=None,
        doing="airflow db clean",
    )


def _require_ended(database: Database, limit: str) -> None:
    """Refuse while a run from before `limit` has not ended, such as one of a DAG that was paused in between.

    Airflow would remove the tasks that it has done, and run these again when it goes on.
    """
    runs = _sql(
        database,
        "SELECT format('%s of %s', run_id, dag_id) FROM dag_run"
        f" WHERE start_date < '{limit}' AND state IN ('queued', 'running') ORDER BY start_date LIMIT 5",
        "looking for old runs that have not ended",
    ).splitlines()
    if runs:
        raise ReleaseError(
            f"no run is removed, because some from before {limit[:10]} have not ended: {', '.join(runs)}; "
            "let them end, or set their state to failed on Airflow's page Browse, DAG Runs"
        )


def _end_leftovers(host: Host, database: Database) -> None:
    """End what a clean-up that was killed left at work."""
    left = host.run(
        ["docker", "container", "ls", "--all", "--quiet", f"--filter=name=^{CONTAINER}$"],
        timeout=60,
        doing="looking for an earlier clean-up",
    ).split()
    if left:
        host.run(["docker", "container", "rm", "--force", *left], doing="ending an earlier clean-up")
    database.end_leftovers()


def _drop(database: Database, archive: str) -> None:
    _sql(database, f"DROP TABLE public.{archive}", f"dropping {archive}")


def _archives(database: Database) -> list[str]:
    return [name for name in _all_tables(database) if ARCHIVE.fullmatch(name)]


def _sessions(database: Database) -> int:
    """Count the sessions of logged-in people that are over."""
    if "session" not in _all_tables(database):
        return 0
    return int(_sql(database, f"SELECT count(*) {SESSIONS_OVER}", "counting sessions"))


def _tables(database: Database) -> list[str]:
    """Return the tables with history that this version has."""
    columns = ", ".join(f"('{table}', '{column}')" for table, column in TABLES.items())
    return _sql(
        database,
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public'"
        f" AND (table_name, column_name) IN ({columns}) ORDER BY 1",
        "looking at the tables",
    ).splitlines()


def _all_tables(database: Database) -> list[str]:
    return _sql(
        database,
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
        "looking at the tables",
    ).splitlines()


def _holders(database: Database, tables: dict[str, int]) -> str:
    """Name the sessions that have held locks on these tables for long; "" where there is none any more."""
    listed = ", ".join(f"'public.{name}'::regclass" for name in tables)
    rows = _sql(
        database,
        "SELECT DISTINCT format('process %s (%s, %s, its transaction since %s)', pid,"
        " coalesce(nullif(application_name, ''), usename), state, date_trunc('second', xact_start))"
        f" FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation IN ({listed})"
        f" AND pid <> pg_backend_pid() AND xact_start < now() - interval '{LOCK_SECONDS - 1} s'",
        "looking for who holds locks",
    )
    found = ", ".join(rows.splitlines())
    return f"; held by {found}: end it by `SELECT pg_terminate_backend(…)`" if found else ""


def _sql(database: Database, statement: str, doing: str) -> str:
    settings = f"SET lock_timeout = '{LOCK_SECONDS}s'; SET TimeZone = 'UTC';"
    return database.sql(f"{settings}\n{statement};", timeout=None, doing=doing)


def _said(removed: dict[str, int], limit: str, sessions: int, archives: list[str]) -> list[str]:
    said = [f"history before {limit[:10]}: {_counts(removed)}"] if sum(removed.values()) else []
    said += [f"{sessions} expired sessions"] if sessions else []
    return said + [f"the table {name}, which `airflow db clean` had left" for name in archives]


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in rows.items() if count)


def _with_cause(error: ReleaseError) -> str:
    return ": ".join([str(error), *(line[:300] for line in error.log.strip().splitlines()[-1:])])
