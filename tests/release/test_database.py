"""The database by the server's own programs: copies, renames, dumps of one moment, two kinds of restore."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_release.core.database import FAILED, LIVE, NEXT, PREVIOUS, SCRATCH, Database
from airflow_release.core.errors import ReleaseError

from tests.release.conftest import REVISION, file_size_limit


@contextlib.contextmanager
def writers(database: Database, count: int = 3) -> Iterator[None]:
    """Commit rows from several sessions as fast as they can, a run and its log line in each transaction."""
    stop = threading.Event()
    failures: list[Exception] = []
    run = "INSERT INTO dag_run (dag_id) VALUES ('two')"
    line = "INSERT INTO log (extra) VALUES ('x')"

    def write() -> None:
        while not stop.is_set():
            try:
                database.sql(f"BEGIN; {run}; {line}; COMMIT")
            except ReleaseError as error:
                failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_describes_what_is_there(database: Database) -> None:
    assert database.counts() == {"dag": 2, "dag_run": 500, "log": 2000, "variable": 1}
    assert database.revision() == REVISION
    assert database.newest_run() == "2026-01-21T20:00:00Z"
    assert database.size() > 2**20
    assert int(database.version().split(".")[0]) >= 15
    assert database.names() >= {LIVE, "postgres"}


def test_an_empty_database_has_nothing(database: Database) -> None:
    database.create(SCRATCH)
    assert (database.counts(SCRATCH), database.revision(SCRATCH), database.newest_run(SCRATCH)) == (
        {},
        "",
        "",
    )


def test_counts_of_a_dump_are_those_of_its_snapshot(database: Database, tmp_path: Path) -> None:
    before = database.counts()
    with writers(database):
        counted = [database.dump(tmp_path / f"{number}.dump") for number in range(3)]
    after = database.counts()
    for number, counts in enumerate(counted):
        database.restore(tmp_path / f"{number}.dump", SCRATCH)
        assert database.counts(SCRATCH) == counts
        # A transaction is in it as a whole or not at all.
        assert counts["dag_run"] - before["dag_run"] == counts["log"] - before["log"]
    assert before["dag_run"] < counted[-1]["dag_run"] <= after["dag_run"]


def test_what_was_committed_before_a_dump_is_in_it(database: Database, tmp_path: Path) -> None:
    with writers(database):
        for number in range(3):
            database.sql(f"INSERT INTO variable (key, val) VALUES ('mark {number}', 'x')")
            database.dump(tmp_path / "a.dump")
            database.restore(tmp_path / "a.dump", SCRATCH)
            marks = database.sql("SELECT count(*) FROM variable WHERE key LIKE 'mark %'", SCRATCH)
            assert marks == str(number + 1)


def test_values_survive_a_dump(database: Database, tmp_path: Path) -> None:
    database.dump(tmp_path / "a.dump")
    database.restore(tmp_path / "a.dump", SCRATCH)
    digest = "SELECT md5(string_agg(v::text, ',' ORDER BY id)) FROM variable v"
    assert database.sql(digest, SCRATCH) == database.sql(digest)


def test_a_dump_that_fails_leaves_no_file(database: Database, tmp_path: Path) -> None:
    with file_size_limit(16 * 2**10), pytest.raises(ReleaseError, match="dumping airflow failed"):
        database.dump(tmp_path / "a.dump")
    assert list(tmp_path.glob("*.dump")) == []


def test_restores_plain_sql(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "manual.sql"
    file.write_text(database.host.run(database.command("pg_dump", "--username=airflow", "airflow")))
    database.restore(file, SCRATCH)
    assert database.counts(SCRATCH) == database.counts()
    assert database.revision(SCRATCH) == REVISION


def test_broken_sql_is_an_error_and_restores_nothing(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "manual.sql"
    file.write_text("CREATE TABLE dag (id int);\nINSERT INTO absent VALUES (1);\n")
    with pytest.raises(ReleaseError) as caught:
        database.restore(file, SCRATCH)
    assert 'relation "absent" does not exist' in caught.value.log
    assert database.counts(SCRATCH) == {}


def test_a_broken_dump_is_an_error(database: Database, tmp_path: Path) -> None:
    database.dump(tmp_path / "a.dump")
    with (tmp_path / "a.dump").open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
    with pytest.raises(ReleaseError, match=r"restoring a\.dump failed"):
        database.restore(tmp_path / "a.dump", SCRATCH)


def test_grants_to_a_role_that_a_new_host_lacks_do_not_matter(database: Database, tmp_path: Path) -> None:
    database.sql("CREATE ROLE reader; GRANT SELECT ON dag TO reader; ALTER TABLE log OWNER TO reader")
    database.dump(tmp_path / "a.dump")
    database.sql("ALTER TABLE log OWNER TO airflow; REVOKE ALL ON dag FROM reader; DROP ROLE reader")
    database.restore(tmp_path / "a.dump", SCRATCH)
    assert database.counts(SCRATCH) == database.counts()


def test_copies_a_database_that_is_in_use(database: Database) -> None:
    session = subprocess.Popen(
        database.command("psql", "--username=airflow", "--dbname=airflow", "-qtA"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("SELECT 'here';\n")
        session.stdin.flush()
        assert session.stdout.readline() == "here\n"
        database.copy(LIVE, NEXT)
    assert database.counts(NEXT) == database.counts()
    assert database.revision(NEXT) == REVISION


def test_renames_are_all_done_or_none(database: Database) -> None:
    database.copy(LIVE, NEXT)
    database.sql("UPDATE alembic_version SET version_num = 'new'", NEXT)
    database.rename((LIVE, PREVIOUS), (NEXT, LIVE))
    database.open(PREVIOUS)
    assert (database.revision(), database.revision(PREVIOUS)) == ("new", REVISION)
    with pytest.raises(ReleaseError):
        database.rename((LIVE, FAILED), ("absent", LIVE))
    assert database.names() >= {LIVE, PREVIOUS}
    assert FAILED not in database.names()
    database.rename((LIVE, FAILED), (PREVIOUS, LIVE))
    assert (database.revision(), database.revision(FAILED)) == (REVISION, "new")
    database.drop(FAILED)
    assert FAILED not in database.names()


def test_filled_database_has_the_size_that_was_asked_for(database: Database) -> None:
    """Nothing of it is compressed, so that a copy has as much to write."""
    database.create(SCRATCH)
    empty, size = database.size(SCRATCH), 8 * 2**20
    database.fill(SCRATCH, size)
    assert size <= database.size(SCRATCH) - empty < 1.1 * size


def test_the_live_database_is_never_dropped(database: Database) -> None:
    with pytest.raises(ReleaseError, match="never dropped"):
        database.drop(LIVE)
    assert database.counts()["dag_run"] == 500
