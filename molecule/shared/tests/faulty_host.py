"""The platform while something happens to its host: what it says, and a DAG whose task ends when it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from airflow_api import AirflowApi, wait_for
from expected import DIRECTORY, PROJECT, SERVICES
from testinfra.host import Host

BACK_SECONDS = 60
AWAY_SECONDS = 15
"""For so long a Redis that was killed is away."""
CONSUMES_SECONDS = 120
"""Within so long after that a worker has run a task, by itself or by a restart."""

DAG = "fault"
FOLDER = f"{DIRECTORY}/trees/working-copy/dags"
MAY_END = "logs/fault-may-end"
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

    def make_tasks_wait(self) -> None:
        """Have tasks that begin from now on work until `let_end`."""
        self.check(f"rm -f {MAY_END}")

    def run_task(self, seconds: float) -> None:
        """Trigger a run, and wait until its task has ended well."""
        self.let_end()
        run: str = self.airflow.call("POST", f"dags/{DAG}/dagRuns", json={})["dag_run_id"]
        self.airflow.pause(DAG, False)
        wait_for("a task to be run", lambda: self.state(run) == "success", seconds)


@contextmanager
def killed_redis(check: Callable[[str], str]) -> Iterator[None]:
    """Have it killed; Docker takes that for a stop by hand, and leaves it so."""
    redis = check("docker compose ps --all --quiet redis").strip()
    check(f"docker kill {redis}")
    try:
        yield
    finally:
        check(f"docker start {redis}")


@contextmanager
def with_dag_file(platform: Platform, dag: str, source: str) -> Iterator[None]:
    """Have a DAG on the platform for a while; Airflow knows it then."""
    file = f"{FOLDER}/{dag}.py"
    platform.check(f"printf %s %s > {file}", "%s", source)
    query = f"SELECT 1 FROM dag JOIN serialized_dag USING (dag_id) WHERE dag_id = '{dag}' AND is_active"
    try:
        wait_for("Airflow to know the DAG", lambda: platform.sql(query), 60)
        yield
    finally:
        platform.check(f"rm -f {file}")


@contextmanager
def with_dag(host: Host, airflow: AirflowApi) -> Iterator[Platform]:
    """Have the DAG whose task ends when it may on the platform for a while."""
    platform = Platform(host, airflow)
    with with_dag_file(platform, DAG, SOURCE):
        yield platform
    platform.check(f"rm -f {MAY_END}")
