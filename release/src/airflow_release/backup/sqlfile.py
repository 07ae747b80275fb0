"""The plain SQL file that `pg_dump` writes without options: what is in it, and whether it may be restored."""

from __future__ import annotations

import gzip
import re
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from airflow_release.core.database import MAIN_TABLES
from airflow_release.core.errors import ReleaseError

BEGINNING = b"-- PostgreSQL database dump"
END = b"-- PostgreSQL database dump complete"

COPY = re.compile(rb'COPY (?:public\.)?"?(\w+)"? \(.*\) FROM stdin;')
COMMAND = re.compile(rb"\\(?!(?:un)?restrict |\.)")
"""A command to psql itself. Those that may stand in a dump of one database protect it from such commands."""


@dataclass
class SqlDump:
    """What a reading of the whole file found. `size` is its length in bytes, unpacked."""

    size: int = 0
    schema_revision: str = ""
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
    found = SqlDump()
    table: str | None = None
    begun = ended = False
    for raw in file:
        found.size += len(raw)
        line = raw.rstrip(b"\r\n")
        if table is not None:
            if line == b"\\.":
                table = None
            elif table == "alembic_version":
                found.schema_revision = line.decode()
            elif table in found.counts:
                found.counts[table] += 1
            continue
        if copy := COPY.fullmatch(line):
            table = copy[1].decode()
            if table in MAIN_TABLES:
                found.counts[table] = 0
        elif COMMAND.match(line):
            raise ReleaseError(
                f"{path} has the psql command {line.decode(errors='replace')[:60]!r} in it, as "
                "`pg_dump --create` and pg_dumpall write them; make the file with plain `pg_dump airflow`"
            )
        begun = begun or line == BEGINNING
        ended = ended or line == END
    if not begun:
        raise ReleaseError(f"{path} is no plain SQL of pg_dump: `{BEGINNING.decode()}` does not stand in it")
    if table is not None or not ended:
        raise ReleaseError(f"{path} is cut off: the line `{END.decode()}` is missing at its end")
    if not found.schema_revision:
        raise ReleaseError(
            f"{path} has no Airflow database in it: the table alembic_version is missing or empty"
        )
    return found
