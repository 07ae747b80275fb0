"""The metadata database: copies, dumps, renames and counts, by the running server's own programs."""

from __future__ import annotations

import calendar
import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import POSTGRES

LIVE = "airflow"
NEXT = "airflow_next"
PREVIOUS = "airflow_previous"
FAILED = "airflow_failed"
SCRATCH = "airflow_scratch"
SAMPLE = "airflow_sample"
"""Made to be copied, where the live database cannot be, and gone when that was measured."""
KEPT = re.compile(r"airflow_kept_(?P<stamp>[0-9a-z]+)")
"""Databases that were left and could not be backed up. `airflow-release clean` drops them by days."""
_STAMP = "%Y%m%dt%H%M%Sz"
"""When a kept database was left, in UTC. Postgres makes capital letters of an unquoted name small."""

WORKER_ROLE = "airflow_worker"
"""The role of workers on other hosts. `grant-worker` of the image makes it, where there are such workers."""

MAIN_TABLES = (
    "dag",
    "dag_run",
    "task_instance",
    "xcom",
    "log",
    "connection",
    "variable",
    "slot_pool",
    "ab_user",
)
"""What a backup is compared by: the tables that hold what people would miss, in all supported versions."""

ADMINISTRATION = "postgres"
"""The database that one is connected to while another is renamed, copied or dropped."""

APPLICATION = "airflow-release"
"""How Postgres lists the sessions of this package, so that those of a killed process can be ended."""

QUOTED_LISTS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "temp_tablespaces",
)
"""Settings whose values are stored ready for SET; all others need quotes (GUC_LIST_QUOTE, as in pg_dump)."""


def kept_name(moment: float) -> str:
    """Return the name under which a database stays that was left at that moment, in seconds since 1970."""
    return f"airflow_kept_{time.strftime(_STAMP, time.gmtime(moment))}"


