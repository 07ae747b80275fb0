"""Docker, containerd or the host dies while a task runs: all is back within a minute, and nobody helps.

The checker tells it in one message; what somebody restarts in good order is not told.

A fault takes about a minute. With UPGRADE_TESTS=all there are more of them, and the end of a task whose host
lost its power, which Airflow gives up when it has not been heard of for five minutes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from airflow_api import AirflowApi, wait_for
from checker_on_host import Checker
from expected import SERVICES
from faulty_host import Platform, with_dag
from long_tests import when_asked
from operator_commands import playbook
from testinfra.host import Host

MAY_END = {"airflow-scheduler", "airflow-triggerer", "docker-socket-proxy"}
"""What connects to Postgres while Docker is away, which resolves names; and what has Docker's socket mounted,
when another one takes its place. Each is started again."""
ZOMBIE_SECONDS = 420
"""Airflow's own 300 s, and a look every ten."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to the host, and what it means for containers and tasks."""

    happens: Callable[[Platform], None]
    survived: bool = True
    """Whether the containers go on, and the task in one of them."""
    state: str = "running"
    """The task's state when all is back."""
    lights: frozenset[tuple[str, str]] = frozenset()
    """What the checker says when all is back: light and subject."""


def on_the_host(command: str) -> Callable[[Platform], None]:
    """Return what runs a command there."""

    def happens(platform: Platform) -> None:
        platform.host.check_output(command)

    return happens


def killed(unit: str) -> str:
    """Return the command that kills a unit's process, and waits until systemd knows that it is gone."""
    process = f"$(systemctl show --property=MainPID --value {unit})"
    return f"process={process} && kill -KILL $process && timeout 20 tail --pid=$process --follow /dev/null"


def outside(*command: str) -> subprocess.Popen[bytes]:
    """Begin a command of the machine that carries the host."""
    name = f"{os.environ['SANDBOX_INSTANCE']}-atd-data03"
    return subprocess.Popen(["docker", *command, name], stdout=subprocess.DEVNULL)


def cut_the_power(platform: Platform) -> None:
    """Kill every process of the host at once, and start it again."""
    for command in ("kill", "start"):
        assert outside(command).wait(60) == 0


def reboot(platform: Platform) -> None:
    """Shut the host down in good order while the task runs, which ends only after the worker was told to."""
    # `-t` is what every version of Docker's client calls it: seconds for a clean shutdown.
    restart = outside("restart", "-t", "120")
    unit = "systemctl show --property=ActiveState --value airflow.service"
    stopping = "the stack to be told to stop"
    wait_for(stopping, lambda: platform.check(unit) == "deactivating", 60, pause=0.2)
    platform.let_end()
    assert restart.wait(180) == 0


PACKAGES = "docker.io containerd docker-ce containerd.io"
"""Debian's own and Docker's; a host has either."""
UPGRADE_PACKAGES = (
    "packages=$(dpkg-query --show --showformat='${db:Status-Abbrev} ${Package}\\n'"
    f" {PACKAGES} 2>/dev/null | awk '/^ii/ {{print $2}}');"
    "DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes --quiet $packages"
)
"""The same maintainer scripts as an upgrade: they stop and start both services."""

DOCKER_DIED = ("unit-restarted", "docker.service")
CONTAINERD_DIED = ("unit-restarted", "containerd.service")
POWER_CUT = ("host-restarted", "")
WORDS = {
    DOCKER_DIED: "docker.service died",
    CONTAINERD_DIED: "containerd.service died",
    POWER_CUT: "went down without a shutdown",
}

FAULTS = {
    "dockerd killed": Fault(on_the_host(killed("docker.service")), lights=frozenset({DOCKER_DIED})),
    "containerd killed": Fault(
        on_the_host(killed("containerd.service")), lights=frozenset({CONTAINERD_DIED})
    ),
    "Docker stopped and started": Fault(
        on_the_host("systemctl stop docker.socket docker.service && systemctl start docker.service")
    ),
    "Docker restarted": Fault(on_the_host("systemctl restart docker.service")),
    "both killed": Fault(
        on_the_host(f"{killed('containerd.service')} & {killed('docker.service')}; wait"),
        lights=frozenset({DOCKER_DIED, CONTAINERD_DIED}),
    ),
    "Docker's packages upgraded": Fault(on_the_host(UPGRADE_PACKAGES)),
    "reboot": Fault(reboot, survived=False, state="success"),
    "power cut": Fault(cut_the_power, survived=False, lights=frozenset({POWER_CUT})),
}
BY_DEFAULT = {"dockerd killed", "containerd killed", "power cut"}
"""`default` reboots the host anyway."""


