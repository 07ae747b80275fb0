"""Where people see a worker: Flower, the status page, and status.yml."""

from __future__ import annotations

import re
from typing import Any

import pytest
from airflow_api import wait_for
from control_node import ControlNode
from delivery import Delivery
from playwright.sync_api import Browser, expect
from testinfra.host import Host
from worker_host import NAMES, WorkerHost, release_of

Json = dict[str, Any]


@pytest.mark.parametrize("name", NAMES)
def test_flower_shows_it_online(
    browser: Browser, endpoints: dict[str, str], flower_login: tuple[str, str], name: str
) -> None:
    """By the name that its host has in the inventory."""
    context = browser.new_context(http_credentials={"username": flower_login[0], "password": flower_login[1]})
    page = context.new_page()
    page.goto(f"{endpoints['flower']}/workers")
    expect(page.locator("tr", has_text=f"celery@{name}")).to_contain_text(re.compile("Online|True"))
    context.close()


@pytest.fixture
def rows(delivery: Delivery, workers: dict[str, WorkerHost]) -> dict[str, Json]:
    """What the status page says of each worker, once all are live."""
    for worker in workers.values():
        worker.wait_until_healthy()

    def live() -> dict[str, Json] | None:
        found = {row["name"]: row for row in delivery.page()["workers"]}
        return found if {row["state"] for row in found.values()} == {"live"} else None

    found: dict[str, Json] = wait_for("every worker to be live", live, 60)
    return found


def test_status_page_has_each_worker(rows: dict[str, Json], host: Host, delivery: Delivery) -> None:
    """With the release and the commit that the main host has, its queues and its slots."""
    assert set(rows) == set(NAMES)
    for name, row in rows.items():
        assert row["release"] == release_of(host)
        assert row["commit"] == delivery.live()
        assert set(row["queues"]) == {"default", name, "any-worker"}
        assert row["slots"] == 4
        # A poll takes ten seconds at most.
        assert 0 <= row["heard_seconds_ago"] <= 15


def test_status_playbook_names_it(control: ControlNode, with_workers: str) -> None:
    # Tests before have restarted the gateway, which is a light.
    output = control.run("playbooks/status.yml", with_workers).output
    assert [name for name in NAMES if name not in output] == []
