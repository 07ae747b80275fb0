"""The status page in a real browser, as wide as a desk's and a phone's: what is seen, what is read aloud."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect
from webhook.airflow_status import AirflowStatus
from webhook.app import create_app
from webhook.settings import Settings

from tests.browser import chromium
from tests.served import served
from tests.webhook.doubles import VaultDouble
from tests.webhook.health_document import SERVICES, bad_day, document

WIDTHS = {"desk": 1280, "phone": 390}
DAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "well": document,
    "bad": lambda: document(**bad_day()),
    "long": lambda: document(
        **bad_day(
            service_name="airflow-" + "w" * 80,
            queue="q" * 80,
            file=f"/srv/airflow/{'long/' * 20}.env",
            disk="/srv/" + "d" * 80,
        )
    ),
    "silent": lambda: document(age=600, **bad_day()),
}
Show = Callable[[str], None]


def backup(at: float) -> dict[str, Any]:
    """Return backup.json of a host whose last backup is of that time."""
    last = {"at": at, "name": "airflow-staging-atd-data03-20270115T080000Z-2.11.2.tar", "size": 5 * 2**20}
    return {"last_good": {**last, "airflow_version": "2.11.2", "off_host": True}, "last_failure": None}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The webhook of a platform without a repository, which Airflow calls well."""
    directory = tmp_path_factory.mktemp("host")
    app = create_app(
        {
            "TESTING": True,
            "SETTINGS": Settings(
                environment="staging",  # as production, but nothing runs beside the test
                trees_dir=directory,
                state_dir=directory / "state",
                health_file=directory / "health.json",
                backup_state_file=directory / "backup.json",
            ),
            "VAULT": VaultDouble(),
        }
    )
    components = dict.fromkeys(("metadatabase", "scheduler", "triggerer"), "healthy")
    airflow = AirflowStatus(version="2.11.2", components=components)
    app.extensions["webhook"].airflow.status = lambda: airflow
    return app


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A browser without scripts that notes what goes wrong and what is asked for."""
    context = browser.new_context(
        viewport={"width": WIDTHS[request.param], "height": 800}, java_script_enabled=False
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    yield page
    assert wrong == []
    assert len({url for url in requests if not url.startswith("data:")}) == 1
    context.close()


@pytest.fixture
def show(app: Flask, page: Page) -> Iterator[Show]:
    """Show the page of a day in the browser."""
    parts = app.extensions["webhook"]
    file = parts.settings.health_file

    with served(app) as url:

        def show(day: str) -> None:
            now = time.time()
            file.write_text(json.dumps(DAYS[day]()))
            parts.settings.backup_state_file.write_text(json.dumps(backup(now - 5 * 3600)))
            parts.store.remember("relay", {"state": "connected", "at": now - 9})
            page.goto(url)

        yield show


def overflow(page: Page) -> float:
    """Return by how many pixels the page is wider than the screen."""
    assert page.viewport_size is not None
    return float(page.evaluate("document.documentElement.scrollWidth")) - page.viewport_size["width"]


@pytest.mark.parametrize(
    ("day", "verdict"),
    [
        ("well", "All is well"),
        ("bad", "Needs a look now"),
        ("long", "Needs a look now"),
        ("silent", "Needs a look: the checker is silent"),
    ],
)
def test_verdict_is_seen_first(page: Page, show: Show, day: str, verdict: str) -> None:
    """Without scrolling; and nothing is wider than the screen, whatever names and paths are long."""
    show(day)
    status = page.get_by_role("status")
    expect(status.get_by_role("heading", level=1)).to_have_text(verdict)
    expect(status).to_contain_text("Airflow 2.11.2 is running")
    expect(status).to_be_in_viewport(ratio=1)
    assert overflow(page) <= 0
    if folder := os.environ.get("STATUS_PAGE_PICTURES"):
        width = page.viewport_size["width"] if page.viewport_size else 0
        page.screenshot(path=Path(folder) / f"status-page-{day}-{width}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("day", ["well", "bad"])
def test_text_can_be_read(page: Page, show: Show, day: str, scheme: Any) -> None:
    """A contrast of 4.5 at least (WCAG 2.2, 1.4.3), in either colour scheme, of all text that is seen."""
    page.emulate_media(color_scheme=scheme)
    show(day)
    assert page.evaluate(CONTRASTS) == []


CONTRASTS = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = (colour) => {
    const [r, g, b] = parse(colour).map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const alpha = parse(colour)[3];
      if (alpha === undefined || alpha === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest(".said")) continue;
    const shades = [light(getComputedStyle(element).color), light(behind(element))].sort();
    const contrast = (Math.max(...shades) + 0.05) / (Math.min(...shades) + 0.05);
    if (contrast < 4.5) faint.push(`${walker.currentNode.textContent.trim()}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


def test_services_are_a_table_that_can_be_read_aloud(page: Page, show: Show) -> None:
    show("well")
    table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="Restarts"))
    expect(table.get_by_role("columnheader")).to_have_text(
        ["Service", "State and health", "Since", "Restarts"]
    )
    expect(table.get_by_role("rowheader")).to_have_text(list(SERVICES))
    expect(table.locator("time").first).to_have_attribute(
        "title", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    )
    expect(table.get_by_text("healthy").first).to_be_visible()


def test_each_light_says_what_to_do_and_where_it_is_written(page: Page, show: Show) -> None:
    show("bad")
    first = page.locator(".needs li").first
    expect(first).to_contain_text("critical")
    expect(first).to_contain_text("The container of weather is <exited>. Run docker compose ps --all")
    expect(first).to_contain_text("docs/when-something-is-wrong.md#light-service-down")
    expect(page.get_by_role("heading", name="Can wait")).to_be_visible()


def test_hours_are_said_in_words(page: Page, show: Show) -> None:
    """The columns are for the eye; each has its numbers for who does not see it."""
    show("bad")
    cells = page.locator(".strip li")
    expect(cells).to_have_count(24)
    expect(cells.nth(17).locator(".said")).to_contain_text("60 failed")
    expect(cells.last.locator(".said")).to_contain_text("3 running")
    failed, succeeded = (cells.nth(18).locator(f".{name}").bounding_box() for name in ("failed", "succeeded"))
    assert failed is not None
    assert succeeded is not None
    assert failed["height"] > 2 * succeeded["height"]
    assert abs(failed["y"] + failed["height"] - succeeded["y"]) < 1


def test_disk_is_as_full_as_its_bar(page: Page, show: Show) -> None:
    show("well")
    bar = page.locator(".bar").first
    whole, used = bar.bounding_box(), bar.locator("i").bounding_box()
    assert whole is not None
    assert used is not None
    assert used["width"] / whole["width"] == pytest.approx(33 / 80, abs=0.02)
    expect(page.locator(".disks li").first).to_contain_text("59 % free: 47.0 GiB of 80.0 GiB")


def test_colour_is_never_the_only_sign(page: Page, show: Show) -> None:
    """Each tag has its word, and a sign that is not the same for good and bad."""
    show("bad")
    signs = page.evaluate(
        """() => Object.fromEntries(["good", "warn", "bad", "calm"].map((kind) =>
          [kind, getComputedStyle(document.querySelector(`.tag.${kind}`), "::before").content]))"""
    )
    assert len(set(signs.values())) == len(signs)
    assert [tag for tag in page.locator(".tag").all() if not tag.inner_text().strip()] == []


def test_paper_shows_all_of_it(page: Page, show: Show) -> None:
    """In light colours, with the bars."""
    show("bad")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.bar i')).printColorAdjust") == "exact"
    assert page.pdf(format="A4").startswith(b"%PDF")