@pytest.fixture(scope="module")
def known(host: Host, airflow: AirflowApi) -> Iterator[Platform]:
    """The platform with a DAG whose task ends when it may."""
    with with_dag(host, airflow) as platform:
        yield platform


@pytest.fixture
def platform(known: Platform) -> Iterator[Platform]:
    """The same, healthy; what a test leaves running may end."""
    known.wait_until_back()
    known.make_tasks_wait()
    yield known
    known.let_end()


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name in BY_DEFAULT else [when_asked]) for name in FAULTS]
)
def test_everything_is_back_within_a_minute(platform: Platform, checker: Checker, fault: str) -> None:
    """What survives has not even been restarted, and no task is lost that need not be."""
    run = platform.begin_task()
    before = platform.starts()
    checker.look()
    since, earlier = datetime.now(UTC), checker.found()
    FAULTS[fault].happens(platform)
    platform.wait_until_back()
    checker.look()

    def is_said() -> bool:
        # A look that was under way may have seen less.
        checker.look()
        return (checker.found() - earlier) & set(WORDS) == FAULTS[fault].lights - earlier

    wait_for("what the checker says", is_said, 60)
    for light, words in WORDS.items():
        told = checker.messages(since, words)
        assert len(told) == (light in FAULTS[fault].lights - earlier), told
    after = platform.starts()
    others = {service for service in SERVICES if after[service] != before[service]}
    if FAULTS[fault].survived:
        assert others - MAY_END == set()
    else:
        assert others == set(SERVICES)
    assert platform.state(run) == FAULTS[fault].state
    platform.let_end()
    if FAULTS[fault].survived:
        wait_for("the task to end", lambda: platform.state(run) == "success", 60)
    following = platform.begin_task()
    wait_for("the next task to end", lambda: platform.state(following) == "success", 60)


@when_asked
def test_task_of_a_power_cut_does_not_run_for_ever(platform: Platform) -> None:
    """It has no second try, so its run fails, which alerts somebody. About seven minutes."""
    run = platform.begin_task()
    cut_the_power(platform)
    platform.wait_until_back()
    wait_for("the scheduler to give it up", lambda: platform.state(run) == "failed", ZOMBIE_SECONDS, pause=5)


@when_asked
def test_docker_starts_what_was_stopped_by_hand(platform: Platform) -> None:
    """So what a Docker without live-restore stops is back, too. About a minute."""
    platform.check("docker compose stop flower weather")
    assert set(SERVICES) - platform.services() == {"flower", "weather"}
    platform.check("systemctl restart docker.service")
    platform.wait_until_back()


def booted(host: Host) -> bool:
    """Say whether systemd has done all that a boot asks of it, which includes whatever starts the stack."""
    return host.run("timeout 20 systemctl is-system-running --wait").stdout.strip() in ("running", "degraded")


def test_what_stop_stopped_stays_stopped(platform: Platform, checker: Checker) -> None:
    """Whatever Docker and the host do meanwhile; it comes back when its unit says so again. About 90 s."""
    platform.let_end()
    playbook("playbooks/stop.yml", seconds=300)
    assert platform.services() == set()
    platform.check("systemctl restart docker.service")
    assert platform.services() == set()
    cut_the_power(platform)
    wait_for("the host to be up again", lambda: booted(platform.host), 60)
    wait_for("Docker to be up again", lambda: platform.host.run("timeout 20 docker version").rc == 0, 30)
    assert platform.services() == set()
    checker.look()
    assert checker.health["state"] == "stopped"
    said = platform.host.run("airflow-checker status")
    assert said.rc == 2
    # A machine with little disk says that in the same line.
    first = said.stdout.partition("\n")[0]
    assert first.startswith("stopped"), first
    assert first.endswith("the platform is stopped on purpose, so no task runs")
    # What site.yml does, and an operation.
    platform.check("systemctl enable --now airflow.service")
    platform.wait_until_back()
    journal = platform.check("journalctl --unit airflow.service --output cat --lines 20").splitlines()
    started = next(line for line in reversed(journal) if "not running, and started now" in line)
    assert set(started.partition(":")[0].split(", ")) == set(SERVICES), "what Docker had not started before"


def test_docker_has_both_an_operators_settings_and_ours(host: Host) -> None:
    """The host had a daemon.json before (prepare.yml), with a label and another log driver."""
    form = "{{.LiveRestoreEnabled}} {{.Labels}} {{.LoggingDriver}}"
    assert host.check_output("docker info --format %s", form) == "true [rack=7] json-file"
