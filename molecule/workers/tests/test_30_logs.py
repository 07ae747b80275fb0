"""Airflow shows the logs of tasks on a worker: while they run, afterwards, and without the worker."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from airflow_api import AirflowApi, wait_for
from expected import DIRECTORY
from long_tests import when_asked
from platform_host import Platform
from testinfra.host import Host
from worker_host import WorkerHost

DAG = "workers-wait"
FOLDER = f"{DIRECTORY}/logs/workers-wait"
SHOWN_SECONDS = 2
COPIED_SECONDS = 120
"""It copies once a minute."""


class Task:
    """A run of the DAG, whose task says what it is told to."""

    def __init__(self, airflow: AirflowApi, worker: WorkerHost) -> None:
        """Trigger it."""
        worker.check(f"rm -rf {FOLDER} && mkdir {FOLDER}")
        self._airflow, self._worker = airflow, worker
        self.run = airflow.call("POST", f"dags/{DAG}/dagRuns", json={})["dag_run_id"]
        self._path = f"dags/{DAG}/dagRuns/{self.run}/taskInstances/work"

    @property
    def state(self) -> str:
        """Return its state."""
        return str(self._airflow.get(self._path)["state"])

    def log(self) -> str:
        """Return the log of its first attempt."""
        return self._airflow.ask("GET", f"{self._path}/logs/1", headers={"Accept": "text/plain"}).text

    def tell(self, text: str) -> None:
        """Tell it something."""
        self._worker.check(f"touch {FOLDER}/{text}")

    def seconds_until_shown(self, text: str) -> float:
        """Return how long after it was written a line is in Airflow."""

        def shown() -> float:
            found = re.search(rf"told {text} at ([\d.]+)", self.log())
            return time.time() - float(found[1]) if found else 0.0

        return float(wait_for(f"the log to have {text}", shown, 30, pause=0.05))


@pytest.fixture(scope="module")
def task(platform: Platform, airflow: AirflowApi, worker: WorkerHost) -> Iterator[Task]:
    """One that runs on the worker until a test lets it end."""
    worker.wait_until_healthy()
    task = Task(airflow, worker)
    try:
        wait_for("the task to run", lambda: task.state == "running", 120)
        yield task
    finally:
        task.tell("may-end")


def test_line_is_shown_while_the_task_runs(task: Task) -> None:
    """Each new one: what was shown once may have been kept somewhere."""
    seconds = [task.seconds_until_shown(text) for text in _told(task.tell, 5)]
    assert task.state == "running"
    assert max(seconds) <= SHOWN_SECONDS, seconds


def _told(tell: Callable[[str], None], count: int) -> Iterator[str]:
    for _ in range(count):
        text = secrets.token_hex(6)
        tell(text)
        yield text


def test_log_is_shown_when_the_task_has_ended(task: Task) -> None:
    """The last line is there as soon, before anybody has copied the log."""
    task.tell("may-end")
    assert task.seconds_until_shown("may-end") <= SHOWN_SECONDS
    wait_for("the task to end", lambda: task.state == "success", 60)
    assert "told may-end at" in task.log()


@when_asked
def test_log_outlives_its_host(task: Task, host: Host, worker: WorkerHost) -> None:
    """The main host copies what has ended, and shows its copy while the worker is away. About two minutes."""
    wait_for("the task to end", lambda: task.state == "success", 60)
    copied = f"find {DIRECTORY}/logs -path %s -type f -size +0"
    pattern = f"*dag_id={DAG}/run_id={task.run}/task_id=work/attempt=1.log"
    wait_for("the main host's copy", lambda: host.check_output(copied, pattern), COPIED_SECONDS)
    [path] = host.check_output(copied, pattern).split()
    assert "told may-end at" in host.file(path).content_string
    with worker.cut_off():
        assert "told may-end at" in task.log()
    worker.wait_until_healthy()
