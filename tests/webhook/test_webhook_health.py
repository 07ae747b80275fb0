"""The status page on what the host's checker found: never green when that is not, or when it is silent."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow_checker import report
from flask.testing import FlaskClient
from webhook.airflow_status import AirflowStatus
from webhook.app import create_app
from webhook.settings import Settings

from tests.webhook.doubles import VaultDouble
from webhook import health

FINDING = {
    "id": "service-down",
    "severity": "critical",
    "since": "2026-01-01T00:00:00Z",
    "subject": "weather",
    "what": "The container of weather is <exited>.",
    "advice": "Run site.yml.",
    "anchor": "light-service-down",
}
SERVICE = {"name": "weather", "state": "exited", "health": "", "since": "2026-01-01T00:00:00Z", "restarts": 2}
Page = Callable[..., tuple[dict[str, Any], str, str]]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Write the host's file; return the page as JSON and HTML, and the metrics. Airflow says it is well."""
    file = tmp_path / "health.json"
    settings = Settings(
        environment="staging", trees_dir=tmp_path, state_dir=tmp_path / "state", health_file=file
    )
    app = create_app({"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()})
    airflow = AirflowStatus(version="2.11.2", components={"scheduler": "healthy"})
    monkeypatch.setattr(type(app.extensions["webhook"].airflow), "status", lambda self: airflow)
    client: FlaskClient = app.test_client()

    def fetch(written: Any) -> tuple[dict[str, Any], str, str]:
        if written is not None:
            file.write_text(written if isinstance(written, str) else json.dumps(written))
        found = client.get("/", headers={"Accept": "application/json"}).get_json()
        text = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
        return found, text, client.get("/metrics").get_data(as_text=True)

    return fetch


def written(age: float = 0, **changes: Any) -> dict[str, Any]:
    document = {"overall": "ok", "doing": "", "findings": [], "services": [], "figures": {}, "schema": 1}
    return {**document, "generated": report.iso(time.time() - age), **changes}


def test_all_is_well_when_both_say_so(page: Page) -> None:
    found, text, metrics = page(written())
    assert found["attention"] == []
    assert "All is well" in text
    assert "airflow_platform_health 0.0" in metrics


@pytest.mark.parametrize(
    ("severity", "overall", "level"), [("critical", "critical", 2), ("warning", "warning", 1)]
)
def test_finding_needs_a_look(page: Page, severity: str, overall: str, level: int) -> None:
    found, text, metrics = page(
        written(overall=overall, findings=[{**FINDING, "severity": severity}], services=[SERVICE])
    )
    assert found["attention"] == ["The container of weather is <exited>. Run site.yml."]
    assert "Needs a look" in text
    assert "is &lt;exited&gt;. Run site.yml." in text
    assert '<span class="tag bad">exited</span>' in text
    assert f"airflow_platform_health {level}.0" in metrics


def test_notice_can_wait(page: Page) -> None:
    found, text, _ = page(written(findings=[{**FINDING, "severity": "notice"}]))
    assert found["attention"] == []
    assert "All is well" in text


def test_verdict_without_a_finding_is_not_green(page: Page) -> None:
    assert page(written(overall="critical"))[0]["attention"] == ["the checker's verdict is critical"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has not said anything yet"),
        (written(age=200), "is silent since"),
        (written(age=-1000), "is silent since"),
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ({**written(), "overall": "fine"}, "cannot be read"),
        ({**written(), "generated": None}, "cannot be read"),
    ],
)
def test_silence_is_not_green(page: Page, content: Any, words: str) -> None:
    found, text, metrics = page(content)
    assert any(words in line for line in found["attention"])
    assert "Needs a look" in text
    assert "airflow_platform_health 3.0" in metrics


def test_host_and_page_agree_on_silence() -> None:
    assert health.SILENT_SECONDS == report.SILENT_SECONDS
