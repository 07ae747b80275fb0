"""The checker's questions to the database, asked of each Airflow's tables on a real Postgres."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROWS = """
-- What a version demands and the question does not ask for may be absent.
DO $$ DECLARE each record; BEGIN
  FOR each IN SELECT c.table_name, c.column_name FROM information_schema.columns c
    WHERE c.table_name IN ('job', 'dag', 'dag_run', 'task_instance')
      AND c.is_nullable = 'NO' AND c.column_default IS NULL
      AND (c.table_name, c.column_name) NOT IN (
        SELECT k.table_name, k.column_name FROM information_schema.key_column_usage k
        JOIN information_schema.table_constraints t USING (constraint_name, table_name)
        WHERE t.constraint_type = 'PRIMARY KEY')
  LOOP EXECUTE format('ALTER TABLE %I ALTER %I DROP NOT NULL', each.table_name, each.column_name);
  END LOOP;
END $$;
INSERT INTO job (job_type, state, latest_heartbeat, hostname) VALUES
  ('SchedulerJob', 'running', now() - interval '7 seconds', 'a'),
  ('SchedulerJob', 'failed', now(), 'b');
INSERT INTO dag (dag_id, is_active, is_paused, last_parsed_time, max_active_runs, max_active_tasks,
  has_task_concurrency_limits, has_import_errors, next_dagrun_create_after)
SELECT name, active, paused, now() - interval '1 minute', 1, 16, false, false, now() - late FROM (VALUES
  ('overdue', true, false, interval '10 minutes'),
  ('paused', true, true, interval '10 minutes'),
  ('removed', false, false, interval '10 minutes'),
  ('in time', true, false, interval '-10 minutes'),
  ('catching up', true, false, interval '1 year'),
  ('full', true, false, interval '10 minutes')) AS given (name, active, paused, late);
INSERT INTO log_template (id, filename, elasticsearch_id, created_at) VALUES (99, '', '', now());
INSERT INTO dag_run (dag_id, execution_date, run_id, state, run_type, start_date, queued_at, log_template_id)
SELECT name, now() - started, 'scheduled__1', state, 'scheduled', now() - started, now(), 99 FROM (VALUES
  ('overdue', interval '1 day', 'success'),
  ('catching up', interval '1 minute', 'success'),
  ('full', interval '1 hour', 'running')) AS given (name, started, state);
INSERT INTO task_instance (dag_id, task_id, run_id, map_index, state, queue, queued_dttm, hostname, pool,
  pool_slots)
SELECT 'full', name, 'scheduled__1', -1, state, 'default', now() - waited, hostname, 'default_pool', 1
FROM (VALUES
  ('one', 'queued', interval '4 minutes', ''),
  ('two', 'queued', interval '0', ''),
  ('three', 'running', interval '0', 'atd-worker01')) AS given (name, state, waited, hostname);
-- One of an hour that is over, two of this hour, of which one was started again, and what does not count.
INSERT INTO job (id, job_type, state, latest_heartbeat, hostname)
SELECT 1000 + number, 'LocalTaskJob', 'success', to_timestamp({hour}) + beat, 'c' FROM (VALUES
  (1, interval '-50 minutes'), (2, interval '0'), (3, interval '0'), (4, interval '0'), (5, interval '0'),
  (6, interval '-2 days')) AS given (number, beat);
INSERT INTO task_instance (dag_id, task_id, run_id, map_index, state, end_date, duration, job_id, pool,
  pool_slots)
SELECT 'full', 'ended ' || number, 'scheduled__1', -1, state, to_timestamp({hour}) + ended, number * 1.5,
  1000 + number, 'default_pool', 1 FROM (VALUES
  (1, 'failed', interval '-50 minutes'), (3, 'success', interval '1 second'), (4, 'failed', interval '0'),
  (5, 'skipped', interval '0'), (6, 'success', interval '-2 days')) AS given (number, state, ended);
"""
HOUR = int(time.time() // 3600 * 3600)


@pytest.fixture(scope="module")
def answer(postgres: dict[str, str]) -> dict[str, Any]:
    """What the question returns, on tables with the rows above."""
    sys.path.insert(0, str(ROOT / "checker/src"))
    from airflow_checker.gather import database

    def run(*command: str) -> str:
        done = subprocess.run(command, env=postgres, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # By this name the checker asks.
    run("createdb", "--template=empty", "airflow")
    try:
        psql = ["psql", "--dbname=airflow", "--quiet", "--set=ON_ERROR_STOP=1"]
        run(*psql, f"--command={ROWS.replace('{hour}', str(HOUR))}")
        outcomes = database.command(database.outcomes(HOUR - 23 * 3600))
        plan = [part.replace("SELECT coalesce", "EXPLAIN SELECT coalesce") for part in outcomes]
        asked = run(*database.command())
        database.parse(asked)
        return {
            **json.loads(asked),
            "outcomes": database.parse_outcomes(run(*outcomes)),
            "plan": run(*plan),
        }
    finally:
        run("dropdb", "airflow")


def test_heartbeats_are_those_that_run(answer: dict[str, Any]) -> None:
    assert 7 <= answer["scheduler_age"] < 60
    assert answer["triggerer_age"] is None
    assert 60 <= answer["parsed_age"] < 120


def test_overdue_is_what_has_slots_and_had_no_run(answer: dict[str, Any]) -> None:
    assert list(answer["overdue"]) == ["overdue"]
    assert 600 <= answer["overdue"]["overdue"] < 660


def test_tasks_are_counted(answer: dict[str, Any]) -> None:
    assert (answer["running"], answer["queued"]) == (1, 2)
    assert list(answer["oldest_queued"]) == ["default"]
    assert 240 <= answer["oldest_queued"]["default"] < 300
    assert answer["oldest_tasks"] == {"default": ["full", "one"]}
    assert answer["running_on"] == {"atd-worker01": 1}
    assert answer["size"] > 2**20


def test_outcomes_are_counted_by_the_hour_in_which_a_task_ended(answer: dict[str, Any]) -> None:
    assert answer["outcomes"] == {str(HOUR - 3600): [0, 1, 1.5, 1.5], str(HOUR): [1, 1, 10.5, 6.0]}


def test_outcomes_are_found_by_indexes(answer: dict[str, Any]) -> None:
    """Those of every version, however large the table is: no row is read that is not of the time."""
    assert "Seq Scan" not in answer["plan"]
    for index in ("job_type_heart", "ti_job_id"):
        assert index in answer["plan"]
