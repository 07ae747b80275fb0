"""A DAG whose tasks are in the queue of a worker: they run there, and what they hand on arrives."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import AirflowApi, wait_for
from packets import Packets, captured
from platform_host import Platform
from testinfra.host import Host
from worker_host import FIRST, LOG_PORT, WORKER_PORT, WorkerHost

DAG = "workers-tour"
CONTAINER = "workers-tour"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def text() -> str:
    """What the tasks print and hand on: nobody else knows it."""
    return f"canary-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def planted() -> str:
    """What a test sends between the hosts without encryption."""
    return f"planted-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def tour(
    host: Host, platform: Platform, airflow: AirflowApi, worker: WorkerHost, text: str, planted: str
) -> Iterator[Json]:
    """A run of the DAG: tasks, logs, where its container was, and each byte that the two hosts sent."""
    worker.wait_until_healthy()
    listed = f"docker ps --quiet --filter name=^{CONTAINER}$"
    with captured(worker) as packets:
        document = {"conf": {"text": text}}
        run = airflow.call("POST", f"dags/{DAG}/dagRuns", json=document)["dag_run_id"]
        try:
            wait_for("the container to run", lambda: worker.check(listed).strip(), 120)
            on_main = host.check_output(listed)
            wait_for("its first line", lambda: worker.check(f"docker logs {CONTAINER} 2>&1"), 30)
        finally:
            worker.run(f"docker stop {CONTAINER}")
        tasks, logs = airflow.tasks_and_logs(DAG, run)
        # From the worker's host, so that it is among what goes between the two.
        send = f"exec 3<>/dev/tcp/{worker.main_address}/{WORKER_PORT} && printf %s {planted} >&3"
        worker.run("bash -c %s", send)
    yield {
        "run": run,
        "tasks": tasks,
        "logs": logs,
        "on main": on_main,
        "packets": packets,
    }
    worker.run(f"docker rm --force {CONTAINER}")


def test_every_task_ran_there(tour: Json) -> None:
    """And ended well, the mapped ones and the one in a container, too."""
    found = {
        (task["task_id"], task["map_index"]): (task["state"], task["hostname"]) for task in tour["tasks"]
    }
    names = {("say", -1), ("conclude", -1), ("contain", -1), *(("double", index) for index in range(3))}
    assert found == dict.fromkeys(names, ("success", FIRST)), tour["logs"]


def test_what_tasks_hand_on_arrives(tour: Json, text: str) -> None:
    """By XComs, which are encrypted in the database: the log of the last task has what it got."""
    assert f"On {FIRST} a task says {text}" in tour["logs"]["say"]
    assert "'total': 12" in tour["logs"]["conclude"]
    assert f"'said': '{text}'" in tour["logs"]["conclude"]


def test_container_of_a_task_is_the_workers_own(tour: Json) -> None:
    """Its log came from there, and the main host's Docker knew nothing of it."""
    assert tour["on main"] == ""
    assert "in a container" in tour["logs"]["contain"]


def test_capture_shows_what_is_plain(tour: Json, planted: str) -> None:
    """Otherwise what follows would prove nothing."""
    packets: Packets = tour["packets"]
    assert packets.lost == 0
    assert packets.having(planted.encode())
    assert sum(len(text) for text in packets.flows.values()) > 50_000


def test_only_two_ports_are_talked_to(tour: Json) -> None:
    """The gateway's on the main host, and the one for logs on the worker's."""
    assert tour["packets"].ports <= {WORKER_PORT, LOG_PORT}


@pytest.mark.parametrize(
    "what", ["canary", "word of SQL", "worker's password", "broker's password", "command"]
)
def test_capture_shows_nothing_of_the_platform(
    tour: Json, worker: WorkerHost, secrets: dict[str, str], text: str, what: str
) -> None:
    """The canary is an XCom, a line of a log, and the configuration of the run."""
    [password] = worker.database_passwords
    plain = {
        "canary": text,
        "word of SQL": "SELECT",
        "worker's password": password,
        "broker's password": secrets["Redis password"],
        "command": "BRPOP",
    }
    assert plain[what]
    assert tour["packets"].having(plain[what].encode()) == []
