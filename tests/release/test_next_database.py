"""The database that a release will have, from each of its sources, on a real Postgres."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_release.backup import backups
from airflow_release.core.database import LIVE, NEXT, Database
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
