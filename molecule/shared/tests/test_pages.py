"""The team's manual check list, part two: Airflow, Flower and the status page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from expected import DAG, SERVICES
from playwright.sync_api import Browser, Page, expect


@pytest.fixture(scope="module")
def airflow_page(
    browser: Browser, endpoints: dict[str, str], administrator: tuple[str, str]
) -> Iterator[Page]:
    """Airflow's home page as somebody sees it who came to port 8080 and logged in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(endpoints["airflow"])
    page.fill("#username", administrator[0])
    page.fill("#password", administrator[1])
    page.click("input[type=submit]")
    page.wait_for_url("**/home*")
    yield page
    context.close()


def test_airflow_names_its_version_in_the_footer(airflow_page: Page, settings: dict[str, str]) -> None:
    """The first line of the check list after every upgrade."""
    expect(airflow_page.locator("footer")).to_contain_text(f"v{settings['AIRFLOW_VERSION']}")


def test_airflow_lists_the_weather_dag(airflow_page: Page) -> None:
    """The page works, not only its frame: it shows what the scheduler found."""
    expect(airflow_page.locator(f"a[href*='/dags/{DAG}']").first).to_be_visible()


def test_airflow_says_nothing_alarming(airflow_page: Page) -> None:
    """A scheduler that is gone, a broken DAG or a default that is unsafe would be a banner here."""
    banners = airflow_page.locator(".alert-error, .alert-danger, .alert-warning").filter(visible=True)
    assert banners.all_inner_texts() == []


def test_flower_shows_the_worker_online(
    browser: Browser, endpoints: dict[str, str], flower_login: tuple[str, str], containers: dict[str, Any]
) -> None:
    """Port 8082 after its own login: the worker of this host answers."""
    worker = f"celery@{containers['airflow-worker']['Config']['Hostname']}"
    context = browser.new_context(http_credentials={"username": flower_login[0], "password": flower_login[1]})
    page = context.new_page()
    page.goto(f"{endpoints['flower']}/workers")
    row = page.locator("tr", has_text=worker)
    expect(row).to_contain_text(re.compile("Online|True"))
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_status_page_fits_on_desk_and_phone(
    browser: Browser, endpoints: dict[str, str], settings: dict[str, str], width: int
) -> None:
    """Port 8081: is it all right, what runs, and how the tasks of the day ended, without a script."""
    context = browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=False)
    page = context.new_page()
    page.goto(endpoints["webhook"])
    expect(page.get_by_role("status")).to_contain_text(f"Airflow {settings['AIRFLOW_VERSION']} is running")
    table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="Restarts"))
    expect(table.get_by_role("rowheader")).to_have_text(sorted(SERVICES))
    expect(page.locator(".strip .said")).to_have_count(24)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
