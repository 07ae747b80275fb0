"""The DAG `workers-wait`: a task that says what it is told to, as soon as it is told, until it may end.

It is told by files below the directory of logs, where a test on the task's host can make them.
"""

from __future__ import annotations

import time
from pathlib import Path

import pendulum
from airflow.decorators import dag, task

FOLDER = Path("/opt/airflow/logs/workers-wait")
MAY_END = "may-end"
LIMIT_SECONDS = 600


@dag(
    dag_id="workers-wait",
    schedule=None,
    start_date=pendulum.datetime(2024, 1, 1),
    default_args={"retries": 0, "queue": "atd-worker01"},
    tags=["workers"],
)
def workers_wait() -> None:
    """Say the name of each file, and when."""

    @task
    def work() -> None:
        """Raise TimeoutError when nobody lets it end."""
        limit = time.monotonic() + LIMIT_SECONDS
        said: set[str] = set()
        while MAY_END not in said:
            if time.monotonic() > limit:
                raise TimeoutError(f"nobody made {FOLDER / MAY_END}")
            for path in sorted(FOLDER.glob("*")):
                if path.name not in said:
                    print(f"told {path.name} at {time.time()}", flush=True)
                    said.add(path.name)
            time.sleep(0.1)

    work()


workers_wait()
