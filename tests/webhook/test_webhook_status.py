"""The status page: right about what is wrong, for people and programs, and without a secret."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow_checker.lights import LIGHTS, OF_THE_WEBHOOK
from flask import Flask, jsonify
from flask.testing import FlaskClient
from webhook.app import create_app
from webhook.settings import Settings
from webhook.sync import Syncer
from werkzeug.datastructures import Headers

from tests.served import served
from tests.webhook.doubles import GateDouble, Remote, VaultDouble
from tests.webhook.health_document import document, finding
from webhook import airflow_status, lights, state, status

SECRETS = ("first-key", "relay-token", "status-token", "connect-token", "hooks.example")
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


class AirflowDouble:
    """Answers as the webserver of Airflow 2 does: HTTP 200 whatever the health."""

    def __init__(self) -> None:
        self.health: Any = {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:00+00:00"},
            "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": "2026-01-01T00:00:00+00:00"},
            "dag_processor": {"status": None, "latest_dag_processor_heartbeat": None},
        }
        self.app = Flask("airflow")
        self.app.add_url_rule("/health", "health", lambda: jsonify(self.health))
        self.app.add_url_rule(
            "/api/v1/version", "version", lambda: jsonify(version="2.11.2", git_version=None)
        )


@pytest.fixture
def airflow_double(monkeypatch: pytest.MonkeyPatch) -> AirflowDouble:
    monkeypatch.setattr(airflow_status, "REFRESH_SECONDS", 0)
    return AirflowDouble()


@pytest.fixture
def page_settings(settings: Settings, airflow_double: AirflowDouble, tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "token").write_text("relay-token")
    with served(airflow_double.app) as url:
        yield replace(
            settings,
            airflow_url=url,
            relay_token_file=tmp_path / "token",
            github_token="status-token",
            slack_webhook_url="https://hooks.example/services/T/B/X",
            converged_commit_file=tmp_path / "converged",
            environment="staging",  # as production, but nothing runs beside the test
        )


@pytest.fixture
def client(page_settings: Settings) -> FlaskClient:
    app = create_app({"TESTING": True, "SETTINGS": page_settings, "VAULT": VaultDouble()})
    app.extensions["webhook"].store.remember("relay", {"state": "connected", "at": 10**10})
    return app.test_client()


def content(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/", headers={"Accept": "application/json"}).get_json()
    return found


def sync(settings: Settings) -> None:
    Syncer(replace(settings, github_token=None, slack_webhook_url=None)).sync("timer")


def test_all_well(client: FlaskClient, page_settings: Settings, remote: Remote) -> None:
    sync(page_settings)
    found = content(client)
    assert found["attention"] == []
    assert (found["status"], found["airflow_version"]) == ("Airflow 2.11.2 is running", "2.11.2")
    assert found["components"] == dict.fromkeys(("metadatabase", "scheduler", "triggerer"), "healthy")
    live = found["delivery"]["live"]
    assert (live["id"], live["author"], live["subject"]) == (remote.head, "Ann Example", "a change")
    assert 0 <= live["age_seconds"] < 60
    assert found["delivery"]["last_sync"]["outcome"] == "switched"
    page = client.get("/", headers=BROWSER).get_data(as_text=True)
    for part in ("All is well", "Airflow 2.11.2", remote.head[:12], "Ann Example", "scheduler", "connected"):
        assert part in page


def test_everything_that_needs_a_look_is_said(
    client: FlaskClient,
    page_settings: Settings,
    remote: Remote,
    gate: GateDouble,
    airflow_double: AirflowDouble,
) -> None:
    assert page_settings.converged_commit_file is not None
    page_settings.converged_commit_file.write_text(remote.head)
    remote.commit({"site.yml": "--- # new\n"})
    sync(page_settings)
    remote.commit({"dags/two.py": "<script>alert(1)</script>"}, "<b>Break</b> it")
    gate.problems = lambda tree: [{"kind": "syntax", "path": "dags/two.py", "message": "line 1: <script>"}]
    sync(page_settings)
    airflow_double.health["scheduler"]["status"] = "unhealthy"
    client.application.extensions["webhook"].store.remember("relay", {"state": "connected", "at": 0})
    found = content(client)
    assert len(found["attention"]) == 4
    for part in ("scheduler is unhealthy", "newest commit is refused", "site.yml", "relay has gone silent"):
        assert any(part in line for line in found["attention"]), part
    assert found["delivery"]["infrastructure_changed"] == ["site.yml"]
    page = client.get("/", headers=BROWSER).get_data(as_text=True)
    for part in ("Needs a look", "dags/two.py", "line 1: &lt;script&gt;", "&lt;b&gt;Break&lt;/b&gt; it"):
        assert part in page
    assert "<script" not in page


def test_pin_failure_and_silence_of_airflow_are_said(
    client: FlaskClient, page_settings: Settings, remote: Remote, airflow_double: AirflowDouble
) -> None:
    sync(page_settings)
    pinned = remote.head
    Syncer(replace(page_settings, github_token=None)).pin(pinned)
    remote.path.rename(remote.path.with_name("away"))
    sync(page_settings)
    airflow_double.health = ["not", "health"]
    attention = content(client)["attention"]
    for part in ("Airflow webserver does not answer", "last sync failed", f"pinned to {pinned[:12]}"):
        assert any(part in line for line in attention), part
    assert client.get("/", headers=BROWSER).status_code == 200


def test_names_that_are_not_utf_8_break_nothing(
    client: FlaskClient, page_settings: Settings, remote: Remote, gate: GateDouble
) -> None:
    sync(page_settings)
    remote.commit({"dags/two.py": "x"})
    gate.problems = lambda tree: [{"kind": "import", "path": "dags/caf\udce9.py", "message": "'\udce9'"}]
    sync(page_settings)
    assert r"dags/caf\xe9.py" in client.get("/", headers=BROWSER).get_data(as_text=True)
    json.dumps(content(client), ensure_ascii=False).encode()


def test_stored_names_that_are_not_utf_8_break_nothing(client: FlaskClient, page_settings: Settings) -> None:
    """A state file of an earlier version may have them."""
    found = state.State()
    commit = state.Commit("1" * 40, "Ann", 1e9, "a change")
    found.refuse(commit, [state.Reason("import", "dags/caf\udce9.py", "'\udce9'")], 1e9)
    state.save(page_settings.state_dir / "state.json", found)
    answer = client.get("/", headers=BROWSER)
    assert answer.status_code == 200
    assert r"dags/caf\udce9.py" in answer.get_data(as_text=True)


def test_before_the_first_sync(client: FlaskClient) -> None:
    found = content(client)
    assert found["delivery"]["live"] is None
    # Nobody has told this page: it knows by itself what to do, and where that is written.
    assert found["attention"] == ["no commit has been synced yet. Run `dag-sync once`."]
    assert "docs/when-something-is-wrong.md#light-never-synced" in client.get("/", headers=BROWSER).get_data(
        as_text=True
    )


def test_unreadable_state_is_said(client: FlaskClient, page_settings: Settings) -> None:
    (page_settings.state_dir / "state.json").write_text("[]")
    assert any("state.json" in line for line in content(client)["attention"])
    assert client.get("/", headers=BROWSER).status_code == 200


def test_working_copy_instead_of_delivery(page_settings: Settings) -> None:
    settings = replace(page_settings, repository=None)
    client = create_app({"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()}).test_client()
    assert content(client)["delivery"] is None
    page = client.get("/", headers=BROWSER).get_data(as_text=True)
    assert "Live commit" not in page
    assert "Airflow 2.11.2" in page


def lit(client: FlaskClient) -> dict[str, str]:
    """What the host's checker is told."""
    return {light["id"]: light["what"] for light in client.get("/lights").get_json()["lights"]}


