"""The DAG `upgrade-long`: a task that is at work when a switch begins, and has no second try."""

from __future__ import annotations

import time
from pathlib import Path

import pendulum
from airflow.decorators import dag, task

MAY_END = Path("/opt/airflow/logs/upgrade-long-may-end")
"""On the host it is below /srv/airflow/logs, the one place that both it and a worker write to."""
LIMIT_SECONDS = 600


@dag(
    dag_id="upgrade-long",
    schedule=None,
    start_date=pendulum.datetime(2024, 1, 1),
    default_args={"retries": 0},
    tags=["upgrade"],
)
def upgrade_long() -> None:
    """Work until somebody lets it end."""

    @task
    def work() -> float:
        """Return the seconds that it took. Raises TimeoutError when nobody lets it end."""
        started = time.monotonic()
        while not MAY_END.exists():
            if time.monotonic() - started > LIMIT_SECONDS:
                raise TimeoutError(f"nobody made {MAY_END}")
            time.sleep(0.5)
        return time.monotonic() - started

    work()


upgrade_long()