def kept_since(name: str) -> float | None:
    """Return when a kept database was left, by its name; None if the name is another one or does not say."""
    found = KEPT.fullmatch(name)
    try:
        return float(calendar.timegm(time.strptime(found["stamp"], _STAMP))) if found else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Database:
    """The Postgres of the platform. Names of databases are this module's constants, or match `KEPT`.

    What reads or writes all of a database has no limit of time: how long that takes depends on its size.
    """

    host: Host

    def command(self, *program: str) -> list[str]:
        """Return the command that runs one of Postgres' programs inside its container."""
        return self.host.compose_command("exec", "--no-TTY", POSTGRES, *program)

    def sql(
        self, statements: str, database: str = LIVE, *, timeout: float | None = 600, doing: str = ""
    ) -> str:
        """Run SQL statements up to the first that fails; return the rows, columns separated by `|`.

        `timeout` is in seconds, None for no limit.
        """
        psql = [
            "env",
            f"PGAPPNAME={APPLICATION}",
            "psql",
            "--username=airflow",
            f"--dbname={database}",
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
        ]
        return self.host.run(
            self.command(*psql), input=statements, timeout=timeout, doing=doing or f"SQL on {database}"
        ).strip()

    def names(self) -> set[str]:
        """Return the databases that there are."""
        return set(self.sql("SELECT datname FROM pg_database", ADMINISTRATION).splitlines())

    def size(self, database: str = LIVE) -> int:
        """Return the bytes that a database takes on the disk."""
        return int(self.sql(f"SELECT pg_database_size('{database}')", ADMINISTRATION))

    def version(self) -> str:
        """Return the server's version, for example 15.14."""
        return self.sql("SHOW server_version", ADMINISTRATION).split()[0]

    def revision(self, database: str = LIVE) -> str:
        """Return the schema's revision as Alembic records it, "" for a database without Airflow's tables."""
        return self.sql(
            "SELECT to_regclass('public.alembic_version') IS NOT NULL AS there \\gset\n"
            "\\if :there\nSELECT version_num FROM alembic_version;\n\\endif",
            database,
        )

    def revision_or_none(self, database: str = LIVE) -> str:
        """Return the schema's revision, "" also for a database that is too damaged to tell."""
        try:
            return self.revision(database)
        except ReleaseError:
            return ""

    def counts(self, database: str = LIVE) -> dict[str, int]:
        """Return the rows of each main table that is there."""
        statement = _count_statement(self._main_tables(database))
        return _parse_counts(self.sql(statement, database, timeout=None))

    def newest_run(self, database: str = LIVE) -> str:
        """Return when the newest DAG run started, in ISO 8601 and UTC; "" when there is none."""
        if "dag_run" not in self._main_tables(database):
            return ""
        form = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
        return self.sql(
            f"SELECT to_char(max(start_date) AT TIME ZONE 'UTC', '{form}') FROM dag_run",
            database,
            timeout=None,
        )

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected; the live one never."""
        self.sql(self._drop(database), ADMINISTRATION, timeout=None)

    def create(self, database: str) -> None:
        """Make an empty database; one of that name is replaced."""
        self.sql(
            f"{self._drop(database)}"
            f"CREATE DATABASE {database} OWNER airflow TEMPLATE template0 ENCODING 'UTF8';",
            ADMINISTRATION,
            timeout=None,
        )

    def close(self, database: str) -> None:
        """Let nobody connect, not even a superuser, and end the sessions that there are."""
        self.sql(
            f"ALTER DATABASE {database} ALLOW_CONNECTIONS false;\n{_disconnect(database)}",
            ADMINISTRATION,
            doing=f"closing {database}",
        )

    def open(self, database: str) -> None:
        """Let everybody connect again who may."""
        self.sql(
            f"ALTER DATABASE {database} ALLOW_CONNECTIONS true;",
            ADMINISTRATION,
            doing=f"opening {database}",
        )

    def copy(self, source: str, target: str) -> None:
        """Copy a database file by file, with its settings and grants. An old target is dropped.

        Nobody may be connected to the source: `close` it, unless nobody knows of it.
        """
        self.sql(
            f"{self._drop(target)}{_disconnect(source)}"
            f"CREATE DATABASE {target} TEMPLATE {source} STRATEGY file_copy;",
            ADMINISTRATION,
            timeout=None,
            doing=f"copying {source}",
        )
        self.adopt(source, target)

    def fill(self, database: str, size: int) -> None:
        """Give a database a table of about that many bytes, written without Postgres' log."""
        rows = size // 2048  # four fill a page of 8 KiB; a longer one would be compressed
        self.sql(
            "CREATE UNLOGGED TABLE sample AS"
            f" SELECT repeat(md5(n::text), 60) AS line FROM generate_series(1, {rows}) n",
            database,
            timeout=None,
            doing=f"filling {database}",
        )

    def adopt(self, source: str, target: str) -> None:
        """Give a database the settings, grants and limit of another; no copy and no dump has them."""
        listed = ", ".join(f"'{name}'" for name in QUOTED_LISTS)
        self.sql(
            f"""
SELECT format('ALTER %s SET %I TO %s',
    CASE WHEN setrole = 0 THEN 'DATABASE {target}'
         ELSE format('ROLE %I IN DATABASE {target}', pg_get_userbyid(setrole)) END,
    name, CASE WHEN lower(name) IN ({listed}) THEN value ELSE quote_literal(value) END)
FROM pg_db_role_setting AS settings
JOIN pg_database AS source ON source.oid = settings.setdatabase AND source.datname = '{source}',
    LATERAL unnest(setconfig) AS setting,
    LATERAL (SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1))
        AS pair(name, value)
\\gexec
SELECT format('ALTER DATABASE {target} CONNECTION LIMIT %s', datconnlimit)
FROM pg_database WHERE datname = '{source}' AND datconnlimit >= 0
\\gexec
SELECT 'REVOKE ALL ON DATABASE {target} FROM PUBLIC' FROM pg_database
WHERE datname = '{source}' AND datacl IS NOT NULL
\\gexec
SELECT format('GRANT %s ON DATABASE {target} TO %s%s', privilege_type,
    CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_database, aclexplode(datacl) WHERE datname = '{source}'
\\gexec
""",
            ADMINISTRATION,
            doing=f"giving {target} the settings of {source}",
        )

    def rename(self, *pairs: tuple[str, str]) -> None:
        """Rename databases, each `(from, to)`, all in one transaction: after a crash all are done or none.

        Afterwards nobody can connect to the one that was left, and everybody to the others.
        """
        sessions = _disconnect(*(name for name, _ in pairs))
        statements = "".join(
            f"ALTER DATABASE {old} RENAME TO {new};\n"
            f"ALTER DATABASE {new} ALLOW_CONNECTIONS {'false' if new == PREVIOUS else 'true'};\n"
            for old, new in pairs
        )
        self.sql(f"{sessions}BEGIN;\n{statements}COMMIT;", ADMINISTRATION)

    def ensure_worker_role(self) -> None:
        """Have the role of workers, to which a file grants something; nobody logs in with it yet."""
        self.sql(
            f"SELECT 'CREATE ROLE {WORKER_ROLE} NOLOGIN'"
            f" WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{WORKER_ROLE}')\n\\gexec",
            ADMINISTRATION,
            doing="making the role of workers",
        )

    def end_leftovers(self) -> None:
        """End what a killed process of this package still has Postgres do, and wait until it has ended."""
        self.sql(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            f" WHERE application_name = '{APPLICATION}' AND pid <> pg_backend_pid()",
            ADMINISTRATION,
            doing="ending what was interrupted",
        )

    def dump(self, file: Path, database: str = LIVE) -> dict[str, int]:
        """Write a dump in Postgres' custom format; return the main tables' rows as of the very same snapshot.

        Raises:
            ReleaseError: the dump failed, for example for want of disk; the file is then removed.
        """
        tables = self._main_tables(database)
        try:
            with self._snapshot(database, tables) as (snapshot, counts), file.open("wb") as output:
                self.host.run(
                    self.command(
                        "env",
                        f"PGAPPNAME={APPLICATION}",
                        "pg_dump",
                        "--username=airflow",
                        f"--dbname={database}",
                        "--format=custom",
                        f"--snapshot={snapshot}",
                    ),
                    stdout=output,
                    timeout=None,
                    doing=f"dumping {database}",
                )
                output.flush()
            return counts
        except (OSError, ReleaseError) as error:
            file.unlink(missing_ok=True)
            if isinstance(error, ReleaseError):
                raise
            raise ReleaseError(f"writing the dump {file} failed: {error.strerror}") from error

    def restore(self, file: Path, database: str) -> None:
        """Make a database from a dump in custom format, or from plain SQL when the name ends in `.sql`.

        A dump's owners and grants are left out: a new host has no role but `airflow`.
        """
        self.create(database)
        if file.suffix == ".sql":
            program = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction"]
        else:
            program = ["pg_restore", "--exit-on-error", "--no-owner", "--no-acl"]
        with file.open("rb") as dump, Path("/dev/null").open("wb") as nothing:
            self.host.run(
                self.command(
                    "env",
                    f"PGAPPNAME={APPLICATION}",
                    *program,
                    "--username=airflow",
                    f"--dbname={database}",
                ),
                stdin=dump,
                stdout=nothing,
                timeout=None,
                doing=f"restoring {file.name}",
            )

    def _drop(self, database: str) -> str:
        if database == LIVE:
            raise ReleaseError("the live database is never dropped")
        return f"DROP DATABASE IF EXISTS {database} WITH (FORCE);\n"

    def _main_tables(self, database: str) -> list[str]:
        present = self.sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database
        ).splitlines()
        return [name for name in MAIN_TABLES if name in present]

    @contextlib.contextmanager
    def _snapshot(self, database: str, tables: list[str]) -> Iterator[tuple[str, dict[str, int]]]:
        """Hold a snapshot open that pg_dump can join; yield its name and the rows that it sees."""
        session = subprocess.Popen(
            self.command("psql", "--username=airflow", f"--dbname={database}", "--no-psqlrc", "-qtA"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with session, session.stdin as questions, session.stdout as answers:  # type: ignore[union-attr]
            questions.write(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_export_snapshot();\n"
            )
            questions.write(f"{_count_statement(tables)};\n\\echo end\n")
            questions.flush()
            lines = list(iter(lambda: answers.readline().strip() or "end", "end"))
            if not lines or not re.fullmatch(r"[0-9A-F-]+", lines[0]):
                raise ReleaseError("Postgres gave no snapshot", "\n".join(lines))
            if not all(re.fullmatch(r"\w+\|\d+", line) for line in lines[1:]):
                # In Postgres' words: a table of a damaged database that cannot be read.
                raise ReleaseError(
                    f"dumping {database} failed: its rows cannot be counted", "\n".join(lines[1:])
                )
            yield lines[0], _parse_counts("\n".join(lines[1:]))


def _disconnect(*databases: str) -> str:
    """Return the statement that ends all sessions of these databases, as must be before a copy or rename."""
    listed = ", ".join(f"'{name}'" for name in databases)
    return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({listed});\n"


def _count_statement(tables: list[str]) -> str:
    return (
        " UNION ALL ".join(f"SELECT '{name}', count(*) FROM public.{name}" for name in tables)
        or "SELECT 1 LIMIT 0"
    )


def _parse_counts(rows: str) -> dict[str, int]:
    pairs = (row.split("|") for row in rows.splitlines() if row)
    return {name: int(count) for name, count in pairs}