def test_checker_is_told_what_only_the_webhook_knows(
    client: FlaskClient, page_settings: Settings, remote: Remote, gate: GateDouble
) -> None:
    """All that the page says of commits and of the relay, in the checker's words for it."""
    assert lit(client) == {"never-synced": "No commit has been synced yet."}
    sync(page_settings)
    assert lit(client) == {}
    well = remote.head
    assert page_settings.converged_commit_file is not None
    page_settings.converged_commit_file.write_text(remote.head)
    remote.commit({"site.yml": "--- # new\n"})
    sync(page_settings)
    remote.commit({"dags/two.py": "x"})
    gate.problems = lambda tree: [{"kind": "syntax", "path": "dags/two.py", "message": "line 1"}]
    sync(page_settings)
    store = client.application.extensions["webhook"].store
    store.remember("relay", {"state": "connected", "at": 0})
    told = lit(client)
    assert set(told) == {"infrastructure-changed", "commit-refused", "relay-silent"}
    assert told["commit-refused"] == "The newest commit is refused; the one before it stays live."
    said = {f"{what[0].lower()}{what[1:]} {LIGHTS[light].advice}" for light, what in told.items()}
    assert set(content(client)["attention"]) == said
    store.remember("relay", {"state": "connecting", "at": 10**10})
    gate.problems = lambda tree: []
    Syncer(replace(page_settings, github_token=None)).pin(well)
    remote.path.rename(remote.path.with_name("away"))
    sync(page_settings)
    assert {"relay-reconnecting", "dags-pinned", "sync-failed"} <= set(lit(client))
    (page_settings.state_dir / "state.json").write_text("[]")
    assert set(lit(client)) == {"sync-state-unreadable", "relay-reconnecting"}


