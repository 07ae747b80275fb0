"""The plain SQL of the manual procedure: what is in it, and what must not be restored."""

from __future__ import annotations

import gzip
import io
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_release.backup import sqlfile, sqllexer
from airflow_release.backup.sqllexer import Lexer, NotAccepted
from airflow_release.core.database import LIVE, SCRATCH, Database
from airflow_release.core.errors import ReleaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.release.conftest import REVISION, SOURCE


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


def test_dump_of_more_than_one_database_is_refused(database: Database, tmp_path: Path) -> None:
    """`\\connect airflow` in it would leave the scratch database for the live one."""
    for program, options in (("pg_dump", ("--create", LIVE)), ("pg_dumpall", ())):
        path = tmp_path / f"{program}.sql"
        path.write_text(pg_dump(database, *options, program=program))
        with pytest.raises(
            ReleaseError, match=r"has the statement (CREATE|SET) .* make the file with plain `pg_dump"
        ):
            sqlfile.examine(path)


EVERYTHING = r"""
CREATE SCHEMA "Odd ""schema";
CREATE TYPE public.mood AS ENUM ('good', 'it''s \');
CREATE TABLE "Odd ""schema"."t\! x;" (
  "a;b" public.mood, c text DEFAULT E'\\a\nb''', d int GENERATED ALWAYS AS IDENTITY
);
CREATE TABLE public.nothing ();
INSERT INTO public.nothing DEFAULT VALUES;
CREATE VIEW public.last AS
  SELECT dag_id, a[1:2] FROM (SELECT dag_id, ARRAY[1, 2] AS a FROM dag) x WHERE dag_id <> '\!';
CREATE INDEX odd ON dag_run (lower(dag_id)) WHERE dag_id ~ '^\w';
CREATE EXTENSION citext;
COMMENT ON TABLE dag IS E'line\n\\! touch x\n\\.\n''';
COMMENT ON COLUMN dag.dag_id IS '\connect airflow';
ALTER TABLE dag_run ADD CONSTRAINT positive CHECK (id > 0 AND dag_id <> E'\\''');
GRANT SELECT ON dag TO PUBLIC;
GRANT SELECT (dag_id) ON dag_run TO PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
INSERT INTO log (extra) VALUES
  (E'\\'), (E'\\'''), (E'\\.'), (E'\\! touch x\n\\.\n'), (E'\r\\q'), (NULL), ('$a$ :x');
"""


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--inserts",
        "--column-inserts --on-conflict-do-nothing",
        "--rows-per-insert=7",
        "--clean --if-exists",
        "--no-owner --no-acl",
        "--quote-all-identifiers --inserts",
        "--disable-triggers --verbose",
    ],
)
def test_what_pg_dump_writes_is_accepted_and_restores(
    database: Database, tmp_path: Path, options: str
) -> None:
    database.sql(EVERYTHING)
    path = tmp_path / "airflow.sql"
    path.write_text(pg_dump(database, *options.split(), LIVE))
    found = sqlfile.examine(path)
    assert (found.schema_revision, found.counts) == (REVISION, database.counts())
    database.restore(path, SCRATCH)
    assert database.counts(SCRATCH) == database.counts()


@given(
    values=st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=40)
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_accepted(database: Database, tmp_path: Path, values: list[str]) -> None:
    rows = ", ".join("('" + value.replace("'", "''") + "')" for value in values)
    database.sql(f"TRUNCATE log; INSERT INTO log (extra) VALUES {rows}")
    for option in ("--encoding=UTF8", "--rows-per-insert=3"):
        (tmp_path / "airflow.sql").write_bytes(pg_dump(database, option, LIVE).encode())
        assert sqlfile.examine(tmp_path / "airflow.sql").counts["log"] == len(values)


@pytest.mark.parametrize("place", ["within", "after"])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1; \\! touch MARK",
        "SELECT 1; \\connect airflow\nCREATE TABLE written_into_live (i int);",
        "SELECT 1 \\g | touch MARK",
        "-- a comment\r\\! touch MARK",
        "/* /* */ ' */ \\! touch MARK",
        "SELECT E'\\'' \\! touch MARK",
        "SELECT E'a'\n'\\'' \\! touch MARK\n--'",
        "COPY dag FROM stdin; \\! touch MARK\n\\.",
        "COPY dag FROM PROGRAM 'touch MARK';",
        "COPY dag TO PROGRAM 'touch MARK';",
        "SET standard_conforming_strings = off; INSERT INTO log VALUES ('\\' \\! touch MARK\n--');",
        "DO $$ BEGIN EXECUTE 'COPY dag TO PROGRAM ''touch MARK'''; END $$;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';",
        "CREATE TRIGGER t BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION f();",
        "CREATE TABLE x (a text DEFAULT set_config('standard_conforming_strings', 'off', false));",
        "CREATE TABLE x (a text DEFAULT \"set_config\"('standard_conforming_strings', 'off', false));",
        "SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);",
        "INSERT INTO log VALUES (1, pg_read_file('/etc/passwd'));",
        "INSERT INTO log SELECT 1, 'x';",
        "ALTER SYSTEM SET archive_command = 'touch MARK';",
        "CREATE ROLE x SUPERUSER;",
        "COMMENT ON DATABASE airflow IS 'x';",
        "SET client_encoding = 'SJIS';",
        "GRANT pg_execute_server_program TO PUBLIC;",
        "SELECT :'x';",
        "COMMIT;",
        "\\restrict a\\! touch MARK",
        "\\i /etc/passwd",
        "\\copy dag from program 'id'",
        "INSERT INTO log VALUES (1, 'x'); \\;",
        "INSERT INTO log VALUES (1, 'x\0');",
        "INSERT INTO log VALUES (1, U&'x');",
    ],
)
def test_what_reaches_beyond_the_database_is_refused(tmp_path: Path, text: str, place: str) -> None:
    end = f"{sqlfile.END.decode()}\n"
    parts = [MINIMAL, text + "\n", end] if place == "within" else [MINIMAL, end, text + "\n"]
    (tmp_path / "airflow.sql").write_bytes("".join(parts).encode())
    with pytest.raises(ReleaseError, match=r"has .* in it, which plain `pg_dump` .* make the file with"):
        sqlfile.examine(tmp_path / "airflow.sql")
    (tmp_path / "airflow.sql").write_text(MINIMAL + end)
    assert sqlfile.examine(tmp_path / "airflow.sql").schema_revision == "x"


