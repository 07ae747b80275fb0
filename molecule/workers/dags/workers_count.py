"""The DAGs `workers-count-<queue>`: mapped tasks that write down each of their executions, where it is.

The run's configuration has `tasks`, their number. They end when `may-end` is beside what they write.
"""

from __future__ import annotations

import datetime
import os
import socket
import time
import uuid
from pathlib import Path

import pendulum
from airflow.decorators import dag, task

FOLDER = Path("/opt/airflow/logs/workers-count")
MAY_END = FOLDER / "may-end"
LIMIT_SECONDS = 1800


def note(what: str, run: str, number: int, execution: str) -> None:
    """Add a line to the file of this host."""
    FOLDER.mkdir(exist_ok=True)
    line = f"{what} {run} {number} {socket.gethostname()} {execution}\n"
    descriptor = os.open(FOLDER / socket.gethostname(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make(queue: str) -> None:
    """Make the DAG whose tasks are in this queue."""

    @dag(
        dag_id=f"workers-count-{queue}",
        schedule=None,
        start_date=pendulum.datetime(2024, 1, 1),
        default_args={"retries": 3, "retry_delay": datetime.timedelta(seconds=5), "queue": queue},
        tags=["workers"],
    )
    def workers_count() -> None:
        @task
        def numbers(dag_run: object = None) -> list[int]:
            return list(range(dag_run.conf["tasks"]))

        @task
        def count(number: int, dag_run: object = None) -> None:
            execution = uuid.uuid4().hex
            note("begun", dag_run.run_id, number, execution)
            limit = time.monotonic() + LIMIT_SECONDS
            while not MAY_END.exists():
                if time.monotonic() > limit:
                    raise TimeoutError(f"nobody made {MAY_END}")
                time.sleep(0.5)
            note("ended", dag_run.run_id, number, execution)

        count.expand(number=numbers())

    workers_count()


for each in ("atd-worker01", "any-worker"):
    make(each)
