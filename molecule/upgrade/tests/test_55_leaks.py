"""After failures of every kind: no secret of the vault is anywhere but in its place.

The scenario `default` looks for secrets after what goes well. This file comes before the rotation, because
the search knows only the values that the vault has now. It costs about 30 s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canaries import AIRFLOW, PLACES, Canaries, misplaced, search
from control_node import ControlNode, Finished
from platform_host import DIRECTORY, Platform

pytestmark = pytest.mark.starts_on("2.5.3")

TEMPLATE = "templates/srv/airflow/env/airflow.env.j2"
COMMENT = "# Seen by every Airflow container."


@pytest.fixture(scope="module")
def failed_converge(platform: Platform, control: ControlNode) -> Iterator[Finished]:
    """`site.yml -vvv` that ends while it writes keys and passwords to a file."""
    assert "AIRFLOW__CORE__FERNET_KEY" in (control.project / TEMPLATE).read_text()
    with platform.read_only_env_files(), control.edited(TEMPLATE, COMMENT, f"{COMMENT} Edited."):
        finished = control.run("site.yml", "-vvv")
    yield finished
    # It has ended, but it may have changed a part of the host: no operation begins until somebody says so.
    platform.host.check_output(f"rm {DIRECTORY}/releases/playbook-*.json")


def test_failing_converge_prints_no_secret(failed_converge: Finished, canaries: Canaries) -> None:
    """It names the file, and what an operator pastes into a ticket has none of it."""
    failed_converge.failed(f"Destination {DIRECTORY}/env not writable")
    assert canaries.in_text(failed_converge.output) == set()


def test_failures_leave_no_secret_on_the_host(platform: Platform, failed_converge: Finished) -> None:
    """Nor do the upgrades that failed in the files before this one, with their databases and reports."""
    found = search(platform.host)
    # A search that finds nothing where there is something would prove nothing.
    assert set(found["canaries"]) >= AIRFLOW
    place = "definition of airflow-worker"
    assert set(found[place]) == PLACES[place][0]
    assert misplaced(found) == {}