def test_file_that_cannot_be_written_is_told(client: FlaskClient) -> None:
    client.application.extensions["webhook"].store.trouble = "webhook.sqlite3 is locked"
    assert lit(client)["jobs-not-kept"] == "Webhook.sqlite3 is locked."


def test_spent_key_is_told_until_it_is_replaced(page_settings: Settings) -> None:
    """A vault that cannot be written to leaves it so, and every call is then a replay."""
    settings = replace(page_settings, environment="production", repository=None)
    app = create_app({"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()})
    parts = app.extensions["webhook"]
    try:
        parts.store.remember("relay", {"state": "connected", "at": 10**10})
        parts.keys.close()
        parts.keys.rotate_if_used()
        assert lit(app.test_client()) == {}
        parts.keys.use(parts.keys.verify(Headers({"X-Webhook-Key": "first-key"}), b""))
        assert set(lit(app.test_client())) == {"key-spent"}
        parts.keys.rotate_if_used()
        assert lit(app.test_client()) == {}
    finally:
        parts.close()


def test_every_light_of_the_webhook_is_one_of_the_checkers() -> None:
    """What it tells under another name would be left out; and both say the same of what to do."""
    assert {*lights.ON_THE_PAGE, "key-spent"} == set(OF_THE_WEBHOOK)
    assert {light: LIGHTS[light].advice for light in OF_THE_WEBHOOK} == lights.ADVICE


def test_page_shows_what_the_webhook_knows_once_and_at_once(page_settings: Settings, tmp_path: Path) -> None:
    """The checker's last look may be half a minute old."""
    file = tmp_path / "health.json"
    settings = replace(page_settings, health_file=file)
    client = create_app({"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()}).test_client()
    found = [finding("never-synced", "", "No commit has been synced yet.")]
    file.write_text(json.dumps(document(overall="warning", findings=found)))
    advice = "Run `dag-sync once`."
    assert content(client)["attention"] == [f"no commit has been synced yet. {advice}"]
    page = client.get("/", headers=BROWSER).get_data(as_text=True)
    assert "docs/when-something-is-wrong.md#light-never-synced" in page
    sync(settings)
    assert content(client)["attention"] == []


def test_no_secret_on_any_page(client: FlaskClient, page_settings: Settings) -> None:
    sync(page_settings)
    client.post("/webhook", headers={"X-Webhook-Key": "first-key"})
    for path in ("/", "/lights", "/metrics", "/healthz"):
        for accept in ("text/html", "application/json"):
            answer = client.get(path, headers={"Accept": accept})
            text = answer.get_data(as_text=True) + json.dumps(dict(answer.headers))
            assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
        ("", "application/json"),
    ],
)
def test_form_follows_the_accept_header(client: FlaskClient, accept: str, kind: str) -> None:
    assert client.get("/", headers={"Accept": accept}).mimetype == kind


def test_ages_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.status.time.time", lambda: 200_000.0)
    ages = [status.ago(at) for at in (200_000, 199_941, 199_940, 196_400, 192_800, 100_000, 300_000, None)]
    assert ages == [
        "0 s ago",
        "59 s ago",
        "1 minute ago",
        "1 hour ago",
        "2 hours ago",
        "1 day ago",
        "0 s ago",
        "never",
    ]


def test_airflow_that_hangs_keeps_one_reader_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get what it said last."""
    asked, answer = threading.Event(), threading.Event()
    answers = iter(["2.10.5", "2.11.2"])

    def ask(client: airflow_status.AirflowClient) -> airflow_status.AirflowStatus:
        found = airflow_status.AirflowStatus(version=next(answers))
        if found.version == "2.11.2":
            asked.set()
            assert answer.wait(60)
        return found

    monkeypatch.setattr(airflow_status, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(airflow_status.AirflowClient, "_ask", ask)
    client = airflow_status.AirflowClient("http://127.0.0.1:9")
    assert client.status().version == "2.10.5"
    found: list[str | None] = []

    def read() -> None:
        found.append(client.status().version)

    first = threading.Thread(target=read, daemon=True)
    first.start()
    assert asked.wait(60)
    others = [threading.Thread(target=read, daemon=True) for _ in range(16)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(5)
    assert found == ["2.10.5"] * 16
    answer.set()
    first.join()
    assert found[-1] == "2.11.2"
