"""The plain SQL file that `pg_dump` writes without options: what is in it, and whether it may be restored.

A restore runs it as Postgres' superuser. So only statements are accepted that `pg_dump` writes for a database
of tables, and no function, trigger or rule, which would run while the rows come in.
"""

from __future__ import annotations

import gzip
import re
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from airflow_release.backup.sqllexer import Lexer, NotAccepted, Statement
from airflow_release.core.database import MAIN_TABLES, WORKER_ROLE
from airflow_release.core.errors import ReleaseError

BEGINNING = b"-- PostgreSQL database dump"
END = b"-- PostgreSQL database dump complete"

_OBJECTS = ["DOMAIN", "EXTENSION", "INDEX", "SCHEMA", "SEQUENCE", "STATISTICS", "TABLE", "TYPE", "VIEW"]
ALLOWED = tuple(
    f"{verb} {kind}".encode()
    for verb, kinds in {
        "ALTER": [*_OBJECTS, "DEFAULT PRIVILEGES"],
        "COMMENT": [f"ON {kind}" for kind in [*_OBJECTS, "COLUMN", "CONSTRAINT"]],
        "CREATE": [*_OBJECTS, "UNIQUE INDEX", "UNLOGGED TABLE", "OR REPLACE VIEW"],
        "DROP": _OBJECTS,
        "INSERT": ["INTO"],
        "RESET": ["SESSION AUTHORIZATION"],
        "SET": ["SESSION AUTHORIZATION"],
    }.items()
    for kind in kinds
)
"""The first words of what `pg_dump` writes; COPY, SELECT, SET, GRANT and REVOKE have rules of their own."""
_EXACT = re.compile(
    rb"""
    SELECT\ pg_catalog\.set_config\('search_path',\ '[^'\\]*',\ false\)
  | SELECT\ pg_catalog\.setval\('(?:[^']|'')*',\ -?[0-9]+,\ (?:true|false)\)
  | SET\ standard_conforming_strings\ =\ on
  | SET\ client_encoding\ =\ '(?:UTF8|SQL_ASCII|LATIN[0-9]{1,2})'
  | SET\ (?:statement_timeout|lock_timeout|idle_in_transaction_session_timeout|transaction_timeout)\ =\ [0-9]+
  | SET\ (?:check_function_bodies|xmloption|client_min_messages|row_security|default_with_oids)\ =\ [a-z]+
  | SET\ (?:default_tablespace|default_table_access_method)\ =\ (?:''|[a-z_]+|"[a-z_]+")
  | (?:GRANT|REVOKE)\ [A-Z ,()a-z0-9_"]*?\ ON\ (?:SCHEMA|TABLE|SEQUENCE|TYPE)\ .*
    """,
    re.VERBOSE | re.DOTALL,
)
"""Whole statements. In other encodings than these a backslash may be half of a letter."""
_TO_WORKERS = re.compile(rf"\sTO {WORKER_ROLE}\b".encode())
_IN_VALUES = {b"VALUES", b"NULL", b"TRUE", b"FALSE", b"DEFAULT", b"ON", b"CONFLICT", b"DO", b"NOTHING"}
"""The words that may stand in the rows of an INSERT: `pg_dump` writes values, and calls nothing."""
_REACHES_OUT = re.compile(
    rb"(?:SET_CONFIG|(?:QUERY|CURSOR|TABLE|SCHEMA|DATABASE)_TO_XML.*|DBLINK.*|LO_.*"
    rb"|PG_(?:READ|WRITE|LS|FILE|STAT_FILE"
    rb"|RELOAD|ROTATE|TERMINATE|CANCEL|EXECUTE"
    rb"|LOGICAL|REPLICATION|CREATE).*)"
)
"""Functions that a table could call while rows come in, and that reach beyond the database."""


@dataclass
class SqlDump:
    """What a reading of the whole file found. `size` is its length in bytes, unpacked."""

    size: int = 0
    schema_revision: str = ""
    grants_to_workers: bool = False
    """It fails where the role of workers is not there; that of another platform may have had workers."""
    counts: dict[str, int] = field(default_factory=dict)


