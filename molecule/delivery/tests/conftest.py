"""The host of the shared suite, as what follows a repository."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from testinfra.host import Host

SHARED = Path(__file__).resolve().parents[2] / "shared" / "tests"
CALLERS = ("dag-sync.timer", "smee-relay.service")
sys.path.append(str(SHARED))

from airflow_api import wait_for  # noqa: E402 - what these import is there only now
from delivery import PATIENCE, Delivery, Repository  # noqa: E402
from other_suites import take_fixtures  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Take the fixtures of the shared suite."""
    take_fixtures(config, "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look for leaks, then do what gets this machine turned away from the webhook for a minute."""
    last = ("test_leaks", "test_fuzz", "test_limits", "test_flood")
    items.sort(key=lambda item: last.index(item.path.stem) if item.path.stem in last else -1)


@pytest.fixture(scope="session")
def delivery(
    request: pytest.FixtureRequest,
    host: Host,
    execute: Any,
    http: Any,
    endpoints: dict[str, str],
    airflow: Any,
    env_files: dict[str, dict[str, str]],
    metrics: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Delivery]:
    """The chain from push to live, at rest. Afterwards the branch holds what it held before."""
    ask = (
        "from webhook.settings import from_environment as read; settings = read();"
        "print(settings.github_repository)"
    )
    answer = execute("webhook", "python3 -c %s", ask)
    assert answer.rc == 0, answer.stderr
    github_repository = answer.stdout.strip()
    connect = {name: env_files["webhook.env"][name] for name in ("OP_CONNECT", "OP_API_TOKEN", "OP_VAULT_ID")}
    # A colleague pushes over HTTP; the host reads over SSH.
    url = f"http://{urlsplit(connect['OP_CONNECT']).hostname}:9005/{github_repository}.git"
    repository = Repository(tmp_path_factory.mktemp("clone") / "repository", url)
    delivery = Delivery(
        host, http, endpoints["webhook"], airflow, repository, connect, github_repository, metrics
    )
    # After an earlier session's flood the endpoint turns this machine away for a while.
    wait_for("the webhook's endpoint", lambda: http("GET", f"{delivery.webhook}/").status_code == 200, 90)
    delivery.sync("once")
    delivery.wait_until_live(repository.head)
    yield delivery
    commit = repository.go_back_to()
    # The last test of the workers removes the platform.
    if host.exists("dag-sync"):
        delivery.sync("unpin")
        delivery.sync("once")
        delivery.wait_until_live(commit, PATIENCE)


@pytest.fixture
def alone(delivery: Delivery) -> Iterator[None]:
    """Those who call the webhook by right are silent: what it counts is the test's."""
    delivery.host.check_output(f"systemctl stop {' '.join(CALLERS)} dag-sync.service")
    yield
    delivery.host.check_output(f"systemctl start {' '.join(CALLERS)}")
