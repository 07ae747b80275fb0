"""The release command's clean-up of history: with each Airflow's own `db clean`, on a real Postgres."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "release/src"))

DOCKER = """#!{python}
# What the platform's containers would do, on this machine.
import json, os, sys
given = sys.argv[1:]
open("{calls}", "a").write(json.dumps(given) + "\\n")
if given[3:6] == ["exec", "--no-TTY", "postgres"]:
    os.execvp(given[6], given[6:])
elif "run" in given:
    service = given.index("airflow-init")
    os.environ.update(word[6:].split("=", 1) for word in given[:service] if word[:6] == "--env=")
    os.execv("{airflow}", given[service + 1:])
elif given[:2] == ["volume", "inspect"]:
    print("{folder}")
elif given[:2] == ["container", "ls"]:
    pass
else:
    sys.exit(f"unexpected: {{given}}")
"""

ROWS = """
-- What a version demands and a test does not ask for may be absent.
DO $$ DECLARE each record; BEGIN
  FOR each IN SELECT c.table_name, c.column_name FROM information_schema.columns c
    WHERE c.table_schema = 'public' AND c.is_nullable = 'NO' AND c.column_default IS NULL
      AND (c.table_name, c.column_name) NOT IN (
        SELECT k.table_name, k.column_name FROM information_schema.key_column_usage k
        JOIN information_schema.table_constraints t USING (constraint_name, table_name)
        WHERE t.constraint_type = 'PRIMARY KEY')
  LOOP EXECUTE format('ALTER TABLE %I ALTER %I DROP NOT NULL', each.table_name, each.column_name);
  END LOOP;
END $$;
INSERT INTO log (dttm, event)
  SELECT now() - n * interval '1 day' + interval '1 hour', 'cli' FROM generate_series(1, 200) n;
INSERT INTO job (job_type, state, latest_heartbeat) VALUES
  ('SchedulerJob', 'running', now()), ('LocalTaskJob', 'success', now() - interval '91 days');
INSERT INTO dag (dag_id, is_paused, is_active, last_parsed_time)
  VALUES ('removed', true, false, now() - interval '1 year');
INSERT INTO log_template (id, filename, elasticsearch_id, created_at) VALUES (99, '', '', now());
INSERT INTO dag_run (dag_id, run_id, execution_date, start_date, run_type, external_trigger, state,
  log_template_id)
SELECT name, run, now() - began, now() - began, 'scheduled', manual, 'success', 99 FROM (VALUES
  ('ended', 'a', interval '200 days', false),
  ('ended', 'b', interval '120 days', false),
  ('ended', 'c', interval '110 days', true),
  ('goes on', 'd', interval '100 days', false),
  ('goes on', 'e', interval '1 day', false),
  ('by hand', 'f', interval '100 days', true)) AS given (name, run, began, manual);
-- Its only scheduled run waits to begin.
INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, external_trigger, state, log_template_id)
  VALUES ('by hand', 'g', now(), 'scheduled', false, 'queued', 99);
INSERT INTO task_instance (dag_id, task_id, run_id, map_index, state, start_date, pool, pool_slots)
  SELECT dag_id, 'task', run_id, -1, 'success', start_date, 'default_pool', 1 FROM dag_run;
INSERT INTO session (session_id, expiry) VALUES
  ('over', now() - interval '1 hour'), ('on', now() + interval '1 hour');
