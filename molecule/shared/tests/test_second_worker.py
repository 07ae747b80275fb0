"""A second worker: with three lines in the Compose file it is started, checked and shown. About a minute."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import wait_for
from expected import DIRECTORY, WORKERS
from testinfra.host import Host

from tests.compose_project import SECOND as NAME
from tests.compose_project import SECOND_QUEUE, SECOND_WORKER

FILE = f"{DIRECTORY}/docker-compose.yaml"
KEPT = "/root/docker-compose.yaml"


@pytest.fixture(scope="module")
def health_of_one(host: Host) -> Iterator[str]:
    """What the release command says once the file has the worker and before anybody has started it."""
    host.check_output(f"cp --preserve=all {FILE} {KEPT}")
    networks = "\nnetworks:\n"
    text = host.file(FILE).content_string.replace(networks, SECOND_WORKER + networks)
    encoded = base64.b64encode(text.encode()).decode()
    try:
        host.check_output(f"echo {encoded} | base64 --decode > {FILE}")
        said = host.run("airflow-release health").stdout
        host.check_output("airflow-release up")
        yield said
    finally:
        host.run(f"cd {DIRECTORY} && docker compose rm --stop --force {NAME}")
        host.check_output(f"mv {KEPT} {FILE}")


def look(host: Host) -> dict[str, Any]:
    """Return what the checker sees now."""
    host.check_output("systemctl start airflow-checker.service")
    document: dict[str, Any] = json.loads(host.file(f"{DIRECTORY}/status/health.json").content_string)
    return document


def findings(host: Host) -> set[str]:
    """Return what the checker finds wrong with the worker."""
    return {one["id"] for one in look(host)["findings"] if one["subject"] == NAME}


def test_release_command_starts_it(host: Host, health_of_one: str) -> None:
    """Its health check asks for its own queue; the first worker's queue is none of its business."""
    assert f"{NAME} does not run" in health_of_one
    wait_for("both workers to be healthy", lambda: host.run("airflow-release health").rc == 0, 180)


def test_checker_shows_it(host: Host, health_of_one: str) -> None:
    document = look(host)
    rows = {row["name"]: (row["state"], row["health"]) for row in document["services"]}
    assert rows[NAME] == ("running", "healthy")
    queues = {worker["service"]: worker["queues"] for worker in document["figures"]["workers"]}
    assert queues == {**WORKERS, NAME: [SECOND_QUEUE]}


def test_checker_finds_it_stopped(host: Host, health_of_one: str) -> None:
    assert findings(host) == set()
    host.check_output(f"cd {DIRECTORY} && docker compose stop {NAME} 2>&1")
    assert findings(host) == {"service-down"}
    assert f"{NAME} does not run" in host.run("airflow-release health").stdout
