"""The status page on 8081 in a real browser: is it all right, what runs, since when."""

from __future__ import annotations

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, Delivery, dag_source, new_name
from playwright.sync_api import Browser, Page, expect


@pytest.fixture
def page(browser: Browser, delivery: Delivery) -> Page:
    """The page after a push that went well."""
    dag = new_name("shown")
    commit = delivery.repository.push(
        {f"dags/{dag}.py": dag_source(dag)}, "Count bicycles at the crossing, too"
    )
    delivery.announce(commit)
    delivery.wait_until_live(commit)
    wait_for("the state file", lambda: delivery.page()["delivery"]["live"]["id"] == commit, PATIENCE)
    wait_for("the relay", lambda: (delivery.page()["relay"] or {}).get("state") == "connected", PATIENCE)
    page = browser.new_context(viewport={"width": 1100, "height": 760}).new_page()
    page.goto(delivery.webhook)
    return page


def test_page_answers_the_questions(page: Page, delivery: Delivery, settings: dict[str, str]) -> None:
    """One look: the verdict with the version, commit with author and age, last sync, relay, and what runs."""
    body = page.locator("body")
    expect(page.get_by_role("status")).to_contain_text(f"Airflow {settings['AIRFLOW_VERSION']} is running")
    for text in (
        "production",
        "scheduler",
        "healthy",
        "Count bicycles at the crossing, too",
        "Test Colleague",
    ):
        expect(body).to_contain_text(text)
    expect(body).to_contain_text(delivery.live()[:12])
    for heading in ("Services", "Components", "Live commit", "Last sync", "Relay"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(body).to_contain_text("connected")
    page.context.close()


def test_page_has_no_secret(delivery: Delivery, secrets: dict[str, str]) -> None:
    """It is open to everybody on the network."""
    hidden = {**secrets, "webhook key": delivery.vault("key"), "channel": delivery.vault("channel")}
    for accept in ("text/html", "application/json"):
        text = delivery.http("GET", f"{delivery.webhook}/", headers={"Accept": accept}).text
        assert [name for name, value in hidden.items() if value in text] == []