"""
DAYS = 86_400


@pytest.fixture(scope="module")
def server(postgres: dict[str, str]) -> dict[str, str]:
    """The environment in which programs find a Postgres that has the rows above in `made`."""
    subprocess.run(["createdb", "--template=empty", "made"], env=postgres, check=True)
    psql = ["psql", "--dbname=made", "--quiet", "--set=ON_ERROR_STOP=1", f"--command={ROWS}"]
    subprocess.run(psql, env=postgres, check=True)
    return postgres


@pytest.fixture
def host(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host whose database has the rows above and was backed up an hour ago."""
    from airflow_release.clean import history
    from airflow_release.core.host import Host

    for name, value in server.items():
        monkeypatch.setenv(name, value)
    folder = server["PGHOST"]
    subprocess.run(["dropdb", "--force", "--if-exists", "airflow"], check=True)
    subprocess.run(["createdb", "--template=made", "airflow"], check=True)
    program = Path(folder) / "docker"
    airflow = Path(sys.executable).with_name("airflow")
    program.write_text(
        DOCKER.format(python=sys.executable, airflow=airflow, folder=folder, calls=tmp_path / "calls")
    )
    program.chmod(0o755)
    monkeypatch.setattr(history, "LOCK_SECONDS", 1)
    host = Host(tmp_path / "srv", tmp_path / "backups")
    host.status.mkdir(parents=True)
    host.backups.mkdir()
    state = {"last_good": {"name": "a", "at": time.time() - 3600}}
    (host.status / "backup.json").write_text(json.dumps(state))
    return host


