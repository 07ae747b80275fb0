"""The database that a release will have, from each of its sources, on a real Postgres."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_release.backup import backups
from airflow_release.core.database import ADMINISTRATION, LIVE, NEXT, PREVIOUS, WORKER_ROLE, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings
from airflow_release.switch import next_database

AT_WORK = """
CREATE TABLE job (id serial PRIMARY KEY, state varchar(20));
INSERT INTO job (state) VALUES ('running'), ('success');
CREATE TABLE task_instance (task_id varchar(250), state varchar(20), external_executor_id varchar(250));
INSERT INTO task_instance VALUES ('waits', 'queued', 'a-message'), ('works', 'running', 'another');
"""
TASKS = "SELECT task_id, state, external_executor_id FROM task_instance ORDER BY task_id"
JOBS = "SELECT state FROM job ORDER BY id"


@pytest.fixture
def at_work(host: Host, database: Database) -> Database:
    """A live database with a task at work and one that waits for a worker."""
    database.sql(AT_WORK)
    database.drop(NEXT)
    return database


def sources(host: Host, tmp_path: Path) -> dict[str, str]:
    """Return each kind of source, made from the live database."""
    settings = Settings(fernet_key={"vault": "v", "item": "Airflow keys", "field": "production.fernet key"})
    dump = tmp_path / "airflow.sql"
    dump.write_text(host.run(Database(host).command("pg_dump", "--username=airflow", LIVE)))
    bundle = backups.take(host, settings=settings, reason="a test")
    return {"copy": "copy", "bundle": f"bundle:{bundle}", "sql": f"sql:{dump}"}


@pytest.mark.parametrize("kind", ["copy", "bundle", "sql"])
def test_what_waited_for_a_worker_is_queued_again(
    host: Host, at_work: Database, tmp_path: Path, kind: str
) -> None:
    source = sources(host, tmp_path)[kind]
    next_database.make(at_work, source)
    if kind == "copy":
        at_work.open(LIVE)
    assert at_work.sql(TASKS, NEXT).splitlines() == ["waits|scheduled|", "works|running|another"]
    # The processes of a copy may still be at work; those of a backup are gone.
    assert at_work.sql(JOBS, NEXT).split() == ["running" if kind == "copy" else "failed", "success"]
    assert at_work.sql(TASKS, LIVE).splitlines() == ["waits|queued|a-message", "works|running|another"]


def test_other_source_is_refused(host: Host, at_work: Database) -> None:
    with pytest.raises(ReleaseError, match="'tape:7' is no source"):
        next_database.make(at_work, "tape:7")
    assert NEXT not in at_work.names()


@pytest.fixture
def worker(at_work: Database) -> Iterator[Database]:
    """A live database that workers on other hosts use, too."""
    at_work.sql(f"CREATE ROLE {WORKER_ROLE} LOGIN; GRANT SELECT ON job, task_instance TO {WORKER_ROLE}")
    try:
        yield at_work
    finally:
        at_work.drop(NEXT)
        at_work.drop(PREVIOUS)
        if LIVE in at_work.names():
            at_work.open(LIVE)
            at_work.sql(f"DROP OWNED BY {WORKER_ROLE}; DROP ROLE {WORKER_ROLE}")
        else:
            at_work.sql(f"DROP ROLE {WORKER_ROLE}", ADMINISTRATION)


@pytest.mark.parametrize("kind", ["bundle", "sql"])
def test_backup_of_a_platform_with_workers_is_restored_where_their_role_is_not_there(
    host: Host, worker: Database, tmp_path: Path, kind: str
) -> None:
    """A new host has no role but Postgres' own, and an SQL file grants to all that it knows."""
    source = sources(host, tmp_path)[kind]
    worker.sql(f"DROP OWNED BY {WORKER_ROLE}; DROP ROLE {WORKER_ROLE}")
    next_database.make(worker, source)
    assert worker.counts(NEXT) == worker.counts()
    login = worker.sql(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{WORKER_ROLE}'", ADMINISTRATION)
    assert login == ("f" if kind == "sql" else "")
    # What the fixture removes.
    worker.ensure_worker_role()


@pytest.mark.parametrize("switch", ["close", "rename"])
def test_workers_are_sent_out_and_kept_out(server: Path, docker: Path, worker: Database, switch: str) -> None:
    """Their sessions end as all others do: what a worker that was unplugged writes later goes nowhere."""
    program = ["psql", f"--username={WORKER_ROLE}", f"--dbname={LIVE}", "--no-psqlrc", "--quiet", "-tA"]
    environment = {**os.environ, "PGHOST": str(server)}
    with subprocess.Popen(
        program,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as session:
        assert session.stdin
        assert session.stdout
        session.stdin.write("SELECT count(*) FROM job;\n")
        session.stdin.flush()
        assert session.stdout.readline() == "2\n"
        if switch == "close":
            worker.close(LIVE)
        else:
            worker.rename((LIVE, PREVIOUS))
        said, _ = session.communicate("SELECT count(*) FROM job;\n", timeout=60)
    assert "2" not in said.splitlines()
    left = LIVE if switch == "close" else PREVIOUS
    refused = subprocess.run(
        [*program, f"--dbname={left}", "--command=SELECT 1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is not currently accepting connections" in refused.stderr


def test_password_of_workers_is_set_with_that_of_postgres(server: Path, host: Host, worker: Database) -> None:
    """On the way there and on the way back, with nothing in the server's log, however much that has."""
    files = host.next
    (files / "env").mkdir(parents=True)
    (files / "env/postgres.env").write_text("POSTGRES_PASSWORD='canary'\n")
    verifier = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{WORKER_ROLE}'"
    worker.sql("ALTER SYSTEM SET log_statement = 'all'", ADMINISTRATION)
    worker.sql("SELECT pg_reload_conf()", ADMINISTRATION)
    try:
        next_database.set_password(worker, files)
        assert worker.sql(verifier, ADMINISTRATION) == ""
        (files / "env/init.env").write_text("WORKER_DATABASE_PASSWORD='can''ary'\n")
        next_database.set_password(worker, files)
        assert worker.sql(verifier, ADMINISTRATION).startswith("SCRAM-SHA-256$")
    finally:
        worker.sql("ALTER SYSTEM RESET log_statement", ADMINISTRATION)
        worker.sql("SELECT pg_reload_conf()", ADMINISTRATION)
    written = (server / "log").read_text()
    assert "SELECT rolpassword" in written
    assert "canary" not in written
    assert "can''" not in written


def test_password_of_workers_waits_for_their_role(host: Host, at_work: Database) -> None:
    """It is made with the next database."""
    files = host.next
    (files / "env").mkdir(parents=True)
    (files / "env/postgres.env").write_text("POSTGRES_PASSWORD=x\n")
    (files / "env/init.env").write_text("WORKER_DATABASE_PASSWORD=x\n")
    next_database.set_password(at_work, files)
    assert at_work.sql(f"SELECT FROM pg_roles WHERE rolname = '{WORKER_ROLE}'", ADMINISTRATION) == ""
