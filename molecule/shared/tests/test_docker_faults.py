"""Docker, containerd or the host dies while a task runs: all is back within a minute, and nobody helps.

A fault takes about a minute. With UPGRADE_TESTS=all there are more of them, and the end of a task whose host
lost its power, which Airflow gives up when it has not been heard of for five minutes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import requests
from airflow_api import AirflowApi, wait_for
from expected import DIRECTORY, PROJECT, SERVICES
from long_tests import when_asked
from testinfra.host import Host

BACK_SECONDS = 60
ENDS_WITHOUT_NAMES = {"airflow-scheduler", "airflow-triggerer"}
"""What connects to Postgres while Docker is away, which resolves names, may end; it is started again."""
ZOMBIE_SECONDS = 420
"""Airflow's own 300 s, and a look every ten."""

DAG = "docker-fault"
FILE = f"{DIRECTORY}/trees/working-copy/dags/docker_fault.py"
MAY_END = "logs/docker-fault-may-end"
SOURCE = f'''\
import datetime
import pathlib
import time

from airflow import DAG
from airflow.operators.python import PythonOperator


def work():
    """Work until somebody lets it end."""
    deadline = time.monotonic() + 900
    while not pathlib.Path("/opt/airflow/{MAY_END}").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let it end")
        time.sleep(0.5)


with DAG("{DAG}", start_date=datetime.datetime(2024, 1, 1), schedule=None):
    PythonOperator(task_id="work", python_callable=work, retries=0)
'''


@dataclass(frozen=True)
class Platform:
    """The host, and what is asked of it when it may be away for a moment."""

    host: Host
    airflow: AirflowApi

    def check(self, command: str, *arguments: str) -> str:
        """Run a shell command in the platform's directory, each %s an argument."""
        return str(self.host.check_output(f"cd {DIRECTORY} && {command}", *arguments)).strip()

    def sql(self, query: str) -> str:
        """Ask the metadata database."""
        psql = "psql --username=airflow --dbname=airflow --no-psqlrc -qtA --command=%s"
        return self.check(f"timeout 60 docker compose exec --no-TTY postgres {psql}", query)

    def services(self, *filters: str) -> set[str]:
        """Return the services of the containers that these filters of Docker leave; none while it is away."""
        options = " ".join(
            f"--filter {one}" for one in (f"label=com.docker.compose.project={PROJECT}", *filters)
        )
        form = '{{.Label "com.docker.compose.service"}}'
        return set(self.host.run(f"timeout 20 docker ps {options} --format %s", form).stdout.split())

    def starts(self) -> dict[str, str]:
        """Return when each container was started."""
        form = '{{index .Config.Labels "com.docker.compose.service"}}={{.State.StartedAt}}'
        listed = f"docker ps --quiet --filter label=com.docker.compose.project={PROJECT}"
        lines = self.check(f"{listed} | xargs docker inspect --format %s", form).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_until_back(self) -> None:
        """Wait until every service is healthy, Docker can enter containers, and Airflow answers."""
        wait_for(
            "every service to be healthy",
            lambda: self.services("health=healthy") == set(SERVICES),
            BACK_SECONDS,
        )
        enter = f"cd {DIRECTORY} && timeout 20 docker compose exec --no-TTY postgres true"
        wait_for("Docker to enter a container", lambda: self.host.run(enter).rc == 0, 20)
        wait_for("Airflow to answer", self._answers, 20)

    def _answers(self) -> bool:
        try:
            return bool(self.airflow.get("version"))
        except requests.RequestException:
            return False

    def begin_task(self) -> str:
        """Trigger a run; return its id once its task runs."""
        run: str = self.airflow.call("POST", f"dags/{DAG}/dagRuns", json={})["dag_run_id"]
        # Outside production the scheduler pauses every DAG when it starts.
        self.airflow.pause(DAG, False)
        wait_for("the task to run", lambda: self.state(run) in ("running", "success"), 60)
        return run

    def state(self, run: str) -> str:
        """Return the state of a run's task, "" before it has one."""
        return self.sql(f"SELECT state FROM task_instance WHERE dag_id = '{DAG}' AND run_id = '{run}'")

    def let_end(self) -> None:
        """Let every task end, now and later."""
        self.check(f"touch {MAY_END}")


@dataclass(frozen=True)
class Fault:
    """Something that happens to the host, and what it means for containers and tasks."""

    happens: Callable[[Platform], None]
    survived: bool = True
    """Whether the containers go on, and the task in one of them."""
    state: str = "running"
    """The task's state when all is back."""


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


FAULTS = {
    "dockerd killed": Fault(on_the_host(killed("docker.service"))),
    "containerd killed": Fault(on_the_host(killed("containerd.service"))),
    "Docker stopped and started": Fault(
        on_the_host("systemctl stop docker.socket docker.service && systemctl start docker.service")
    ),
    "Docker restarted": Fault(on_the_host("systemctl restart docker.service")),
    "both killed": Fault(on_the_host(f"{killed('containerd.service')} & {killed('docker.service')}; wait")),
    "reboot": Fault(reboot, survived=False, state="success"),
    "power cut": Fault(cut_the_power, survived=False),
}
BY_DEFAULT = {"dockerd killed", "power cut"}
"""`default` reboots the host anyway."""


@pytest.fixture(scope="module")
def known(host: Host, airflow: AirflowApi) -> Iterator[Platform]:
    """The platform with a DAG whose task ends when it may."""
    platform = Platform(host, airflow)
    platform.check(f"printf %s %s > {FILE}", "%s", SOURCE)
    query = f"SELECT 1 FROM dag JOIN serialized_dag USING (dag_id) WHERE dag_id = '{DAG}' AND is_active"
    wait_for("Airflow to know the DAG", lambda: platform.sql(query), 60)
    yield platform
    platform.check(f"rm -f {FILE} {MAY_END}")


@pytest.fixture
def platform(known: Platform) -> Iterator[Platform]:
    """The same, healthy; what a test leaves running may end."""
    known.wait_until_back()
    known.check(f"rm -f {MAY_END}")
    yield known
    known.let_end()


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name in BY_DEFAULT else [when_asked]) for name in FAULTS]
)
def test_everything_is_back_within_a_minute(platform: Platform, fault: str) -> None:
    """What survives has not even been restarted, and no task is lost that need not be."""
    run = platform.begin_task()
    before = platform.starts()
    FAULTS[fault].happens(platform)
    platform.wait_until_back()
    after = platform.starts()
    others = {service for service in SERVICES if after[service] != before[service]}
    assert others <= ENDS_WITHOUT_NAMES if FAULTS[fault].survived else others == set(SERVICES)
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


def test_what_the_unit_stopped_stays_stopped(platform: Platform) -> None:
    """Whatever Docker does meanwhile; stop.yml does the same, and disables it. About a minute."""
    platform.check("systemctl stop airflow.service")
    assert platform.services() == set()
    platform.check("systemctl restart docker.service")
    platform.check("systemctl start airflow.service")
    platform.wait_until_back()
    journal = platform.check("journalctl --unit airflow.service --output cat --lines 20").splitlines()
    started = next(line for line in reversed(journal) if "not running, and started now" in line)
    assert set(started.partition(":")[0].split(", ")) == set(SERVICES), "what Docker had not started before"


def test_docker_has_both_an_operators_settings_and_ours(host: Host) -> None:
    """The host had a daemon.json before (prepare.yml), with a label and another log driver."""
    form = "{{.LiveRestoreEnabled}} {{.Labels}} {{.LoggingDriver}}"
    assert host.check_output("docker info --format %s", form) == "true [rack=7] json-file"
