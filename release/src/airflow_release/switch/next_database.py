"""The database that a release will have: a copy or from a backup, and brought to the release's schema."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

from airflow_release.backup import backups, sqlfile
from airflow_release.core.database import ADMINISTRATION, KEPT, LIVE, NEXT, WORKER_ROLE, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host
from airflow_release.core.services import INIT, INIT_NEXT

SMOKE_DAG = "weather-checker"
PRODUCTION = "production"
"""The only environment (`ENVIRONMENT` in `.env`) in which DAGs run without somebody's unpausing them."""

REQUEUE = "UPDATE task_instance SET state = 'scheduled', external_executor_id = NULL WHERE state = 'queued'"
"""What was waiting for a worker gets a new message: that of a backup is gone, and that of a drain which was
cut short names a task that another version's worker may not know, and then drops."""

END_WORK = f"""
UPDATE task_instance SET state = 'failed', end_date = now()
WHERE state IN ('running', 'restarting', 'deferred') AND dag_id <> '{SMOKE_DAG}';
UPDATE task_instance SET trigger_id = NULL WHERE trigger_id IS NOT NULL;
DELETE FROM trigger;
DELETE FROM callback_request;
"""
"""Ends what runs whether its DAG is paused or not: triggers and callbacks, also those of tasks whose process
died. Deleting a trigger deletes its task, unless the task names it no more."""

UNLOGGED = """
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
"""
"""Keeps a session's statements, in which a password stands, out of the server's log."""

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
WORKER_LOGIN = "WORKER_DATABASE_PASSWORD"
FERNET_KEY = "AIRFLOW__CORE__FERNET_KEY"

UNDECRYPTABLE = re.compile(r"^not with this key: (.*)$", re.MULTILINE)
"""What `check-fernet` of every image prints for each value that the key does not decrypt."""


def point(host: Host, database: str) -> None:
    """Tell the next release's containers their database (libpq's service file, read at each connect)."""
    directory = host.releases / "database"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)  # whatever the process' umask: Airflow's user reads it
    replace_file(directory / "pg_service.conf", f"[next]\ndbname={database}\n", mode=0o644)


def password(host: Host, files: Path) -> str:
    """Return Postgres' password according to a release's files."""
    return host.environment("env/postgres.env", files)["POSTGRES_PASSWORD"]


def set_password(database: Database, files: Path) -> None:
    """Give Postgres the passwords that a release's files have: its own, and that of workers if any."""
    statements = f"ALTER ROLE airflow PASSWORD {_quoted(password(database.host, files))};"
    if worker := database.host.environment("env/init.env", files).get(WORKER_LOGIN):
        # Where the role is not there yet, the migration of the next database makes it.
        statements += (
            f"\nSELECT format('ALTER ROLE %I PASSWORD %L', rolname, {_quoted(worker)})"
            f" FROM pg_roles WHERE rolname = '{WORKER_ROLE}'\n\\gexec"
        )
    database.sql(UNLOGGED + statements, ADMINISTRATION, doing="setting Postgres' password")


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def make(database: Database, source: str) -> None:
    """Make the next database: `copy` of the live one, `bundle:<path>`, `sql:<path>` or `database:<name>`.

    A copy of the live one closes that: whatever wrote to it from here on would be lost. It stays closed until
    it is opened.
    """
    kind, _, place = source.partition(":")
    if kind == "copy":
        database.close(LIVE)
        database.copy(LIVE, NEXT)
    elif kind == "database":
        if not KEPT.fullmatch(place) or place not in database.names():
            raise ReleaseError(f"there is no kept database {place!r}")
        database.copy(place, NEXT)
    elif kind in ("bundle", "sql"):
        with backups.working_directory(database.host) as work:
            if kind == "bundle":
                dump = backups.extract_database(Path(place), work)
            else:
                if sqlfile.examine(
                    Path(place)
                ).grants_to_workers:  # here, too: what psql runs is what was read
                    database.ensure_worker_role()
                dump = sqlfile.unpack(Path(place), work)
            database.restore(dump, NEXT)
        database.adopt(LIVE, NEXT)
    else:
        raise ReleaseError(f"{source!r} is no source for a database")
    if kind != "copy":
        # What ran when the backup was made has no process any more. Airflow sees so at once, and retries or
        # fails it as its DAG says, where it would else wait for heartbeats.
        database.sql("UPDATE job SET state = 'failed' WHERE state = 'running'", NEXT, timeout=None)
    database.sql(REQUEUE, NEXT, timeout=None, doing="queueing tasks again")


