"""A worker's host reboots or loses its network: it works again by itself, and no task runs twice."""

from __future__ import annotations

import time

import pytest
from delivery import Delivery
from executions import Executions
from long_tests import when_asked
from platform_host import Platform
from worker_host import CONSUMES_SECONDS, FIRST, WorkerHost
from worker_rows import wait_for_state

pytestmark = pytest.mark.usefixtures("healthy")

CUT_SECONDS = 40


def test_worker_consumes_after_a_reboot(worker: WorkerHost, executions: Executions) -> None:
    """A task that runs ends first, and the next ones wait for the host. About a minute."""
    running = executions.begin(FIRST, tasks=1)
    executions.wait_until_running(running, 1)
    executions.may_end()
    worker.reboot()
    back = time.monotonic()
    waiting = executions.begin(FIRST, tasks=3)
    for run in (running, waiting):
        executions.wait_for_end(run, CONSUMES_SECONDS - (time.monotonic() - back))
    worker.wait_until_healthy()
    executions.check_once(running, 1)
    executions.check_once(waiting, 3)


@when_asked
def test_worker_consumes_after_a_cut(worker: WorkerHost, executions: Executions, delivery: Delivery) -> None:
    """A task that runs meanwhile goes on; what was triggered meanwhile waits. About two minutes.

    What Redis sends before the main host notices is lost with the connection. Airflow sends it again after
    ten minutes.
    """
    running = executions.begin(FIRST, tasks=1)
    executions.wait_until_running(running, 1)
    with worker.cut_off():
        wait_for_state(delivery, worker.name, "silent")
        waiting = executions.begin(FIRST, tasks=3)
        time.sleep(CUT_SECONDS)  # the fault itself: it is away for so long
        assert sum(executions.noted("begun", waiting).values()) == 0
    back = time.monotonic()
    executions.may_end()
    for run in (waiting, running):
        executions.wait_for_end(run, CONSUMES_SECONDS - (time.monotonic() - back))
    executions.check_once(running, 1)
    executions.check_once(waiting, 3)
    assert executions.rows(running, "count", "try_number") == [["1"]]


def test_worker_consumes_after_redis_was_restarted(platform: Platform, executions: Executions) -> None:
    """By Docker, which takes a second: the tunnel has to notice."""
    executions.may_end()
    platform.check("docker compose restart redis 2>&1")
    run = executions.begin(FIRST, tasks=2)
    executions.wait_for_end(run, CONSUMES_SECONDS)
    executions.check_once(run, 2)