MINIMAL = f"{sqlfile.BEGINNING.decode()}\nCOPY public.alembic_version (version_num) FROM stdin;\nx\n\\.\n"


@pytest.mark.parametrize(
    "text", ["SELECT 1; \\! touch mark\n", "SELECT 1; \\connect airflow\nCREATE TABLE x ();\n"]
)
def test_psql_would_obey_the_specimens(database: Database, tmp_path: Path, text: str) -> None:
    """So the refusal is not for nothing."""
    database.create(SCRATCH)
    command = database.command("psql", "--username=airflow", f"--dbname={SCRATCH}")
    subprocess.run(command, input=text.encode(), cwd=tmp_path, capture_output=True, timeout=60)
    assert (tmp_path / "mark").exists() or database.sql("SELECT to_regclass('x')") == "x"


FRAGMENTS = [
    *(
        "'",
        "''",
        '"',
        "E'",
        "e'",
        "B'",
        "U&'",
        "\\'",
        "\\\\",
        "\\",
        ";",
        "(",
        ")",
        "--",
        "/*",
        "*/",
        "/",
        "*",
    ),
    *(
        "\n",
        "\r",
        "\r\n",
        " ",
        "\t",
        "\f",
        "a",
        "E",
        "1",
        "1E",
        ".",
        "$",
        "$$",
        "$a$",
        ":",
        "::",
        "&",
        "+",
        "-",
    ),
    *("SELECT ", "help\n", "quit\n", "\ufeff", "é"),
]
COMMANDS = ["\\! touch mark\n", "\\! touch mark '\n", "\\! touch mark */\n", '\\! touch mark "\n']


@given(st.lists(st.sampled_from([*FRAGMENTS, *COMMANDS * 4]), min_size=2, max_size=20))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_psql_finds_no_command_in_what_is_accepted(
    database: Database, tmp_path: Path, fragments: list[str]
) -> None:
    # Most of it is no SQL. psql goes on after an error here, and reads all of it.
    content = "".join([*fragments, "\n"]).encode()
    try:
        list(Lexer(io.BytesIO(content)))
    except NotAccepted:
        return
    if b"touch" in content:
        command = database.command("psql", "--username=airflow", "--dbname=postgres", "--no-psqlrc")
        subprocess.run(command, input=content, capture_output=True, cwd=tmp_path, timeout=60)
        assert not (tmp_path / "mark").exists(), content


PIECES = [
    *(
        "INSERT INTO t VALUES ('",
        "''",
        "\\",
        "a' , E'\\'",
        "');",
        "COPY t FROM stdin;\n",
        "x\n",
        "\\.\n",
        "/*",
    ),
    *("*/", "--\n", '"x"', "word", " ", "\n", "-- PostgreSQL database dump\n"),
]


class Small(io.BytesIO):
    """A file that gives three bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(3)


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_chunks_change_nothing(pieces: list[str]) -> None:
    """Every token may lie across the border of what is read at once."""
    content = "".join(pieces).encode()

    def outcome(file: io.BytesIO) -> object:
        try:
            return list(Lexer(file))
        except NotAccepted as refused:
            return str(refused)

    with pytest.MonkeyPatch.context() as patch:
        whole = outcome(io.BytesIO(content))
        patch.setattr(sqllexer, "LOOK_AHEAD", 300)
        assert outcome(Small(content)) == whole


@pytest.mark.parametrize("kind", ["COPY", "INSERT", "comment"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """A file with one line of 300 MB is read within 150 MB."""
    before, after = {
        "COPY": ("COPY public.log (extra) FROM stdin;\n", "\n\\.\n"),
        "INSERT": ("INSERT INTO public.log VALUES ('", "');\n"),
        "comment": ("--", "\n"),
    }[kind]
    with (tmp_path / "a.sql").open("w") as file:
        file.write(MINIMAL + before)
        for _ in range(300):
            file.write("x" * 1_000_000)
        file.write(after + sqlfile.END.decode() + "\n")
    program = (
        "import pathlib, sys; from airflow_release.backup import sqlfile\n"
        "print(sqlfile.examine(pathlib.Path(sys.argv[1])).schema_revision)\n"
    )
    limit = 150_000_000
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.sql")],
        env={"PYTHONPATH": str(SOURCE)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    (tmp_path / "a.sql").unlink()
    assert done.stdout == "x\n", done.stderr


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
