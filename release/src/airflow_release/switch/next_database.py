"""The database that a release will have: a copy or from a backup, and brought to the release's schema."""

from __future__ import annotations

from pathlib import Path

from airflow_release.backup import backups, sqlfile
from airflow_release.core.database import LIVE, NEXT, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host

SMOKE_DAG = "weather-checker"
REQUEUE = "UPDATE task_instance SET state = 'scheduled', external_executor_id = NULL WHERE state = 'queued'"
"""What was waiting for a worker gets a new message: that of a backup is gone, and that of a drain which was
cut short names a task that another version's worker may not know, and then drops."""


def point(host: Host, database: str) -> None:
    """Tell the next release's containers their database (libpq's service file, read at each connect)."""
    file = host.releases / "database" / "pg_service.conf"
    # Airflow's user, uid 50000, reads it through the directory, which is mounted.
    replace_file(file, f"[next]\ndbname={database}\n", mode=0o644, directory_mode=0o755)


def set_password(database: Database, files: Path) -> None:
    """Give Postgres the password that a release's files have."""
    password = database.host.environment("env/postgres.env", files)["POSTGRES_PASSWORD"].replace("'", "''")
    database.sql(f"ALTER ROLE airflow PASSWORD '{password}'", doing="setting Postgres' password")


def make(database: Database, source: str) -> None:
    """Make the next database from the live one (`copy`), from `bundle:<path>` or from `sql:<path>`."""
    kind, _, path = source.partition(":")
    if kind == "copy":
        database.copy(LIVE, NEXT)
    elif kind in ("bundle", "sql"):
        with backups.working_directory(database.host) as work:
            take_out = backups.extract_database if kind == "bundle" else sqlfile.unpack
            database.restore(take_out(Path(path), work), NEXT)
        # What ran when the backup was made has no process any more. Airflow sees so at once, and retries or
        # fails it as its DAG says, where it would else wait for heartbeats.
        database.sql("UPDATE job SET state = 'failed' WHERE state = 'running'", NEXT)
    else:
        raise ReleaseError(f"{source!r} is no source for a database")
    database.sql(REQUEUE, NEXT, doing="queueing tasks again")


def migrate(host: Host, source: str) -> None:
    """Bring the next database to the next release's schema, with its image and Fernet key."""
    point(host, NEXT)
    _run_in_next(host, "airflow-init-next", doing="migrating the database")
    old, new = (_fernet_key(host, files) for files in (host.directory, host.next))
    if old != new:
        _run_in_next(
            host,
            "airflow-init-next",
            "airflow",
            "rotate-fernet-key",
            doing="re-encrypting with the new Fernet key",
            environment={"AIRFLOW__CORE__FERNET_KEY": f"{new},{old}"},
        )
    # A copy under the same key is what was read a minute ago; the check costs seconds without a page.
    if old != new or source != "copy":
        _run_in_next(host, "airflow-init-next", "check-fernet", doing="decrypting connections and variables")


def hold(database: Database) -> list[str]:
    """Pause every DAG of the next database; return those that were not paused."""
    held = database.sql(
        "UPDATE dag SET is_paused = true WHERE NOT is_paused RETURNING dag_id", NEXT, doing="holding the DAGs"
    )
    return held.splitlines()


def release(database: Database, held: list[str]) -> None:
    """Let the DAGs go on that were held, and leave the smoke test's as it was, whatever was done to it."""
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in held)
    database.sql(
        f"UPDATE dag SET is_paused = NOT dag_id = ANY (ARRAY[{names}]::text[])"
        f" WHERE dag_id = ANY (ARRAY[{names}]::text[]) OR dag_id = '{SMOKE_DAG}'",
        LIVE,
        doing="releasing the DAGs",
    )


def _fernet_key(host: Host, files: Path) -> str:
    return host.environment("env/airflow.env", files).get("AIRFLOW__CORE__FERNET_KEY", "")


def _run_in_next(
    host: Host, service: str, *command: str, doing: str, environment: dict[str, str] | None = None
) -> str:
    """Run a service of the next release once; `environment` is on no command line."""
    names = [f"--env={name}" for name in environment or {}]
    once = ["--profile=switch", "run", "--rm", "--no-deps", "--no-TTY", *names, service, *command]
    return host.run(
        host.compose_command(*once, project=host.next), environment=environment, timeout=6 * 3600, doing=doing
    )
