"""What Prometheus reads on a host, and who may read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from checker_on_host import Checker
from expected import METRICS_TOKEN_FILE
from testinfra.host import Host


@pytest.fixture
def no_token(host: Host) -> Iterator[None]:
    """What the file has where the vault has no token."""
    kept = f"{METRICS_TOKEN_FILE}.kept"
    host.check_output(f"cp --preserve {METRICS_TOKEN_FILE} {kept} && echo > {METRICS_TOKEN_FILE}")
    yield
    host.check_output(f"mv {kept} {METRICS_TOKEN_FILE}")


def test_token_is_for_the_webhook_alone(host: Host) -> None:
    file = host.file(METRICS_TOKEN_FILE)
    assert (file.uid, file.mode) == (50001, 0o400)


def test_metrics_need_the_token(http: Any, endpoints: dict[str, str], metrics: Callable[[], str]) -> None:
    """The page needs none."""
    address = f"{endpoints['webhook']}/metrics"
    assert http("GET", address).status_code == 401
    assert http("GET", address, headers={"Authorization": "Bearer another"}).status_code == 401
    assert "airflow_platform_health" in metrics()
    assert http("GET", endpoints["webhook"]).status_code == 200


def test_anybody_reads_them_where_there_is_no_token(
    http: Any, endpoints: dict[str, str], no_token: None
) -> None:
    """From the next call on: nothing restarts."""
    assert "airflow_platform_health" in http("GET", f"{endpoints['webhook']}/metrics").text


def test_metrics_have_what_the_database_knows(metrics: Callable[[], str], checker: Checker) -> None:
    """The age of each queue and overdue runs."""
    checker.look()
    page = metrics()
    assert 'airflow_platform_queue_age_seconds{queue="default"}' in page
    assert re.search(r"^airflow_platform_runs_overdue \d", page, re.MULTILINE)
    assert 'airflow_platform_worker_slots{service="airflow-worker"}' in page
