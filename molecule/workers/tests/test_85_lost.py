"""A worker's host is lost with tasks: another one takes them up. And Redis is away, again and again."""

from __future__ import annotations

import os
import time

import pytest
from airflow_api import wait_for
from delivery import docker
from executions import Executions
from faulty_host import AWAY_SECONDS, killed_redis
from long_tests import when_asked
from platform_host import Platform
from worker_host import CONSUMES_SECONDS, FIRST, WorkerHost

pytestmark = [when_asked, pytest.mark.usefixtures("healthy")]

SLOTS = 4
RUNNING_SECONDS = 6 * 60
"""Within so long a task that ran on the lost host runs elsewhere."""
RESERVED_SECONDS = 11 * 60
"""And one that only waited there."""
REDIS_KILLS = int(os.environ.get("REDIS_KILLS") or 3)


def test_tasks_of_a_lost_host_are_taken_up(workers: dict[str, WorkerHost], executions: Executions) -> None:
    """Each ends once, also when the host comes back. About 12 minutes."""
    lost, other = workers.values()
    tasks = 4 * SLOTS
    run = executions.begin("any-worker", tasks)
    executions.wait_until_running(run, 2 * SLOTS)
    running = executions.running_on(run, lost.name)
    assert len(running) == SLOTS
    docker("kill", lost.container)
    killed = time.monotonic()
    try:
        executions.may_end(other.host)

        def ended() -> set[int]:
            rows = executions.rows(run, "count", "map_index", "state")
            return {int(number) for number, state in rows if state == "success"}

        def seconds_left(seconds: float) -> float:
            return seconds - (time.monotonic() - killed)

        wait_for("what ran on the lost host", lambda: running <= ended(), seconds_left(RUNNING_SECONDS))
        executions.wait_for_end(run, seconds_left(RESERVED_SECONDS))
        assert {host for _, host in executions.rows(run, "count", "map_index", "hostname")} == {other.name}
    finally:
        docker("start", lost.container)
    lost.wait_until_healthy()
    # It runs another task, and so has looked at whatever Redis still has for it.
    executions.may_end()
    following = executions.begin(FIRST, tasks=1)
    executions.wait_for_end(following, CONSUMES_SECONDS)
    executions.check_once(run, tasks, begun_twice=running)


@pytest.mark.parametrize("number", range(1, REDIS_KILLS + 1))
def test_worker_consumes_after_redis_was_away(
    platform: Platform, executions: Executions, number: int
) -> None:
    """For 15 s, with a kill; by itself or by a restart. About 40 s."""
    executions.may_end()
    with killed_redis(platform.check):
        time.sleep(AWAY_SECONDS)  # the fault itself: it is away for so long
    back = time.monotonic()
    run = executions.begin(FIRST, tasks=1)
    executions.wait_for_end(run, CONSUMES_SECONDS)
    print(f"kill {number}: a task had run {time.monotonic() - back:.0f} s after Redis was back")
    executions.check_once(run, 1)
