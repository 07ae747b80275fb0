"""Failures before the switch: nothing that runs has changed, the lock is free, the next run begins anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from airflow_api import wait_for
from canaries import Canaries
from control_node import ControlNode, version
from long_tests import when_asked
from platform_host import Platform
from poller import Poller
from snapshot import Snapshot

pytestmark = pytest.mark.starts_on("2.5.3")

LEGACY = '''\
"""Counts heartbeats; Airflow 2.6 moved what it imports."""

import datetime

from airflow import DAG
from airflow.jobs.base_job import BaseJob
from airflow.operators.python import PythonOperator

with DAG("upgrade-legacy", start_date=datetime.datetime(2024, 1, 1), schedule=None):
    PythonOperator(task_id="name", python_callable=lambda: BaseJob.__tablename__)
'''


@pytest.fixture
def nothing_has_changed(
    platform: Platform, control: ControlNode, before: Snapshot, poller: Poller, canaries: Canaries
) -> Callable[[str, str], None]:
    """Return a function that checks, after a failure in a phase, that all is as before the test.

    The fetched report has to name the phase and say why, and no secret.
    """
    containers = platform.containers()

    def check(phase: str, why: str) -> None:
        operation = platform.operation()
        assert (operation["state"], operation["failure"]["phase"]) == ("abandoned", phase)
        assert platform.containers() == containers
        assert before.differences(platform.snapshot()) == []
        assert platform.databases() == {"airflow"}
        assert control.pin == "2.5.3"
        assert poller.unanswered() == []
        assert poller.outages("airflow") == []
        page = control.page("2.5.3", "2.6.1")
        assert f"Failed in the phase {phase}" in page
        assert why in page
        for file in control.report("2.5.3", "2.6.1").parent.iterdir():
            assert canaries.in_text(file.read_text()) == set(), file

    return check


@pytest.fixture
def legacy_dag(platform: Platform) -> Iterator[None]:
    """A DAG that works on 2.5.3 and not on 2.6.1, live while the test runs."""
    platform.publish({"upgrade_legacy.py": LEGACY}, "Count heartbeats")
    wait_for("Airflow to know it", lambda: platform.knows("upgrade-legacy"), 60)
    yield
    platform.publish({"upgrade_legacy.py": None}, "Count no heartbeats")
    wait_for("Airflow to forget it", lambda: not platform.knows("upgrade-legacy"), 60)


@when_asked
def test_build_fails(
    control: ControlNode, nothing_has_changed: Callable[[str, str], None], canaries: Canaries
) -> None:
    """A package of the team's that does not fit this Airflow. No secret is printed. About 50 s."""
    requirements = "images/airflow/requirements.txt"
    pinned = "onepasswordconnectsdk==1.3.0"
    with control.edited(requirements, pinned, f"{pinned}\nsqlalchemy==2.0.30"):
        refused = control.run("upgrade.yml", version("2.6.1"), "-vvv").failed("conflicting dependencies")
    assert canaries.in_text(refused.output) == set()
    nothing_has_changed("build", "conflicting dependencies")


def test_dag_stops_the_upgrade(
    control: ControlNode, legacy_dag: None, nothing_has_changed: Callable[[str, str], None]
) -> None:
    """It is named, with its reason and the option that lets it break. About 50 s."""
    refused = control.run("upgrade.yml", version("2.6.1"))
    refused.failed("upgrade-legacy", "airflow.jobs.base_job", "upgrade_acknowledge")
    nothing_has_changed("report", "airflow.jobs.base_job")


@when_asked
def test_acknowledged_dag_is_in_the_way_no_more(
    platform: Platform,
    control: ControlNode,
    legacy_dag: None,
    nothing_has_changed: Callable[[str, str], None],
) -> None:
    """The rehearsal is reached, and fails in turn on a migration that the database refuses. About 80 s."""
    acknowledged = json.dumps({"upgrade_acknowledge": ["upgrade-legacy"]})
    with platform.refused_migration():
        refused = control.run("upgrade.yml", version("2.6.1"), f"--extra-vars={acknowledged}")
        refused.failed("no table may be changed today")
        nothing_has_changed("rehearse", "no table may be changed today")
