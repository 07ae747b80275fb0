"""Narrow questions to Airflow's tables, as they are from 2.5.3 to 2.11.2; the answers are JSON."""

from __future__ import annotations

import json

from airflow_checker.facts import Database

MOST_ROWS = 50
HOUR = 3600

# A DAG whose runs are being made up for (catchup) is behind and not overdue: it had a new run lately.
SQL = f"""
SET statement_timeout = '5s';
WITH oldest AS (SELECT DISTINCT ON (queue) queue, dag_id, task_id,
  extract(epoch FROM now() - queued_dttm) AS age
  FROM task_instance WHERE state = 'queued' AND queued_dttm IS NOT NULL AND queue IS NOT NULL
  ORDER BY queue, queued_dttm LIMIT {MOST_ROWS})
SELECT json_build_object(
  'size', pg_database_size(current_database()),
  'scheduler_age', (SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job
    WHERE job_type = 'SchedulerJob' AND state = 'running'),
  'triggerer_age', (SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job
    WHERE job_type = 'TriggererJob' AND state = 'running'),
  'parsed_age', (SELECT extract(epoch FROM now() - max(last_parsed_time)) FROM dag WHERE is_active),
  'running', (SELECT count(*) FROM task_instance WHERE state = 'running'),
  'running_on', (SELECT coalesce(json_object_agg(hostname, tasks), '{{}}') FROM (
    SELECT hostname, count(*) AS tasks FROM task_instance WHERE state = 'running' AND hostname IS NOT NULL
    GROUP BY hostname LIMIT {MOST_ROWS}) h),
  'queued', (SELECT count(*) FROM task_instance WHERE state = 'queued'),
  'oldest_queued', (SELECT coalesce(json_object_agg(queue, age), '{{}}') FROM oldest),
  'oldest_tasks', (SELECT coalesce(json_object_agg(queue, json_build_array(dag_id, task_id)), '{{}}')
    FROM oldest),
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

# No index of task_instance is by time, but one of job is: job_type_heart (job_type, latest_heartbeat). Each
# start of a task is a job, and the index ti_job_id (job_id) finds its task. The settings keep Postgres from
# reading the whole of task_instance all the same. A job beats every five seconds until its task ends; where
# its process died, the task fails five minutes later. A task that failed before it started had no job and is
# not counted. Durations are in the same rows, and cost no further page.
OUTCOMES = """
SET statement_timeout = '5s';
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SELECT coalesce(json_object_agg(hour, counts), '{{}}') FROM (
  SELECT (floor(extract(epoch FROM t.end_date) / {hour}) * {hour})::bigint AS hour,
    json_build_array(count(*) FILTER (WHERE t.state = 'success'),
      count(*) FILTER (WHERE t.state = 'failed'),
      coalesce(sum(t.duration), 0), coalesce(max(t.duration), 0)) AS counts
  FROM job j JOIN task_instance t ON t.job_id = j.id
  WHERE j.job_type = 'LocalTaskJob' AND j.latest_heartbeat >= to_timestamp({since}) - interval '15 minutes'
    AND t.end_date >= to_timestamp({since}) AND t.state IN ('success', 'failed')
  GROUP BY 1) h
"""


def outcomes(since: int) -> str:
    """Return the question how many tasks ended in each hour since a time, in epoch seconds, and how."""
    return OUTCOMES.format(since=since, hour=HOUR)


def command(question: str = SQL) -> list[str]:
    """Return the command that asks inside the container of Postgres."""
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
        f"--command={question}",
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


def parse_outcomes(text: str) -> dict[str, list[float]]:
    """Read the answer to `outcomes`: the values of an `Hour`, by the hour's start.

    Raises:
        ValueError: it is none.
    """
    try:
        hours = json.loads(text).items()
        return {
            # A clock that went back during a task may have made its duration negative.
            str(int(hour)): [int(succeeded), int(failed), max(0.0, float(seconds)), max(0.0, float(longest))]
            for hour, (succeeded, failed, seconds, longest) in hours
        }
    except (AttributeError, TypeError) as error:
        raise ValueError("the answer has another form") from error
