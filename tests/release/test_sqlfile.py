"""The plain SQL of the manual procedure: what is in it, and what must not be restored."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from airflow_release.backup import sqlfile
from airflow_release.core.database import LIVE, SCRATCH, Database
from airflow_release.core.errors import ReleaseError

from tests.release.conftest import REVISION


def pg_dump(database: Database, *options: str, program: str = "pg_dump") -> str:
    """Return what the team's `docker compose exec postgres pg_dump` prints."""
    return database.host.run(database.command(program, "--username=airflow", *options))


@pytest.fixture
def file(database: Database, tmp_path: Path) -> Path:
    """A plain dump of the live database."""
    path = tmp_path / "airflow.sql"
    path.write_text(pg_dump(database, LIVE))
    return path


def test_reads_revision_and_rows(file: Path, database: Database) -> None:
    found = sqlfile.examine(file)
    assert (found.schema_revision, found.counts) == (REVISION, database.counts())
    assert found.size == file.stat().st_size


def test_packed_file_is_the_same(file: Path, tmp_path: Path, database: Database) -> None:
    packed = tmp_path / "airflow.sql.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert sqlfile.examine(packed) == sqlfile.examine(file)
    (tmp_path / "work").mkdir()
    plain = sqlfile.unpack(packed, tmp_path / "work")
    assert plain.read_bytes() == file.read_bytes()
    assert plain.stat().st_mode & 0o777 == 0o600
    database.restore(plain, SCRATCH)
    assert database.counts(SCRATCH) == database.counts()
    assert sqlfile.unpack(file, tmp_path) == file


@pytest.mark.parametrize("part", [0, 0.3, 0.6, 0.95])
def test_file_that_is_cut_off_is_refused(file: Path, tmp_path: Path, part: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ReleaseError, match=r"is cut off|is no plain SQL"):
        sqlfile.examine(file)
    packed = tmp_path / "airflow.sql.gz"
    packed.write_bytes(gzip.compress(content)[: int(len(gzip.compress(content)) * part)])
    with pytest.raises(ReleaseError, match=r"cannot be read|is no plain SQL"):
        sqlfile.examine(packed)


def test_file_that_would_write_into_the_live_database_is_refused(database: Database, tmp_path: Path) -> None:
    """`\\connect airflow` in it would leave the scratch database for the live one."""
    for program, options in (("pg_dump", ("--create", LIVE)), ("pg_dumpall", ())):
        path = tmp_path / f"{program}.sql"
        path.write_text(pg_dump(database, *options, program=program))
        with pytest.raises(ReleaseError, match=r"psql command .*connect.* make the file with plain `pg_dump"):
            sqlfile.examine(path)


@pytest.mark.parametrize(
    "line", ["\\! touch /tmp/x", "\\i /etc/passwd", "\\copy dag from program 'id'", "\\c"]
)
def test_other_commands_to_psql_are_refused(file: Path, line: str) -> None:
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ReleaseError, match="psql command"):
        sqlfile.examine(file)


def test_dump_in_another_format_is_refused(database: Database, tmp_path: Path) -> None:
    database.dump(tmp_path / "airflow.sql")
    with pytest.raises(ReleaseError, match="is no plain SQL of pg_dump"):
        sqlfile.examine(tmp_path / "airflow.sql")


def test_dump_of_something_else_is_refused(database: Database, tmp_path: Path) -> None:
    database.create(SCRATCH)
    (tmp_path / "other.sql").write_text(pg_dump(database, SCRATCH))
    with pytest.raises(ReleaseError, match="has no Airflow database in it"):
        sqlfile.examine(tmp_path / "other.sql")


def test_absent_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"cannot be read: .*No such file"):
        sqlfile.examine(tmp_path / "absent.sql")
