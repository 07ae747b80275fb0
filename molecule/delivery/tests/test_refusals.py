"""A bad push never reaches the scheduler, and everybody who should know is told why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, Delivery, dag_source, new_name
from playwright.sync_api import Browser, expect

BAD = {
    "syntax": "def broken(:\n",
    "import": "import a_module_that_nobody_has\n" + dag_source("delivery_import"),
    "duplicate": dag_source("weather-checker"),
}


@pytest.fixture(params=BAD)
def refused(request: pytest.FixtureRequest, delivery: Delivery) -> Iterator[tuple[str, str, str, str]]:
    """A bad push that was announced, and what was live before it: kind, path, commit, live commit."""
    kind = request.param
    good = delivery.repository.push({f"dags/{new_name('good')}.py": dag_source(new_name("good"))})
    delivery.announce(good)
    delivery.wait_until_live(good)
    name = new_name(kind)
    # A good DAG in the same commit must wait with the bad one.
    files = {f"dags/{name}.py": BAD[kind], f"dags/{name}_beside.py": dag_source(f"{name}_beside")}
    commit = delivery.repository.push(files, f"Break a DAG ({kind})")
    delivery.announce(commit)
    yield kind, f"{name}.py", commit, good
    again = delivery.repository.go_back_to(good)
    delivery.sync("once")
    delivery.wait_until_live(again)


def test_refused_commit_is_reported_and_what_was_live_stays(
    delivery: Delivery, browser: Browser, refused: tuple[str, str, str, str]
) -> None:
    """On the host, in Airflow, on the status page, in Slack, on GitHub, and by the exit code."""
    kind, path, commit, good = refused
    refusal = wait_for("the refusal", lambda: delivery.refusal(commit), PATIENCE, pause=0.25)
    assert delivery.live() == good
    assert [reason["kind"] for reason in refusal["reasons"]] == [kind]
    assert path in str(refusal["reasons"])
    assert any("refused" in line for line in delivery.page()["attention"])

    once = delivery.sync("once")
    assert once.rc == 3, once.stdout + once.stderr
    assert path in once.stdout
    assert kind in once.stdout
    assert delivery.live() == good

    status = delivery.wait_for_status(commit, "failure")
    assert path in status["description"] or commit[:12] in status["description"]
    messages = wait_for("Slack", lambda: delivery.chat(commit[:12]), PATIENCE, pause=0.25)
    assert len(messages) == 1, "the second sync of the same refusal must not tell it again"
    assert path in messages[0]

    # Airflow has looked at the folder several times since.
    assert delivery.known(path.replace(".py", "_beside")) is None
    assert delivery.airflow.get("dags/weather-checker")["fileloc"].endswith("/weather_checker.py")

    page = browser.new_context().new_page()
    page.goto(delivery.webhook)
    expect(page.locator("body")).to_contain_text("the newest commit is refused")
    expect(page.locator("body")).to_contain_text(f"Break a DAG ({kind})")
    expect(page.locator("body")).to_contain_text(path)
    page.context.close()
