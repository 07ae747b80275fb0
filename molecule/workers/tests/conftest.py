"""The main host of the scenario `delivery`, and the hosts for workers beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

MOLECULE = Path(__file__).resolve().parents[2]
DAGS = MOLECULE / "workers" / "dags"
sys.path += [str(MOLECULE / scenario / "tests") for scenario in ("shared", "delivery", "upgrade")]

from airflow_api import AirflowApi, wait_for  # noqa: E402 - what these import is there only now
from control_node import SETTINGS, ControlNode  # noqa: E402
from delivery import Delivery  # noqa: E402
from executions import Executions  # noqa: E402
from other_suites import take_fixtures  # noqa: E402
from platform_host import Platform  # noqa: E402
from worker_host import FIRST, NAMES, WorkerHost  # noqa: E402

from tests.releases import NEWEST  # noqa: E402

DAG_IDS = ("workers-tour", "workers-wait", "workers-count-atd-worker01", "workers-count-any-worker")


def pytest_configure(config: pytest.Config) -> None:
    """Take the fixtures of the scenario `delivery`, which takes those of the shared suite."""
    take_fixtures(config, "delivery")


@pytest.fixture(scope="session")
def workers() -> dict[str, WorkerHost]:
    """Each host for workers, by its name."""
    return {name: WorkerHost(name) for name in NAMES}


@pytest.fixture(scope="session")
def worker(workers: dict[str, WorkerHost]) -> WorkerHost:
    """The one that is there always."""
    return workers[FIRST]


@pytest.fixture(params=NAMES)
def each_worker(request: pytest.FixtureRequest, workers: dict[str, WorkerHost]) -> WorkerHost:
    """Each of them in turn."""
    return workers[request.param]


@pytest.fixture(scope="session")
def platform(host: Host, airflow: AirflowApi, delivery: Delivery) -> Platform:
    """The main host, with the DAGs of these tests live and released."""
    platform = Platform(host, airflow, delivery.repository)
    platform.publish(
        {path.name: path.read_text() for path in sorted(DAGS.glob("*.py"))}, "Add DAGs for workers"
    )
    for dag in DAG_IDS:
        wait_for(f"Airflow to know {dag}", lambda dag=dag: platform.knows(dag), 60)
        airflow.pause(dag, False)
    return platform


@pytest.fixture
def healthy(platform: Platform, workers: dict[str, WorkerHost]) -> None:
    """Everything is healthy when a test begins that does something to a host."""
    platform.wait_until_healthy()
    for worker in workers.values():
        worker.wait_until_healthy()


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> ControlNode:
    """A copy of the project, whose inventory has this scenario's production and pins what runs."""
    control = ControlNode(tmp_path_factory.mktemp("control"))
    production = (MOLECULE / "delivery/vars/production.yml").read_text()
    (control.project / SETTINGS).write_text(f"{production}airflow_version: {NEWEST}\n")
    return control


@pytest.fixture(scope="session")
def with_workers() -> str:
    """The argument of a playbook that adds the hosts for workers to the inventory."""
    return f"--inventory=.sandbox/{os.environ['SANDBOX_INSTANCE']}/workers.yml"


@pytest.fixture
def executions(platform: Platform, workers: dict[str, WorkerHost]) -> Iterator[Executions]:
    """The tasks that write down each of their executions; what a test leaves running may end."""
    executions = Executions(platform, [platform.host, *(worker.host for worker in workers.values())])
    yield executions
    executions.may_end()