def migrate(host: Host, source: str, accept_undecryptable: int, *, login: Path | None = None) -> None:
    """Migrate the next database to the next release's schema, with its image and Fernet key.

    `login` has the files whose password Postgres takes now, where those are not the next release's.

    Raises:
        ReleaseError: a step failed, or the key does not decrypt more values than was accepted.
    """
    connection = _connection(host, login) if login else {}
    point(host, NEXT)
    _run_once(host, host.next, INIT_NEXT, doing="migrating the database", environment=connection)
    if source != "copy" and not _is_production(host, host.next):
        Database(host).sql(END_WORK, NEXT, timeout=None, doing="ending what production had under way")
    old, new = (_fernet_key(host, files) for files in (host.directory, host.next))
    if old != new:
        _check_fernet(host, accept_undecryptable, environment={**connection, FERNET_KEY: f"{new},{old}"})
    elif source != "copy":
        # A copy under the same key is what was read a minute ago; the check costs seconds without a page.
        _check_fernet(host, accept_undecryptable, environment=connection)


def try_rotation(host: Host, accept_undecryptable: int, *, fernet_key: bool) -> None:
    """Do to a next database what a rotation does, with the running release and a key that is thrown away.

    Raises:
        ReleaseError: a step failed, or the key does not decrypt more values than was accepted.
    """
    files = host.directory
    point(host, NEXT)
    _run_once(host, files, INIT_NEXT, doing="migrating the database")
    if fernet_key:
        keys = f"{base64.urlsafe_b64encode(os.urandom(32)).decode()},{_fernet_key(host, files)}"
        _check_fernet(host, accept_undecryptable, files=files, environment={FERNET_KEY: keys})


def check_live_fernet(host: Host, accepted: int) -> None:
    """Have the running release decrypt every encrypted value of the live database, and change none.

    Raises:
        ReleaseError: its key does not decrypt more values than was accepted.
    """
    _check_fernet(host, accepted, files=host.directory, service=INIT)


def _check_fernet(
    host: Host,
    accepted: int,
    *,
    files: Path | None = None,
    service: str = INIT_NEXT,
    environment: dict[str, str] | None = None,
) -> None:
    """Have a release's image decrypt every encrypted value, and re-encrypt it if keys are given."""
    re_encrypt = FERNET_KEY in (environment or {})
    doing = f"{'re-encrypting' if re_encrypt else 'decrypting'} connections and variables"
    command = ["check-fernet", *(["--re-encrypt"] if re_encrypt else [])]
    try:
        said = _run_once(host, files or host.next, service, *command, doing=doing, environment=environment)
    except ReleaseError as error:
        # It fails when there is such a value, and when it cannot ask the database.
        said = error.log
        if not UNDECRYPTABLE.search(said):
            raise
    lost = UNDECRYPTABLE.findall(said)
    if len(lost) > accepted:
        count = re.search(r"\d+ of (\d+) encrypted values", said)
        raise ReleaseError(
            f"The Fernet key does not decrypt {len(lost)} of {count[1] if count else 'the'} encrypted values"
            f"{': ' if lost else ''}{', '.join(lost)}. Give the right key, or say that their loss is meant: "
            f"-e upgrade_accept_undecryptable={len(lost)}."
        )


def pause(database: Database) -> list[str]:
    """Pause every DAG of the next database; return those that were not paused."""
    paused = database.sql(
        "UPDATE dag SET is_paused = true WHERE NOT is_paused RETURNING dag_id", NEXT, doing="pausing the DAGs"
    )
    return paused.splitlines()


def unpause(database: Database, paused: list[str]) -> None:
    """Unpause the DAGs that a switch paused, and leave the smoke test's as it was, whatever was done to it.

    Outside production that is the smoke test's alone: data of production must not start production's work.
    """
    if not _is_production(database.host, database.host.directory):
        paused = [name for name in paused if name == SMOKE_DAG]
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in paused)
    database.sql(
        f"UPDATE dag SET is_paused = NOT dag_id = ANY (ARRAY[{names}]::text[])"
        f" WHERE dag_id = ANY (ARRAY[{names}]::text[]) OR dag_id = '{SMOKE_DAG}'",
        LIVE,
        doing="unpausing the DAGs",
    )


def _is_production(host: Host, files: Path) -> bool:
    return host.environment(project=files).get("ENVIRONMENT") == PRODUCTION


def _fernet_key(host: Host, files: Path) -> str:
    return host.environment("env/airflow.env", files).get(FERNET_KEY, "")


def _connection(host: Host, login: Path) -> dict[str, str]:
    """Return how the next release's containers reach Postgres by the password in `login`."""
    connection = host.environment("env/next.env", login).get(CONNECTION)
    return {CONNECTION: connection} if connection else {}


def _run_once(
    host: Host,
    files: Path,
    service: str,
    *command: str,
    doing: str,
    environment: dict[str, str] | None = None,
) -> str:
    """Run a service of a release's files once; `environment` is on no command line."""
    names = [f"--env={name}" for name in environment or {}]
    once = ["--profile=switch", "run", "--rm", "--no-deps", "--no-TTY", *names, service, *command]
    return host.run(
        host.compose_command(*once, project=files), environment=environment, timeout=None, doing=doing
    )
