"""The services of the stack: there, well, and set up to stay so without anybody looking after them."""

from __future__ import annotations

from typing import Any

import pytest
from expected import DIRECTORY, SERVICES
from testinfra.host import Host

Containers = dict[str, dict[str, Any]]
every_service = pytest.mark.parametrize("service", SERVICES)


def test_there_are_exactly_the_expected_services(containers: Containers) -> None:
    """A container that nobody expects has a privilege that nobody checks."""
    assert set(containers) == set(SERVICES)


@every_service
def test_service_is_running_and_healthy(containers: Containers, service: str) -> None:
    """Its own health check says so, not only the process list."""
    state = containers[service]["State"]
    assert (state["Status"], state["Health"]["Status"]) == ("running", "healthy"), state["Health"]["Log"][-1:]


@every_service
def test_service_has_a_health_check_with_limits(containers: Containers, service: str) -> None:
    """A check that never times out, or never gives up, reports nothing."""
    check = containers[service]["Config"]["Healthcheck"]
    assert check["Test"][0] in ("CMD", "CMD-SHELL")
    assert 0 < check["Timeout"] < check["Interval"]
    assert check["Retries"] > 0
    assert check["StartPeriod"] > 0


@every_service
def test_service_that_ends_is_started_again(containers: Containers, service: str) -> None:
    """No operator is there at night; but what a switch has stopped stays so, also through a power cut."""
    assert containers[service]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@every_service
def test_log_is_rotated(containers: Containers, service: str) -> None:
    """A log without limits fills the disk of the database beside it."""
    log = containers[service]["HostConfig"]["LogConfig"]
    assert log == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}


@every_service
def test_start_is_ordered(containers: Containers, service: str) -> None:
    """A service starts once those that it cannot do without are healthy, not merely started."""
    label = containers[service]["Config"]["Labels"]["com.docker.compose.depends_on"]
    found = dict(entry.split(":")[:2] for entry in label.split(",") if entry)
    assert found == SERVICES[service].depends_on


@every_service
def test_stop_leaves_time_to_finish(containers: Containers, service: str) -> None:
    """Postgres needs a moment to write, and a worker minutes to finish the tasks it runs."""
    assert containers[service]["Config"].get("StopTimeout") == SERVICES[service].stop_seconds


def test_worker_shuts_down_warmly(containers: Containers) -> None:
    """Only Celery's parent may get the signal: sent to the whole group, it ends the tasks at once."""
    worker = containers["airflow-worker"]["Config"]
    assert "DUMB_INIT_SETSID=0" in worker["Env"]
    assert worker["Entrypoint"] == ["/usr/bin/dumb-init", "--"]
    command = ["airflow", "celery", "worker", "--pid", "/run/airflow/worker.pid"]
    assert worker["Cmd"] == [*command, "--without-mingle", "--without-gossip"]


def test_engine_starts_at_boot(host: Host) -> None:
    """Restart policies are only as good as the Docker that carries them out."""
    assert host.service("docker").is_enabled
    assert host.service("docker").is_running


def test_unit_keeps_the_stack_running(host: Host) -> None:
    """It starts at boot what should run, and stops it in order at shutdown."""
    assert host.service("airflow.service").is_enabled
    assert host.service("airflow.service").is_running


def test_host_shuts_down_as_patiently_as_a_worker(host: Host) -> None:
    """Each service has its own time to end; systemd cuts none of it short."""
    limit = host.check_output("systemctl show airflow.service --property TimeoutStopUSec --value")
    assert limit == "infinity"


def test_nothing_on_the_host_failed(host: Host) -> None:
    """A unit that failed at boot is a surprise for the next one."""
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_compose_project_is_what_runs(host: Host) -> None:
    """Compose has nothing to change: the files on the host describe the running containers."""
    plan = host.run(f"cd {DIRECTORY} && docker compose --dry-run --progress plain up --detach 2>&1")
    assert plan.rc == 0, plan.stdout
    assert "Recreate" not in plan.stdout
    assert "Create" not in plan.stdout
