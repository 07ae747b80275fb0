"""upgrade.yml without a version: what the team changed in the project, by the same road."""

from __future__ import annotations

import re

import pytest
from control_node import SETTINGS, ControlNode
from long_tests import when_asked
from platform_host import Platform
from poller import Poller
from snapshot import Snapshot

from tests.releases import NEWEST

pytestmark = pytest.mark.starts_on(NEWEST)

FAILED = "of weather-checker ended as failed: .*download failed"


@when_asked
def test_change_that_the_smoke_test_refuses_is_taken_back(
    platform: Platform, control: ControlNode, before: Snapshot, poller: Poller
) -> None:
    """An address of the weather service that is none, which only a run of the DAG can find. About 90 s."""
    compose_file = platform.check("sha256sum docker-compose.yaml")
    wrong = control.settings + (
        "stack_airflow_environment:\n"
        '  AIRFLOW_VAR_WEATHER_FORECAST_URL: "gridpoints/EWX/156,91/forecast"\n'
        '  AIRFLOW_VAR_WEATHER_CAMERA_URL: "http://{{ sandbox.address }}:9002/image/533.jpg"\n'
    )
    with control.edited(SETTINGS, control.settings, wrong):
        control.run("upgrade.yml").failed(FAILED, f"{NEWEST} runs again")
    operation = platform.operation()
    assert (operation["state"], operation["failure"]["phase"]) == ("reverted", "smoke")
    assert platform.check("sha256sum docker-compose.yaml") == compose_file
    assert before.differences(platform.snapshot()) == []
    assert poller.unanswered() == []
    page = control.page(NEWEST, NEWEST)
    assert "It failed in the phase smoke" in page
    assert re.search(FAILED, page)
    platform.pulse_goes_on()


@when_asked
def test_new_package_is_brought(
    platform: Platform, control: ControlNode, before: Snapshot, poller: Poller
) -> None:
    """A line in the team's requirements, and the DAGs have it. About 180 s."""
    pinned = "onepasswordconnectsdk==1.3.0"
    with control.edited("images/airflow/requirements.txt", pinned, f"{pinned}\nopenpyxl==3.1.5"):
        control.run("upgrade.yml", seconds=600).succeeded()
    platform.check("docker compose exec --no-TTY airflow-worker python3 -c %s", "import openpyxl")
    assert platform.version == NEWEST
    assert before.differences(platform.snapshot()) == []
    assert poller.unanswered() == []
