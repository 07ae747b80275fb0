"""The checker on the host: it looks by itself, costs little, finds faults, restarts what stays unhealthy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from expected import DIRECTORY, SERVICES, WORKERS
from testinfra.host import Host

HEALTH = f"{DIRECTORY}/status/health.json"
PRIVATE = {
    "/etc/airflow-checker": 0o700,
    "/etc/airflow-checker/settings.json": 0o600,
    f"{DIRECTORY}/env/checker.env": 0o600,
    "/var/lib/airflow-checker": 0o700,
    "/var/lib/airflow-checker/memory.json": 0o600,
    "/var/lib/airflow-checker/rendered.json": 0o600,
}
OF_THE_MACHINE = {
    *("disk-low", "disk-full", "inodes-low", "clock-not-synchronised"),
    *("reboot-pending", "security-updates", "service-restarts", "unit-restarted", "host-restarted"),
}
"""Lights of the machine that the tests run on, and of what earlier tests did."""

Check = Callable[[], dict[str, Any]]


@pytest.fixture
def check(host: Host) -> Check:
    """Return a function that has the unit look once, and returns what it wrote."""

    def look() -> dict[str, Any]:
        result = host.run("systemctl start airflow-checker.service")
        assert result.rc == 0, host.check_output("journalctl --no-pager --unit=airflow-checker --lines=50")
        document: dict[str, Any] = json.loads(host.file(HEALTH).content_string)
        return document

    return look


def found(document: dict[str, Any]) -> set[tuple[str, str]]:
    """The findings that are the platform's."""
    return {
        (finding["id"], finding["subject"])
        for finding in document["findings"]
        if finding["id"] not in OF_THE_MACHINE
    }


def test_timer_is_on(host: Host) -> None:
    timer = host.service("airflow-checker.timer")
    assert timer.is_enabled
    assert timer.is_running


@pytest.mark.parametrize("path", PRIVATE)
def test_what_it_keeps_is_for_root_alone(host: Host, path: str) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", PRIVATE[path])


def test_result_is_for_the_webhook_to_read(host: Host, secrets: dict[str, str]) -> None:
    file = host.file(HEALTH)
    assert file.mode == 0o644
    assert [name for name, value in secrets.items() if value in file.content_string] == []


def test_platform_is_well(check: Check) -> None:
    """Confined as the unit is, it sees everything that it has to."""
    document = check()
    assert found(document) == set(), document["findings"]
    assert {row["name"] for row in document["services"]} == set(SERVICES)
    assert {(row["state"], row["health"]) for row in document["services"]} == {("running", "healthy")}
    figures = document["figures"]
    assert figures["database_bytes"] > 0
    assert "default" in figures["queues"]
    assert figures["refusals"] is not None
    assert figures["disks"]
    assert {worker["service"]: worker["queues"] for worker in figures["workers"]} == WORKERS
    # The smoke test has run a DAG.
    assert len(figures["hours"]) == 24
    assert sum(hour["succeeded"] for hour in figures["hours"]) > 0


def test_look_is_cheap(host: Host, check: Check) -> None:
    """Every 30 seconds and less than 1 % of a processor; the first look of all asks Compose, too."""
    check()
    environment = f"set -a; . {DIRECTORY}/env/checker.env; STATE_DIRECTORY=/var/lib/airflow-checker"
    timed = host.run(f"bash -c '{environment}; TIMEFORMAT=\"%U %S\"; time airflow-checker check'")
    assert timed.rc == 0, timed.stderr
    assert sum(map(float, timed.stderr.split()[-2:])) < 0.3


def test_look_needs_little_memory(host: Host, check: Check) -> None:
    """30 MiB, without the processes of Compose and apt, which it starts now and then."""
    check()
    settings = f"set -a; . {DIRECTORY}/env/checker.env"
    look = "from airflow_checker.cli import main; main(['check'])"
    peak = "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    python = f'PYTHONPATH=/usr/local/lib/airflow-checker python3 -B -c "{look}; {peak}"'
    done = host.run("bash -c %s", f"{settings}; {python}")
    assert done.rc == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 30 * 1024


def test_command_is_one_screen(host: Host, check: Check) -> None:
    """Exit code 2 says that something needs a look; on this machine the disk may."""
    overall = check()["overall"]
    done = host.run("cd /tmp && airflow-checker status")
    assert done.rc == (0 if overall == "ok" else 2)
    assert done.stdout.startswith(f"{overall}: the platform is running")
    assert len(done.stdout.splitlines()) < 60
    assert json.loads(host.run("airflow-checker status --json").stdout)["schema"] == 1


def test_status_page_says_the_same(
    http: Any, endpoints: dict[str, str], metrics: Callable[[], str], check: Check
) -> None:
    overall = check()["overall"]
    page = http("GET", endpoints["webhook"], headers={"Accept": "application/json"}).json()
    assert page["health"]["overall"] == overall
    lines = metrics().splitlines()
    level = {"ok": 0, "warning": 1, "critical": 2}[overall]
    assert f"airflow_platform_health {level}.0" in lines
    assert 'airflow_platform_service_up{service="airflow-worker"} 1.0' in lines


@pytest.fixture
def stopped(host: Host) -> Iterator[str]:
    """A service that somebody stopped by hand."""
    compose = f"docker compose --project-directory {DIRECTORY}"
    host.check_output(f"{compose} stop weather 2>&1")
    yield "weather"
    host.check_output(f"{compose} up --detach --no-deps --wait weather 2>&1")


def test_stopped_service_is_found(
    check: Check, stopped: str, http: Any, endpoints: dict[str, str], host: Host
) -> None:
    document = check()
    assert ("service-down", stopped) in found(document)
    assert document["overall"] == "critical"
    page = http("GET", endpoints["webhook"], headers={"Accept": "application/json"}).json()
    assert any("weather" in line for line in page["attention"])
    assert host.run("airflow-checker status").rc == 2


def test_queue_that_nobody_consumes_is_found(host: Host, check: Check) -> None:
    """Until nothing waits in it any more."""
    redis = f"docker compose --project-directory {DIRECTORY} exec -T redis redis-cli"
    fault = ("queue-without-worker", "of-nobody")
    host.check_output(f"{redis} LPUSH of-nobody '{{}}'")
    try:
        document = check()
        assert fault in found(document)
        assert document["figures"]["queues"]["of-nobody"] == 1
        assert set(document["figures"]["unconsumed"]) == {"of-nobody"}
    finally:
        host.check_output(f"{redis} DEL of-nobody")
    assert fault not in found(check())


def test_disabled_timer_is_found(host: Host, check: Check) -> None:
    """Until it is on again."""
    timer = "airflow-clean.timer"
    host.check_output(f"systemctl disable --now {timer} 2>&1")
    try:
        assert ("timer-off", timer) in found(check())
    finally:
        host.check_output(f"systemctl enable --now {timer} 2>&1")
    assert ("timer-off", timer) not in found(check())


@pytest.mark.parametrize("file", [f"{DIRECTORY}/weather/nginx.conf", "/usr/local/bin/dag-sync"])
def test_edited_file_is_found(host: Host, check: Check, file: str) -> None:
    """Until it is as it was."""
    host.check_output(f"cp --preserve=all {file} /tmp/as-it-was && echo '# by hand' >> {file}")
    try:
        assert ("files-differ", file) in found(check())
    finally:
        host.check_output(f"cp --preserve=all /tmp/as-it-was {file}")
    assert ("files-differ", file) not in found(check())
