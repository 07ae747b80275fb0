"""A push is live on every host at once, and a worker that does not answer delays nobody."""

from __future__ import annotations

import threading
import time

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, TREES, Delivery, dag_source, new_name
from executions import Executions
from testinfra.host import Host
from worker_host import CONSUMES_SECONDS, FIRST, WorkerHost
from worker_rows import row, wait_for_state

pytestmark = pytest.mark.usefixtures("healthy")

APART_SECONDS = 1
PREPARE_SECONDS = 10
"""The main host waits at most so long for workers that it has heard of."""
SLACK_SECONDS = 5
"""A busy machine may take so much longer for the same push."""


class Watch(threading.Thread):
    """Waits on a host until a commit is live there."""

    def __init__(self, host: Host, commit: str) -> None:
        """Begin to wait."""
        super().__init__()
        self._host, self._commit = host, commit
        self.at = 0.0
        """When it was, in seconds since the epoch; the hosts of the sandbox have one clock."""
        self.start()

    def run(self) -> None:
        """Wait on the host itself, so that asking takes no time."""
        done = self._host.run(
            f"timeout {PATIENCE} sh -c %s",
            f'until [ "$(readlink {TREES}/current)" = worktrees/{self._commit} ]; do sleep 0.02; done;'
            " date +%s.%N",
        )
        if done.rc == 0:
            self.at = float(done.stdout)

    def wait(self) -> float:
        """Return when it was."""
        self.join()
        assert self.at, f"{self._commit} is not live after {PATIENCE} s"
        return self.at


def push(delivery: Delivery) -> str:
    """Push a new DAG without telling anybody; return the commit."""
    dag = new_name("everywhere")
    return delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})


def seconds_until_live(delivery: Delivery) -> float:
    """Push, and return how long the main host takes to have it live, from the announcement on."""
    commit = push(delivery)
    watch = Watch(delivery.host, commit)
    began = time.time()
    delivery.announce(commit)
    return watch.wait() - began


@pytest.mark.parametrize("number", range(3))
def test_push_is_live_everywhere_within_a_second(
    delivery: Delivery, workers: dict[str, WorkerHost], number: int
) -> None:
    """By the link from which a task takes its DAG."""
    for name in workers:
        wait_for_state(delivery, name, "live")
    commit = push(delivery)
    watches = [Watch(host, commit) for host in (delivery.host, *(worker.host for worker in workers.values()))]
    delivery.announce(commit)
    times = [watch.wait() for watch in watches]
    assert max(times) - min(times) <= APART_SECONDS, times


def test_worker_that_is_away_delays_no_push(delivery: Delivery, worker: WorkerHost) -> None:
    """It gets no task meanwhile, since it reaches no queue; back again, it has the right commit."""
    wait_for_state(delivery, worker.name, "live")
    usual = seconds_until_live(delivery)
    with worker.cut_off():
        wait_for_state(delivery, worker.name, "silent")
        assert seconds_until_live(delivery) <= usual + SLACK_SECONDS
        commit = delivery.live()
        assert worker.live() != commit
    Watch(worker.host, commit).wait()
    wait_for_state(delivery, worker.name, "live")
    assert row(delivery, worker.name)["commit"] == commit


def test_worker_that_does_not_prepare_is_fenced(
    delivery: Delivery, worker: WorkerHost, executions: Executions
) -> None:
    """It would run old code: it gets no task until it has the new one. A push waits for it once."""
    wait_for_state(delivery, worker.name, "live")
    usual = seconds_until_live(delivery)
    worker.compose("stop dag-follower 2>&1")
    try:
        assert seconds_until_live(delivery) <= usual + PREPARE_SECONDS + SLACK_SECONDS
        wait_for_state(delivery, worker.name, "fenced")
        executions.may_end()
        run = executions.begin(FIRST, tasks=1)
        wait_for("the task to be in the queue", lambda: executions.states(run, "numbers") == {"queued"}, 60)
        # Nobody takes it, for as long as the next push needs; that one waits for nobody.
        assert seconds_until_live(delivery) <= usual + SLACK_SECONDS
        assert executions.states(run, "numbers") == {"queued"}
    finally:
        worker.compose("start dag-follower 2>&1")
    wait_for_state(delivery, worker.name, "live")
    executions.wait_for_end(run, CONSUMES_SECONDS)
    assert worker.live() == delivery.live()
