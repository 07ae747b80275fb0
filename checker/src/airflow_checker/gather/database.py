"""One narrow question to Airflow's tables, as they are from 2.5.3 to 2.11.2; the answer is JSON."""

from __future__ import annotations

import json

from airflow_checker.facts import Database

MOST_ROWS = 50

# A DAG whose runs are being made up for (catchup) is behind and not overdue: it had a new run lately.
SQL = f"""
SET statement_timeout = '5s';
SELECT json_build_object(
  'size', pg_database_size(current_database()),
  'scheduler_age', (SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job
    WHERE job_type = 'SchedulerJob' AND state = 'running'),
  'triggerer_age', (SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job
    WHERE job_type = 'TriggererJob' AND state = 'running'),
  'parsed_age', (SELECT extract(epoch FROM now() - max(last_parsed_time)) FROM dag WHERE is_active),
  'running', (SELECT count(*) FROM task_instance WHERE state = 'running'),
  'queued', (SELECT count(*) FROM task_instance WHERE state = 'queued'),
  'oldest_queued', (SELECT coalesce(json_object_agg(queue, age), '{{}}') FROM (
    SELECT queue, extract(epoch FROM now() - min(queued_dttm)) AS age FROM task_instance
    WHERE state = 'queued' AND queued_dttm IS NOT NULL AND queue IS NOT NULL
    GROUP BY queue LIMIT {MOST_ROWS}) q),
  'overdue', (SELECT coalesce(json_object_agg(dag_id, age), '{{}}') FROM (
    SELECT d.dag_id, extract(epoch FROM now() - d.next_dagrun_create_after) AS age FROM dag d
    WHERE d.is_active AND NOT d.is_paused AND d.next_dagrun_create_after < now() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM dag_run r WHERE r.dag_id = d.dag_id AND r.run_type <> 'manual'
        AND coalesce(r.start_date, r.queued_at) > now() - interval '5 minutes')
      AND (SELECT count(*) FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state IN ('running', 'queued'))
        < coalesce(d.max_active_runs, 16)
    ORDER BY d.next_dagrun_create_after LIMIT {MOST_ROWS}) o)
)
"""


def command() -> list[str]:
    """Return the command that asks it inside the container of Postgres."""
    return [
        "env",
        "PGAPPNAME=airflow-checker",
        "PGCONNECT_TIMEOUT=5",
        "psql",
        "--username=airflow",
        "--dbname=airflow",
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--set=ON_ERROR_STOP=1",
        f"--command={SQL}",
    ]


def parse(text: str) -> Database:
    """Read the answer.

    Raises:
        ValueError: it is none.
    """
    try:
        return Database(**json.loads(text))
    except TypeError as error:
        raise ValueError("the answer has other fields") from error