def sql(statement: str) -> list[str]:
    """Return the rows of a statement."""
    psql = ["psql", "--dbname=airflow", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    return subprocess.run(
        [*psql, f"--command={statement}"], check=True, capture_output=True, text=True
    ).stdout.split("\n")[:-1]


def archives() -> list[str]:
    """Return what `airflow db clean` left."""
    return sql("SELECT tablename FROM pg_tables WHERE tablename LIKE '\\_airflow%' ORDER BY 1")


@contextlib.contextmanager
def held(lock: str) -> Iterator[None]:
    """Hold a lock as a session does that somebody forgot."""
    session = subprocess.Popen(
        ["psql", "--dbname=airflow", "--no-psqlrc", "-qtA"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PGAPPNAME": "forgotten"},
    )
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(f"BEGIN; {lock}; SELECT 'held';\n")
    session.stdin.flush()
    assert session.stdout.readline() == "held\n"
    try:
        yield
    finally:
        session.kill()
        session.wait()
        session.stdin.close()
        session.stdout.close()


def clean(host: Any, **more: Any) -> list[str]:
    """Clean with the default of 90 days."""
    from airflow_release.clean import history
    from airflow_release.core.settings import Settings

    return history.clean(host, Settings(), **more)


def test_airflow_knows_these_tables_by_these_columns() -> None:
    """What another version adds is removed, too, or left out for a reason."""
    from airflow.utils.db_cleanup import config_list
    from airflow_release.clean import history

    known = {config.table_name: config.recency_column_name for config in config_list}
    left_out = {"dag", "trigger", "session"}
    assert {table: column for table, column in known.items() if table not in left_out}.items() <= (
        history.TABLES.items()
    )
    assert history.TABLES.keys() - known.keys() <= {"task_instance_history"}
    assert [config.table_name for config in config_list if config.keep_last] == ["dag_run"]


def test_old_history_goes_and_the_rest_stays(host: Any, tmp_path: Path) -> None:
    before = clean(host, dry_run=True)
    said = clean(host)
    check_call(tmp_path)
    assert said == before
    assert [text.partition(": ")[2] for text in said[:1]] == ["4 dag_run, 1 job, 110 log, 5 task_instance"], (
        said
    )
    assert said[1:] == ["1 expired sessions"]
    assert sql("SELECT count(*) FROM log WHERE dttm < now() - interval '90 days'") == ["0"]
    # The last scheduled run of a DAG stays, however old, and from it the schedule continues.
    assert sql("SELECT dag_id, run_id FROM dag_run ORDER BY run_id") == ["ended|b", "goes on|e", "by hand|g"]
    assert sql("SELECT job_type FROM job") == ["SchedulerJob"]
    assert sql("SELECT is_paused FROM dag WHERE dag_id = 'removed'") == ["t"]
    assert sql("SELECT session_id FROM session") == ["on"]
    assert archives() == []
    assert clean(host) == []


def test_what_is_left_is_told_though_airflow_ends_with_0(host: Any, tmp_path: Path) -> None:
    """A DELETE that waits for too long: Airflow warns, leaves the copy of the rows, and exits 0."""
    from airflow_release.core.errors import ReleaseError

    with held("LOCK TABLE log IN SHARE MODE"), pytest.raises(ReleaseError) as told:
        clean(host)
    assert "`airflow db clean` left rows from before" in str(told.value)
    assert ": 110 log; held by process " in str(told.value)
    assert "(forgotten, idle in transaction, its transaction since " in str(told.value)
    assert "which `airflow db clean` had left" in str(told.value)
    assert "airflow db clean failed" not in str(told.value)
    assert archives() == []
    assert sql("SELECT count(*) FROM dag_run") == ["3"]
    assert sql("SELECT count(*) FROM log WHERE event = 'cli' AND dttm < now() - interval '90 days'") == [
        "110"
    ]
    clean(host)
    assert sql("SELECT count(*) FROM log WHERE dttm < now() - interval '90 days'") == ["0"]


def test_copies_of_earlier_runs_go_by_their_exact_name(host: Any) -> None:
    others = [
        "_airflow_deleted__log",
        "_airflow_deleted__log__20260101",
        "_airflow_moved__2_6__dangling__xcom",
    ]
    sql("TRUNCATE log, job, dag_run, task_instance CASCADE")
    for name in ["_airflow_deleted__log__20260101000000", *others]:
        sql(f"CREATE TABLE {name} (id int)")
    said = clean(host)
    assert said[-1] == "the table _airflow_deleted__log__20260101000000, which `airflow db clean` had left"
    assert archives() == sorted(others)


@pytest.mark.parametrize("run", ["a", "b"])
def test_run_that_has_not_ended_keeps_what_it_has_done(host: Any, tmp_path: Path, run: str) -> None:
    """Of the last run, which stays, Airflow would remove the tasks, and do them again."""
    from airflow_release.core.errors import ReleaseError

    sql(f"UPDATE dag_run SET state = 'running' WHERE run_id = '{run}'")
    with pytest.raises(ReleaseError, match=rf"some from before .* have not ended: {run} of ended; let them"):
        clean(host)
    assert '"run"' not in (tmp_path / "calls").read_text()
    assert sql("SELECT count(*) FROM task_instance") == ["7"]


@pytest.mark.parametrize("age", [None, 26 * 3600])
def test_without_a_backup_of_the_last_day_nothing_goes(host: Any, tmp_path: Path, age: float | None) -> None:
    from airflow_release.core.errors import ReleaseError

    state = {} if age is None else {"last_good": {"name": "a", "at": time.time() - age}}
    (host.status / "backup.json").write_text(json.dumps(state))
    with pytest.raises(ReleaseError, match="no good backup of the last day; take one"):
        clean(host)
    assert '"run"' not in (tmp_path / "calls").read_text()
    assert sql("SELECT count(*) FROM dag_run") == ["7"]


def test_without_disk_for_the_copies_nothing_goes(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from airflow_release.core.errors import ReleaseError

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1, "total": 2**40}))
    with pytest.raises(ReleaseError, match="too little disk"):
        clean(host)
    assert sql("SELECT count(*) FROM dag_run") == ["7"]


def check_call(folder: Path) -> None:
    """The command gave up a lock that it did not get, and showed no secret."""
    [call] = [line for line in map(json.loads, (folder / "calls").read_text().splitlines()) if "run" in line]
    assert "--env=PGOPTIONS=-c lock_timeout=1s -c TimeZone=UTC" in call
    assert "--env=PGAPPNAME=airflow-release" in call
    assert {"--rm", "--no-deps", "--name=airflow-clean", "--skip-archive", "--yes"} <= set(call)
