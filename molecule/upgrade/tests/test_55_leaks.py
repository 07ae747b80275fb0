"""After failures of every kind: no secret of the vault is anywhere but in its place.

The scenario `default` looks for secrets after what goes well. This file comes before the rotation, because
the search knows only the values that the vault has now. It costs about 120 s.
"""

from __future__ import annotations

from collections.abc import Iterator

import handing_on
import pytest
from airflow_api import wait_for
from canaries import AIRFLOW, DEMONSTRATION, PLACES, Canaries, misplaced, search, watch_again, watched
from control_node import ControlNode, Finished
from handing_on import hand_on
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
    platform.host.check_output(f"rm --force {DIRECTORY}/releases/playbook-*.json")


def test_failing_converge_prints_no_secret(failed_converge: Finished, canaries: Canaries) -> None:
    """It names the file, and what an operator pastes into a ticket has none of it."""
    failed_converge.failed(f"{DIRECTORY}/env/airflow.env", "Read-only file system")
    assert canaries.in_text(failed_converge.output) == set()


def test_converge_prints_no_secret(
    failed_converge: Finished, control: ControlNode, canaries: Canaries
) -> None:
    """Nor does the same command print one where it goes well, as verbose as that.

    But for the demonstration secret: it is on the weather page for everybody, and the smoke test reads that.
    """
    finished = control.run("site.yml", "-vvv").succeeded()
    # It prints what it gave to each module, and what came back.
    assert "module_args" in finished.output
    assert canaries.in_text(finished.output) <= {DEMONSTRATION}


def test_no_playbook_has_printed_a_secret(control: ControlNode, canaries: Canaries) -> None:
    """Upgrades, backups, rollbacks and refusals of all files before this one."""
    outputs = control.outputs()
    assert outputs
    printed = {name: canaries.in_text(text) - {DEMONSTRATION} for name, text in outputs.items()}
    assert {name: found for name, found in printed.items() if found} == {}


def test_secret_that_is_handed_on_is_read_by_its_container_alone(
    platform: Platform,
    endpoints: dict[str, str],
    administrator: tuple[str, str],
    canaries: Canaries,
) -> None:
    """On the oldest Airflow, which masks less by itself; the scenario `delivery` shows it on the newest."""
    platform.publish({handing_on.FILE.name: handing_on.FILE.read_text()}, "Hand secrets on")
    wait_for(f"Airflow to know {handing_on.DAG}", lambda: platform.knows(handing_on.DAG), 60)
    handed_on = hand_on(platform.host, platform.airflow, endpoints["airflow"], administrator)
    handed_on.check(canaries)


def test_failures_leave_no_secret_on_the_host(platform: Platform, failed_converge: Finished) -> None:
    """Nor do the upgrades that failed in the files before this one, with their databases and reports."""
    found = search(platform.host)
    # A search that finds nothing where there is something would prove nothing.
    assert set(found["canaries"]) >= AIRFLOW
    place = "definition of airflow-worker"
    assert set(found[place]) == PLACES[place][0]
    assert misplaced(found) == {}


def test_no_process_has_shown_a_secret(platform: Platform) -> None:
    """While the platform was made, upgraded, backed up, rolled back, and while all of that failed."""
    seen = watched(platform.host)
    watch_again(platform.host)
    assert {"dockerd", "pg_dump", "pg_restore"} <= set(seen["programs"])
    assert set(seen["variables of airflow-worker"]) == PLACES["definition of airflow-worker"][0]
    assert misplaced(seen) == {}
