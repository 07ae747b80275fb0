"""`stop.yml` stops the workers, too, once their tasks have ended; one that does not answer is said."""

from __future__ import annotations

import pytest
from airflow_api import wait_for
from control_node import ControlNode
from delivery import docker
from executions import Executions
from long_tests import when_asked
from platform_host import Platform
from worker_host import FIRST, WorkerHost

CONFIRMED = "--extra-vars=confirm_host=atd-data03"


@pytest.mark.usefixtures("healthy")
def test_destruction_lists_what_a_worker_has(
    control: ControlNode, with_workers: str, worker: WorkerHost
) -> None:
    """In check mode, which leaves all as it is."""
    before = {name: one["Id"] for name, one in worker.containers().items()}
    output = control.run("playbooks/destroy.yml", with_workers, CONFIRMED, "--check").succeeded().output
    assert "/etc/systemd/system/airflow-worker.service" in output
    assert "/srv/airflow/tunnel" in output
    assert {name: one["Id"] for name, one in worker.containers().items()} == before


@when_asked
@pytest.mark.usefixtures("healthy")
def test_stop_waits_for_the_tasks_of_workers(
    platform: Platform,
    control: ControlNode,
    with_workers: str,
    workers: dict[str, WorkerHost],
    executions: Executions,
) -> None:
    """The task ends well, and its end is known, because the main host still runs then. About 5 minutes."""
    run = executions.begin(FIRST, tasks=1)
    executions.wait_until_running(run, 1)
    stopping = control.start("playbooks/stop.yml", with_workers)
    unit = "systemctl show --property=ActiveState --value airflow-worker.service"
    asked = workers[FIRST]
    wait_for("the worker to be told to stop", lambda: asked.check(unit).strip() == "deactivating", 120)
    executions.may_end()
    stopping.wait(600).succeeded()

    for worker in workers.values():
        assert worker.containers() == {}
        assert worker.run("systemctl is-enabled airflow-worker.service").stdout.strip() == "disabled"
    assert platform.containers() == {}

    control.run("site.yml", with_workers, seconds=900).succeeded()
    platform.wait_until_healthy()
    for worker in workers.values():
        worker.wait_until_healthy()
        assert worker.run("systemctl is-enabled airflow-worker.service").stdout.strip() == "enabled"
    executions.wait_for_end(run, 60)
    executions.check_once(run, 1)


@when_asked
@pytest.mark.usefixtures("healthy")
def test_worker_that_does_not_answer_keeps_the_main_host_from_nothing(
    platform: Platform, control: ControlNode, with_workers: str, worker: WorkerHost
) -> None:
    """It is said which, and what to run there. About 4 minutes with the start."""
    docker("pause", worker.container)
    try:
        said = f"The worker on {FIRST} was not stopped: .*systemctl disable --now airflow-worker"
        control.run("playbooks/stop.yml", with_workers).failed(said)
        assert platform.containers() == {}
    finally:
        docker("unpause", worker.container)
    assert worker.containers(), "it was stopped, although nobody could reach it"
    control.run("site.yml", with_workers, seconds=900).succeeded()
    platform.wait_until_healthy()
    worker.wait_until_healthy()
