"""Callbacks that run in the scheduler's DAG processor alert people with nothing but what that has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sandbox import slack
from tests.missing import missing
from tests.policy.conftest import ROOT, VERSIONS, Rendered
from tests.served import served

DAG = """
from pendulum import datetime
from airflow.decorators import task
from airflow.models.dag import DAG
from utils.slack_operator import task_fail_slack_alert

start = datetime(2026, 1, 1)

with DAG("nightly", start_date=start, schedule=None, on_failure_callback=task_fail_slack_alert):
    @task(on_failure_callback=task_fail_slack_alert)
    def load():
        pass

    load()
"""

# What the scheduler hands to its DAG processor: a run that failed, and a task whose process is gone.
PROCESS = """
import logging, os, sys
from airflow.callbacks.callback_requests import DagCallbackRequest, TaskCallbackRequest
from airflow.dag_processing.processor import DagFileProcessor
from airflow.models import DagBag
from airflow.models.taskinstance import SimpleTaskInstance
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from pendulum import datetime

initdb()
folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
file = os.path.join(folder, "nightly.py")
bag = DagBag(folder, include_examples=False)
dag = bag.get_dag("nightly")
bag.sync_to_db()
with create_session() as session:
    day = datetime(2026, 7, 1)
    run = dag.create_dagrun(
        run_id="one", state=DagRunState.FAILED, execution_date=day, data_interval=(day, day), session=session
    )
    ti = run.get_task_instance("load", session=session)
    ti.state = TaskInstanceState.RUNNING
    session.flush()
    requests = {
        "dag": DagCallbackRequest(file, "nightly", "one", folder, msg="task_failure"),
        "zombie": TaskCallbackRequest(file, SimpleTaskInstance.from_ti(ti), msg="zombie"),
    }
DagFileProcessor([], folder, logging.getLogger("processor")).process_file(file, [requests[sys.argv[1]]])
"""


@pytest.fixture
def slack_url() -> Iterator[str]:
    """Slack's stand-in."""
    with served(slack.create_app()) as url:
        yield url


def scheduler_environment(files: Rendered, secrets: dict[str, str], address: str) -> dict[str, str]:
    """Return what Compose gives the scheduler, with `address` for the secret that is Slack's."""
    service = yaml.safe_load(files["srv/airflow/docker-compose.yaml"])["services"]["airflow-scheduler"]
    environment = {name: str(value) for name, value in service["environment"].items()}
    for path in service["env_file"]:
        for line in files[f"srv/airflow/{path}"].splitlines():
            name, assigned, value = line.partition("=")
            if assigned and not line.startswith("#"):
                environment[name] = value.strip("'").replace(secrets["slack_webhook_url"], address)
    return environment


@pytest.mark.parametrize("kind", ["dag", "zombie"])
@pytest.mark.parametrize("version", VERSIONS)
def test_callback_in_the_dag_processor_reaches_slack(
    rendered: dict[str, Rendered],
    secrets: dict[str, str],
    slack_url: str,
    tmp_path: Path,
    version: str,
    kind: str,
) -> None:
    """The two that no worker runs. The database is this test's own; all else is the scheduler's."""
    python = ROOT / f".cache/airflow-{version}/bin/python"
    if not python.exists():
        missing(f"bin/test makes .cache/airflow-{version}")
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "nightly.py").write_text(DAG)
    (dags / "utils").symlink_to(ROOT / "dags/utils")
    given = scheduler_environment(rendered[f"packages {version}"], secrets, f"{slack_url}/services/T/B/X")
    ran = subprocess.run(
        [str(python), "-c", PROCESS, kind],
        env={
            **given,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "images/airflow/lib"),
            "ENVIRONMENT": "production",
            "HOME": str(tmp_path),
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    messages: list[dict[str, Any]] = httpx.get(f"{slack_url}/messages", timeout=30).json()
    assert len(messages) == 1, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert "*DAG*: nightly" in messages[0]["payload"]["text"]
