"""A worker is killed while its task has a container: the container is stopped, and the filter's log says so.

About a minute. The task's own end, which Airflow notices after five minutes, is not waited for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import AirflowApi, wait_for
from faulty_host import CONSUMES_SECONDS, Platform, with_dag_file
from testinfra.host import Host

DAG = "docker-orphan"
CONTAINER = "docker-orphan-of-tests"
STOPPED_SECONDS = 60
"""The filter looks every ten seconds, and Docker gives a container ten to end. A machine may be busy."""
PROGRAM = """\
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
signal.alarm(900)
signal.pause()
"""
SOURCE = f'''\
import datetime

from airflow import DAG
from airflow.providers.docker.operators.docker import DockerOperator

with DAG("{DAG}", start_date=datetime.datetime(2024, 1, 1), schedule=None, default_args={{"retries": 0}}):
    DockerOperator(
        task_id="etl",
        image="{{{{ var.value.weather_annotate_image }}}}",
        container_name="{CONTAINER}",
        entrypoint=["python3", "-c"],
        command=[{PROGRAM!r}],
        auto_remove="success",
        mount_tmp_dir=False,
    )
'''

Json = dict[str, Any]


def inspect(host: Host, container: str) -> Json:
    """Return what Docker says of a container, nothing of one that is not there."""
    result = host.run("docker inspect %s", container)
    [found] = json.loads(result.stdout) if result.rc == 0 else [{}]
    return dict(found)


@pytest.fixture
def platform(host: Host, airflow: AirflowApi) -> Iterator[Platform]:
    """The platform with the DAG; afterwards nothing of its run is left."""
    platform = Platform(host, airflow)
    with with_dag_file(platform, DAG, SOURCE), airflow.released(DAG):
        run = airflow.call("POST", f"dags/{DAG}/dagRuns", json={})["dag_run_id"]
        yield platform
        host.run("docker rm --force %s", CONTAINER)
        platform.wait_until_back()
        # Airflow would wait five minutes for a word of the task.
        airflow.call("PATCH", f"dags/{DAG}/dagRuns/{run}", json={"state": "failed"})


def test_container_of_a_killed_worker_is_stopped(platform: Platform, host: Host) -> None:
    def running() -> bool:
        return bool(inspect(host, CONTAINER).get("State", {}).get("Running"))

    wait_for("the container to run", running, 120)
    made = inspect(host, CONTAINER)
    before = inspect(host, platform.check("docker compose ps --quiet airflow-worker"))
    labels = made["Config"]["Labels"]
    assert labels["airflow.made-by"] == f"{before['Id'][:12]}@{before['State']['StartedAt']}"
    assert labels["airflow.task"] == f"{DAG}/etl"

    # By the host, because Docker would take a kill of its own for a stop by hand.
    host.check_output("kill -KILL %s", str(before["State"]["Pid"]))
    wait_for("the container to be stopped", lambda: not running(), STOPPED_SECONDS)
    assert inspect(host, CONTAINER)["State"]["ExitCode"] == 7, "it was killed"

    def healthy() -> bool:
        state = inspect(host, before["Id"])["State"]
        is_another = state["StartedAt"] != before["State"]["StartedAt"]
        return bool(is_another and state["Health"]["Status"] == "healthy")

    wait_for("the worker to be back", healthy, CONSUMES_SECONDS)
    # Not of Compose, which puts a terminal's codes between the lines.
    log = platform.check("docker logs --tail 1000 $(docker compose ps --quiet docker-socket-proxy) 2>&1")
    lines = [json.loads(line) for line in log.splitlines() if '"event": "orphan"' in line]
    said = [line for line in lines if line["container"] == CONTAINER]
    assert [(line["dag"], line["task"], line["status"]) for line in said] == [(DAG, "etl", 204)]