def examine(path: Path) -> SqlDump:
    """Read the file to its end.

    Raises:
        ReleaseError: it is cut off, damaged, no dump of one Airflow database, or would reach beyond the
            database that it is restored into.
    """
    try:
        with _open(path) as file:
            return _examine(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise ReleaseError(f"the SQL file {path} cannot be read: {error}") from error


def unpack(path: Path, into: Path) -> Path:
    """Return the file that `Database.restore` takes: this one, or what gzip made it of, in that directory.

    Raises:
        ReleaseError: it cannot be read, or the disk is full.
    """
    if path.suffix != ".gz":
        return path
    target = into / "database.sql"
    try:
        with _open(path) as packed, target.open("wb") as plain:
            target.chmod(0o600)
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (OSError, EOFError, zlib.error) as error:
        target.unlink(missing_ok=True)
        raise ReleaseError(f"the SQL file {path} cannot be unpacked: {error}") from error
    return target


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _examine(path: Path, file: IO[bytes]) -> SqlDump:
    # A file of another kind, such as pg_dump's own format, is not to be told as SQL that has something in it.
    start = file.read(4096)
    if not re.search(rb"^-- PostgreSQL database (?:cluster )?dump\r?$", start, re.MULTILINE):
        raise ReleaseError(f"{path} is no plain SQL of pg_dump: `{BEGINNING.decode()}` does not stand in it")
    file.seek(0)
    found, lexer = SqlDump(), Lexer(file)
    try:
        for statement in lexer:
            _judge(statement)
            _note(found, statement)
    except NotAccepted as refused:
        if str(refused).endswith("it is cut off"):
            raise ReleaseError(f"{path} has {refused}") from None
        raise ReleaseError(
            f"{path} has {refused} in it, which plain `pg_dump` of an Airflow database does not write"
            " (`pg_dump --create` and pg_dumpall do); make the file with plain `pg_dump airflow`"
        ) from None
    found.size = lexer.size
    if BEGINNING not in lexer.first_comments or END not in lexer.first_comments:
        raise ReleaseError(f"{path} is cut off: the line `{END.decode()}` is missing at its end")
    if not found.schema_revision:
        raise ReleaseError(
            f"{path} has no Airflow database in it: the table alembic_version is missing or empty"
        )
    return found


def _judge(statement: Statement) -> None:
    """Refuse a statement that `pg_dump` does not write for a database of tables."""
    words = b" ".join(statement.words)
    known = (
        # The lexer has read all of a COPY.
        statement.is_copy
        or _EXACT.fullmatch(statement.text)
        or any(words == one or words.startswith(one + b" ") for one in ALLOWED)
    )
    if not known:
        shown = b" ".join(statement.words[:4]).decode(errors="replace")
        raise NotAccepted(f"the statement {shown or '?'}")
    if statement.words[0] == b"INSERT" and (not statement.values or statement.values - _IN_VALUES):
        raise NotAccepted("an INSERT of something else than values")
    if statement.words[0] not in (b"SELECT", b"COPY"):
        for word in statement.vocabulary:
            if _REACHES_OUT.fullmatch(word):
                raise NotAccepted(f"the function {word.decode(errors='replace').lower()}")


def _note(found: SqlDump, statement: Statement) -> None:
    """Count the rows of a statement, and read the schema's revision out of it."""
    if statement.words[0] == b"GRANT" and _TO_WORKERS.search(statement.text):
        found.grants_to_workers = True
        return
    if statement.is_copy:
        table, revision = statement.table, statement.first_line
    elif statement.words[0] == b"INSERT":
        into = re.match(rb'INSERT INTO (?:"?public"?\.)?"?(\w+)"? ', statement.text)
        table, revision = into[1].decode() if into else "", statement.first_string
    else:
        return
    if table == "alembic_version" and statement.rows:
        found.schema_revision = revision.rstrip(b"\r").decode(errors="replace")
    elif table in MAIN_TABLES:
        found.counts[table] = found.counts.get(table, 0) + statement.rows
