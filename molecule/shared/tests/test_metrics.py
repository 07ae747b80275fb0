"""What Prometheus reads on a host, and who may read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from checker_on_host import Checker
from expected import DIRECTORY
from testinfra.host import Host

TOKEN_FILE = f"{DIRECTORY}/webhook/metrics_token"


@pytest.fixture
def token(host: Host) -> Iterator[str]:
    """A token in the place of the one that the sandbox's vault does not have."""
    assert host.file(TOKEN_FILE).content_string.strip() == ""
    host.check_output("echo %s > %s", "a-token-of-prometheus", TOKEN_FILE)
    yield "a-token-of-prometheus"
    host.check_output("echo > %s", TOKEN_FILE)


def test_token_is_for_the_webhook_alone(host: Host) -> None:
    file = host.file(TOKEN_FILE)
    assert (file.uid, file.mode) == (50001, 0o400)


def test_metrics_need_the_token_where_there_is_one(http: Any, endpoints: dict[str, str], token: str) -> None:
    """From the next call on: nothing restarts. The page needs none."""
    address = f"{endpoints['webhook']}/metrics"
    assert http("GET", address).status_code == 401
    assert http("GET", address, headers={"Authorization": "Bearer another"}).status_code == 401
    answer = http("GET", address, headers={"Authorization": f"Bearer {token}"})
    assert "airflow_platform_health" in answer.text
    assert http("GET", endpoints["webhook"]).status_code == 200


def test_metrics_have_what_the_database_knows(http: Any, endpoints: dict[str, str], checker: Checker) -> None:
    """The age of each queue and overdue runs; without a token anybody reads them."""
    checker.look()
    page = http("GET", f"{endpoints['webhook']}/metrics").text
    assert 'airflow_platform_queue_age_seconds{queue="default"}' in page
    assert re.search(r"^airflow_platform_runs_overdue \d", page, re.MULTILINE)
    assert 'airflow_platform_worker_slots{service="airflow-worker"}' in page
