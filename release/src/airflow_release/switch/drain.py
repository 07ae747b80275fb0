"""Lets running tasks end before the workers are stopped, so that no task fails because of a switch."""

from __future__ import annotations

import time

from airflow_release.core.database import LIVE, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.switch import stack

UNDER_WAY = """
SELECT ti.dag_id || '.' || ti.task_id || ' (' || ti.run_id || '), ' || ti.state
FROM task_instance ti LEFT JOIN job ON job.id = ti.job_id
WHERE ti.state = 'queued'
   OR ti.state IN ('running', 'restarting') AND job.latest_heartbeat > now() - interval '5 minutes'
ORDER BY 1
"""
"""Tasks that a worker has or will get. A running one without a heartbeat has no process any more: Airflow
calls it a zombie after five minutes, and it must not hold up a switch for ever."""


class DrainTimeoutError(ReleaseError):
    """Tasks were still running when the time was up."""


def drain(database: Database, seconds: float, *, terminate: bool) -> str:
    """Stop scheduling, wait for the tasks under way, stop the workers; return a note on what happened.

    With `terminate`, tasks that are left after `seconds` are ended, and retried as their DAGs say.

    Raises:
        DrainTimeoutError: tasks were left, and may not be ended.
    """
    host = database.host
    stack.stop(host, "airflow-scheduler")
    started = time.monotonic()
    while tasks := database.sql(UNDER_WAY, LIVE).splitlines():
        if time.monotonic() - started > seconds:
            if not terminate:
                raise DrainTimeoutError(
                    f"{len(tasks)} tasks were still under way after {seconds:.0f} s: "
                    f"{'; '.join(tasks[:10])}. Give them more time with upgrade_drain_timeout (seconds), or "
                    "have them ended and retried with upgrade_on_drain_timeout=terminate."
                )
            break
        time.sleep(0.5)  # tasks end when they end; Postgres cannot call us
    # A worker that is asked to stop takes nothing more and finishes what it has.
    stack.stop(host, "airflow-worker", "airflow-triggerer", seconds=30)
    return f"ended {len(tasks)} tasks: {'; '.join(tasks[:10])}" if tasks else "every task finished"
