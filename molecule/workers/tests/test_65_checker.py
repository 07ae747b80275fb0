"""The checker of a worker host: it finds faults, tells Slack, and restarts a worker that is stuck."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow_api import wait_for
from checker_on_host import Checker
from expected import DIRECTORY
from long_tests import when_asked
from platform_host import Platform
from test_checker import PRIVATE, found
from worker_host import CONSUMES_SECONDS, SERVICES, WorkerHost

pytestmark = pytest.mark.usefixtures("healthy")

TOLD_SECONDS = 180
"""A fault is told when it has stood for a minute, by a look every 30 seconds."""


@pytest.fixture
def its_checker(
    worker: WorkerHost, http: Callable[..., Any], env_files: dict[str, dict[str, str]]
) -> Checker:
    """That of the worker host; its messages go where the main host's go."""
    address = urlsplit(env_files["checker.env"]["SLACK_WEBHOOK_URL"])
    return Checker(worker.host, http, f"{address.scheme}://{address.netloc}")


def test_timer_is_on(each_worker: WorkerHost) -> None:
    timer = each_worker.host.service("airflow-checker.timer")
    assert timer.is_enabled
    assert timer.is_running


@pytest.mark.parametrize("path", PRIVATE)
def test_what_it_keeps_is_for_root_alone(worker: WorkerHost, path: str) -> None:
    file = worker.host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", PRIVATE[path])


def test_it_tells_slack_and_does_not_call_the_heartbeat(
    each_worker: WorkerHost, env_files: dict[str, dict[str, str]]
) -> None:
    """A call would say that the main host lives."""
    lines = each_worker.host.file(f"{DIRECTORY}/env/checker.env").content_string.splitlines()
    assert f"SLACK_WEBHOOK_URL='{env_files['checker.env']['SLACK_WEBHOOK_URL']}'" in lines
    assert "HEARTBEAT_URL=''" in lines


def test_worker_is_well(worker: WorkerHost, its_checker: Checker) -> None:
    """Confined as the unit is, it sees its services, its certificate and the main host behind the tunnel."""

    def nothing_found() -> bool:
        its_checker.look()
        return found(its_checker.health) == set()

    # On a busy machine a health check may not end in time; the next one, within 30 s, does.
    wait_for("the checker to find nothing", nothing_found, 90)
    document = its_checker.health
    assert document["host"] == worker.name
    assert {row["name"] for row in document["services"]} == SERVICES
    assert {(row["state"], row["health"]) for row in document["services"]} == {("running", "healthy")}
    assert document["figures"]["disks"]
    assert document["figures"]["refusals"] is not None
    [shown] = document["figures"]["workers"]
    assert (shown["slots"], worker.name in shown["queues"]) == (4, True)


def test_command_is_one_screen(worker: WorkerHost, its_checker: Checker) -> None:
    its_checker.look()
    overall = its_checker.health["overall"]
    done = worker.host.run("cd /tmp && airflow-checker status")
    assert done.rc == (0 if overall == "ok" else 2)
    assert done.stdout.startswith(f"{overall}: the platform is running")
    assert "database" not in done.stdout
    assert json.loads(worker.host.run("airflow-checker status --json").stdout)["schema"] == 1


@contextmanager
def stopped(worker: WorkerHost, service: str) -> Iterator[None]:
    """A service that somebody stopped by hand."""
    worker.compose(f"stop {service} 2>&1")
    try:
        yield
    finally:
        worker.compose(f"up --detach --no-deps --wait {service} 2>&1")


@when_asked
def test_stopped_service_is_found_and_told(worker: WorkerHost, its_checker: Checker) -> None:
    """By a message with the name of the worker's host."""
    began = datetime.now(UTC)
    with stopped(worker, "log-copy"):
        its_checker.look()
        assert ("service-down", "log-copy") in its_checker.found()
        told = wait_for(
            "a message of the checker", lambda: its_checker.messages(began, "log-copy"), TOLD_SECONDS
        )
    assert any(f" {worker.name}*" in text for text in told), told
    its_checker.look()
    assert ("service-down", "log-copy") not in its_checker.found()


def test_stopped_timer_is_found(worker: WorkerHost, its_checker: Checker) -> None:
    """Its own: a look that somebody asks for says so."""
    worker.host.check_output("systemctl stop airflow-checker.timer")
    try:
        its_checker.look()
        assert ("timer-off", "airflow-checker.timer") in its_checker.found()
    finally:
        worker.host.check_output("systemctl start airflow-checker.timer")
    its_checker.look()
    assert ("timer-off", "airflow-checker.timer") not in its_checker.found()


def test_edited_file_is_found(worker: WorkerHost, its_checker: Checker) -> None:
    """Until it is as it was."""
    file = f"{DIRECTORY}/tunnel/haproxy.cfg"
    worker.host.check_output(f"cp --preserve=all {file} /tmp/as-it-was && echo '# by hand' >> {file}")
    try:
        its_checker.look()
        assert ("files-differ", file) in its_checker.found()
    finally:
        worker.host.check_output(f"cp --preserve=all /tmp/as-it-was {file}")
    its_checker.look()
    assert ("files-differ", file) not in its_checker.found()


def test_main_host_that_lets_nobody_in_is_found(
    worker: WorkerHost, its_checker: Checker, platform: Platform
) -> None:
    """The worker's own illness follows from it, and nothing is restarted."""
    platform.check("docker compose stop worker-gateway 2>&1")
    try:
        its_checker.look()
        assert ("main-host-silent", "") in its_checker.found()
    finally:
        platform.check("docker compose start worker-gateway 2>&1")

    def over() -> bool:
        its_checker.look()
        return ("main-host-silent", "") not in its_checker.found()

    wait_for("the main host to be seen again", over, 60)


CANCEL = """
import os, socket
from celery import Celery
app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
name = f"celery@{socket.gethostname()}"
for queue in app.control.inspect([name]).active_queues()[name]:
    app.control.cancel_consumer(queue["name"], destination=[name], reply=True)
"""
"""What a lost connection does to a worker of Airflow 2.5.3."""


@when_asked
def test_worker_that_consumes_nothing_is_restarted(worker: WorkerHost) -> None:
    """It runs no task, so nothing is lost."""
    before = worker.containers()["airflow-worker"]["State"]["StartedAt"]
    done = worker.inside(CANCEL)
    assert done.rc == 0, done.stderr

    def again() -> bool:
        return bool(worker.containers().get("airflow-worker", {}).get("State", {}).get("StartedAt") != before)

    wait_for("the checker to restart the worker", again, CONSUMES_SECONDS)
    worker.wait_until_healthy()


@when_asked
def test_worker_that_was_told_to_take_no_tasks_is_let_be(
    worker: WorkerHost, its_checker: Checker, platform: Platform
) -> None:
    """Docker finds it unhealthy; the checker finds in Redis why. About a minute and a half."""
    before = worker.containers()["airflow-worker"]["State"]["StartedAt"]
    platform.check(f"airflow-release drain-worker {worker.name}")
    try:
        wait_for(
            "the health check to fail",
            lambda: worker.containers()["airflow-worker"]["State"]["Health"]["Status"] == "unhealthy",
            CONSUMES_SECONDS,
        )
        for _ in range(2):
            its_checker.look()
            assert ("service-unhealthy", "airflow-worker") not in its_checker.found()
        assert worker.containers()["airflow-worker"]["State"]["StartedAt"] == before
    finally:
        worker.compose("restart airflow-worker 2>&1")
        worker.wait_until_healthy()
