"""The status page on backups: the last good one, and a warning when it is old or the last one failed."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from webhook.app import create_app
from webhook.settings import Settings

from tests.webhook.doubles import VaultDouble

DAY = 86_400
GOOD = {
    "name": "airflow-20261122T023456Z-2.6.1.tar",
    "size": 5 * 2**20,
    "airflow_version": "2.6.1",
    "counts": {"dag_run": 12},
    "off_host": True,
}
Page = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """Write the host's file and return the page about it, as JSON and as HTML."""
    file = tmp_path / "backup.json"
    settings = Settings(
        environment="staging",
        trees_dir=tmp_path,
        state_dir=tmp_path / "state",
        airflow_url="http://127.0.0.1:9",
        backup_state_file=file,
    )
    client: FlaskClient = create_app(
        {"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()}
    ).test_client()

    def fetch(written: Any) -> tuple[dict[str, Any], str]:
        if written is not None:
            file.write_text(written if isinstance(written, str) else json.dumps(written))
        found = client.get("/", headers={"Accept": "application/json"}).get_json()
        found["attention"] = [line for line in found["attention"] if "webserver" not in line]
        return found, client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)

    return fetch


@pytest.mark.parametrize("off_host", [True, False])
def test_age_of_the_last_copy_is_shown_where_the_last_backup_has_none(page: Page, off_host: bool) -> None:
    copied = {"name": "airflow-1.tar", "at": time.time() - 3 * DAY}
    last = {**GOOD, "off_host": off_host, "at": time.time()}
    found, text = page({"last_good": last, "last_copied": copied})
    assert found["backup"]["last_copied"]["age_seconds"] == pytest.approx(3 * DAY, abs=60)
    assert ("The last one with a copy elsewhere" in text) != off_host


def test_last_good_one_is_shown(page: Page) -> None:
    found, text = page({"last_good": {**GOOD, "at": time.time() - 3 * 3600}, "last_failure": None})
    assert found["attention"] == []
    assert found["backup"]["last_good"]["name"] == GOOD["name"]
    assert found["backup"]["last_good"]["age_seconds"] == pytest.approx(3 * 3600, abs=60)
    for part in (
        "Backup",
        "3 hours ago",
        "5.0 MiB",
        "Airflow 2.6.1",
        "with a copy elsewhere",
        str(GOOD["name"]),
    ):
        assert part in text


@pytest.mark.parametrize(("days", "warned"), [(0.1, False), (1.9, False), (2.1, True), (30, True)])
def test_old_one_needs_a_look(page: Page, days: float, warned: bool) -> None:
    found, text = page({"last_good": {**GOOD, "at": time.time() - days * DAY}})
    line = "the last good backup is more than two days old"
    assert found["attention"] == ([line] if warned else [])
    assert (line in text) == warned


def test_failure_needs_a_look_beside_the_last_good_one(page: Page) -> None:
    failure = {"at": time.time() - 60, "reason": "too little disk: <b>1 MiB</b> free"}
    found, text = page({"last_good": {**GOOD, "at": time.time() - DAY}, "last_failure": failure})
    assert found["attention"] == ["the last backup failed: too little disk: <b>1 MiB</b> free"]
    assert "1 day ago" in text
    assert "too little disk: &lt;b&gt;1 MiB" in text


def test_failed_copy_is_not_taken_for_a_failed_backup(page: Page) -> None:
    failure = {"at": time.time() - 60, "reason": "copying b.tar to offsite:airflow failed", "copying": True}
    found, text = page({"last_good": {**GOOD, "at": time.time() - 60}, "last_failure": failure})
    line = "the last copy of a backup elsewhere failed: copying b.tar to offsite:airflow failed"
    assert found["attention"] == [line]
    assert line in text


@pytest.mark.parametrize(("days", "warned"), [(0, False), (3, True)])
def test_new_host_has_time_for_its_first_one(page: Page, days: float, warned: bool) -> None:
    found, text = page({"installed_at": time.time() - days * DAY})
    assert found["attention"] == (["no backup was ever taken"] if warned else [])
    assert "none yet" in text


@pytest.mark.parametrize("written", [None, "", "{", "[]", '{"last_good": {"size": 1}}', '{"last_good": 3}'])
def test_file_that_cannot_be_read_is_said(page: Page, written: str | None) -> None:
    found, text = page(written)
    assert any("backup.json cannot be read" in line for line in found["attention"])
    assert "Needs a look" in text
