"""The team's manual check list, part two: Airflow, Flower and the status page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from expected import DAG, SERVICES
from playwright.sync_api import Browser, BrowserContext, Page, expect

AIRFLOW_PAGES = {
    "/home": set(),
    f"/dags/{DAG}/grid": set(),
    f"/dags/{DAG}/graph": set(),
    f"/dags/{DAG}/calendar": set(),
    f"/dags/{DAG}/duration": set(),
    f"/dags/{DAG}/gantt": set(),
    f"/dags/{DAG}/code": set(),
    f"/dags/{DAG}/details": set(),
    "/dagrun/list/": set(),
    "/taskinstance/list/": set(),
    "/connection/add": set(),
    "/variable/list/": set(),
    "/users/list/": set(),
    "/roles/list/": set(),
    "/datasets": set(),
    "/dag-dependencies": set(),
    # The description of the API names Google's way to log in, which the page looks up.
    "/api/v1/ui/": {"accounts.google.com"},
    # The page asks Google for fonts and its maker for a logo, and does without.
    "/redoc": {"fonts.googleapis.com", "cdn.redoc.ly"},
}
"""Pages of Airflow, with the other sites that a browser does not ask for them, as it is told."""

REPORT = """
document.addEventListener("securitypolicyviolation", (event) =>
    reportRefusal(event.effectiveDirective, event.blockedURI)
)
"""


class Refusals:
    """What a browser has refused to load or run, as the pages' policies say: the directive, and the site."""

    def __init__(self, context: BrowserContext) -> None:
        """Have each page of this browser report it."""
        self.found: set[tuple[str, str]] = set()
        context.expose_function("reportRefusal", self._add)
        context.add_init_script(REPORT)

    def _add(self, directive: str, address: str) -> None:
        # Without a host it is what stands in the page itself: `inline`, `eval`, `data`.
        self.found.add((directive, urlsplit(address).hostname or address))

    def of(self, page: Page, address: str) -> set[tuple[str, str]]:
        """Return what is refused while a page is opened, until it asks for nothing more."""
        self.found.clear()
        answer = page.goto(address, wait_until="networkidle")
        assert answer
        assert answer.status == 200
        return set(self.found)


@pytest.fixture(scope="module")
def airflow_context(browser: Browser) -> Iterator[tuple[BrowserContext, Refusals]]:
    """A new browser that reports what it refuses."""
    context = browser.new_context()
    yield context, Refusals(context)
    context.close()


@pytest.fixture(scope="module")
def airflow_page(
    airflow_context: tuple[BrowserContext, Refusals],
    endpoints: dict[str, str],
    administrator: tuple[str, str],
) -> Page:
    """Airflow's home page as somebody sees it who came to port 8080 and logged in."""
    page = airflow_context[0].new_page()
    page.goto(endpoints["airflow"])
    page.fill("#username", administrator[0])
    page.fill("#password", administrator[1])
    page.click("input[type=submit]")
    page.wait_for_url("**/home*")
    return page


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


@pytest.mark.parametrize("path", AIRFLOW_PAGES)
def test_airflows_pages_work_within_their_policy(
    airflow_page: Page, airflow_context: tuple[BrowserContext, Refusals], endpoints: dict[str, str], path: str
) -> None:
    """A policy that is too narrow breaks a page where nobody looks. In a tab of its own."""
    context, refusals = airflow_context
    page = context.new_page()
    refused = refusals.of(page, f"{endpoints['airflow']}{path}")
    page.close()
    assert {site for _, site in refused} <= AIRFLOW_PAGES[path], refused


def test_browser_asks_no_other_site_for_airflows_pages(
    airflow_page: Page, airflow_context: tuple[BrowserContext, Refusals], endpoints: dict[str, str]
) -> None:
    """A script that gets into a page of Airflow sends nothing elsewhere; and the test above sees refusals."""
    context, refusals = airflow_context
    page = context.new_page()
    refusals.of(page, f"{endpoints['airflow']}/home")
    told = page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective))
            new Image().src = "https://elsewhere.example.org/?what-the-page-shows"
        })"""
    )
    assert told == "img-src"
    assert ("img-src", "elsewhere.example.org") in refusals.found
    page.close()


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("webhook", "/"),
        ("weather", "/"),
        *(("flower", path) for path in ("/", "/workers", "/tasks", "/broker")),
    ],
)
def test_other_pages_work_within_their_policy(
    browser: Browser,
    endpoints: dict[str, str],
    flower_login: tuple[str, str],
    weather_run: dict[str, Any],
    endpoint: str,
    path: str,
) -> None:
    """Flower's scripts and styles are within its pages; the other two have no script."""
    context = browser.new_context(http_credentials={"username": flower_login[0], "password": flower_login[1]})
    refusals = Refusals(context)
    assert refusals.of(context.new_page(), f"{endpoints[endpoint]}{path}") == set()
    context.close()


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
