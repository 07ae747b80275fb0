"""The host of the shared suite, as what is upgraded, with a history; and the control node that does it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

MOLECULE = Path(__file__).resolve().parents[2]
SHARED = MOLECULE / "shared" / "tests"
sys.path += [str(SHARED), str(MOLECULE / "delivery" / "tests")]

import history  # noqa: E402 - what these import is there only now
from airflow_api import AirflowApi  # noqa: E402
from control_node import ControlNode  # noqa: E402
from delivery import Repository  # noqa: E402
from expected import ENDPOINT_LIST  # noqa: E402
from other_suites import take_fixtures  # noqa: E402
from platform_host import Platform  # noqa: E402
from poller import Poller  # noqa: E402
from snapshot import Snapshot  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Take the fixtures of the shared suite, and have it show the switch's journal, too."""
    config.addinivalue_line("markers", "starts_on(version): the Airflow version that the test begins with")
    shared = take_fixtures(config, "shared")
    shared.EVIDENCE_COMMANDS["the switch"] = (
        "airflow-release status; journalctl --unit airflow-release.service --lines 200 --output cat"
    )


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> ControlNode:
    """A copy of the project, from which the playbooks are run."""
    return ControlNode(tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="session")
def platform(
    host: Host,
    airflow: AirflowApi,
    env_files: dict[str, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    """The host with a history: runs, XComs, connections, variables, DAGs paused and not."""
    repository = Repository(
        tmp_path_factory.mktemp("clone") / "repository", env_files["webhook.env"]["DAG_REPOSITORY"]
    )
    platform = Platform(host, airflow, repository)
    # A second session on the same host finds what the first one made.
    if not platform.sql("SELECT 1 FROM connection WHERE conn_id = 'warehouse'").strip():
        history.make(platform)
    return platform


@pytest.fixture(autouse=True)
def _starts_on(request: pytest.FixtureRequest, platform: Platform) -> None:
    """Say at once when an earlier test left the host elsewhere: what would follow would say it less well."""
    marker = request.node.get_closest_marker("starts_on")
    if marker:
        assert platform.version == marker.args[0], "an earlier test left the host on another version"


@pytest.fixture
def before(platform: Platform) -> Snapshot:
    """What people would miss, as it is before the test, on a platform that is well."""
    platform.wait_until_healthy()
    return platform.snapshot()


@pytest.fixture
def poller(endpoints: dict[str, str]) -> Iterator[Poller]:
    """Readers at every endpoint, while the test runs: of its health, and of the weather page itself."""
    paths = {endpoint["name"]: endpoint["health"] for endpoint in ENDPOINT_LIST} | {"weather": "/"}
    with Poller({name: endpoints[name] + path for name, path in paths.items()}) as poller:
        yield poller
