"""The endpoints for calls: who gets which answer, and that many calls lead to few syncs."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient
from webhook.app import create_app
from webhook.relay import Timing
from webhook.services import Services
from webhook.settings import Settings

from tests.served import served
from tests.webhook.doubles import GateDouble, Remote, VaultDouble, wait_until
from webhook import jobs, keys, store, sync, trees

TOKEN = {"Authorization": "Bearer relay-token"}


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> VaultDouble:
    monkeypatch.setattr(keys, "ASK_AGAIN_SECONDS", 0)
    monkeypatch.setattr(keys, "ASK_AGAIN_AFTER_FAILURE_SECONDS", 0)
    return VaultDouble()


@pytest.fixture
def app_settings(settings: Settings, tmp_path: Path) -> Settings:
    token = tmp_path / "relay.token"
    token.write_text("relay-token\n")
    # As the role writes it where the vault has none.
    none = tmp_path / "metrics.token"
    none.write_text("\n")
    return replace(settings, relay_token_file=token, metrics_token_file=none, failures_per_minute=1_000)


@pytest.fixture
def app(app_settings: Settings, vault: VaultDouble, request: pytest.FixtureRequest) -> Iterator[Flask]:
    changes: dict[str, Any] = getattr(request, "param", {})
    app = create_app({"TESTING": True, "SETTINGS": replace(app_settings, **changes), "VAULT": vault})
    yield app
    parts: Services = app.extensions["webhook"]
    if parts.settings.is_production:
        parts.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def finished(client: FlaskClient, job: str) -> dict[str, Any]:
    def done() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/jobs/{job}").get_json()
        return found if found["state"] == "done" else None

    result: dict[str, Any] = wait_until(done, what="the job")
    return result


@pytest.mark.parametrize("endpoint", ["/", "/webhook"])
def test_call_is_answered_at_once_and_synced_later(
    client: FlaskClient, remote: Remote, gate: GateDouble, app_settings: Settings, endpoint: str
) -> None:
    release = threading.Event()
    gate.before_answer = lambda: release.wait(60)
    answer = client.post(endpoint, headers={"X-Webhook-Key": "first-key"}, json={"ref": "anything"})
    assert answer.status_code == 202
    job = answer.get_json()["job"]
    assert answer.headers["Location"] == answer.get_json()["url"] == f"/jobs/{job}"
    assert client.get(f"/jobs/{job}").get_json()["state"] in ("queued", "running")
    assert trees.commit_of(trees.Trees(app_settings.trees_dir).live()) is None
    release.set()
    assert finished(client, job)["commit"] == remote.head
    assert trees.commit_of(trees.Trees(app_settings.trees_dir).live()) == remote.head


def test_key_is_rotated_after_the_call(client: FlaskClient, vault: VaultDouble) -> None:
    assert client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 202
    assert client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 409
    wait_until(lambda: vault.key != "first-key")
    assert client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 409
    assert client.post("/webhook", headers={"X-Webhook-Key": vault.key}).status_code == 202


def test_replay_changes_nothing(
    client: FlaskClient, remote: Remote, gate: GateDouble, vault: VaultDouble
) -> None:
    job = client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).get_json()["job"]
    finished(client, job)
    wait_until(lambda: vault.key != "first-key")
    rotated, checked = vault.key, len(gate.checked)
    remote.commit({"dags/two.py": "two = 2\n"})
    for _ in range(20):
        assert client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 409
    assert (vault.key, len(gate.checked)) == (rotated, checked)


@pytest.mark.parametrize("headers", [{}, {"X-Webhook-Key": "wrong"}, {"X-Webhook-Signature": "sha256=00"}])
@pytest.mark.parametrize("app", [{}, {"environment": "development"}], indirect=True)
def test_unverified_is_401_everywhere(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.post("/webhook", headers=headers)
    assert answer.status_code == 401
    assert answer.get_json()["error"]


@pytest.mark.parametrize("app", [{"environment": "development"}], indirect=True)
def test_outside_production_a_verified_call_is_skipped(
    client: FlaskClient, vault: VaultDouble, gate: GateDouble
) -> None:
    for _ in range(2):  # the key is not used up: it may be the production's
        answer = client.post("/webhook", headers={"X-Webhook-Key": "first-key"})
        assert (answer.status_code, answer.get_json()) == (
            200,
            {"status": "skipped", "detail": "not production, skipped"},
        )
    assert client.post("/sync", headers=TOKEN).get_json()["status"] == "skipped"
    assert (vault.key, gate.checked) == ("first-key", [])


@pytest.mark.parametrize("app", [{"repository": None}], indirect=True)
def test_without_a_repository_a_verified_call_is_skipped(client: FlaskClient) -> None:
    answer = client.post("/webhook", headers={"X-Webhook-Key": "first-key"})
    assert (answer.status_code, answer.get_json()["status"]) == (200, "skipped")
    assert client.get("/healthz").status_code == 200
    assert client.get("/jobs/1").status_code == 404


@pytest.mark.parametrize("endpoint", ["/", "/webhook", "/sync", "/relay"])
def test_large_body_is_413(client: FlaskClient, app_settings: Settings, endpoint: str) -> None:
    headers = {"X-Webhook-Key": "first-key", **TOKEN}
    assert (
        client.post(endpoint, headers=headers, data=b"x" * (app_settings.body_limit + 1)).status_code == 413
    )


def test_large_body_without_a_length_is_413(app: Flask, app_settings: Settings) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(app_settings.body_limit // 1024 + 1):
            yield b"x" * 1024

    with served(app) as url:
        answer = httpx.post(f"{url}/webhook", headers={"X-Webhook-Key": "first-key"}, content=chunks())
    assert answer.status_code == 413


def test_no_key_to_verify_with_is_503(
    client: FlaskClient, vault: VaultDouble, app_settings: Settings
) -> None:
    fresh = replace(app_settings, state_dir=app_settings.state_dir / "fresh", environment="development")
    vault.away = True
    app = create_app({"TESTING": True, "SETTINGS": fresh, "VAULT": vault})
    answer = app.test_client().post("/webhook", headers={"X-Webhook-Key": "first-key"})
    assert answer.status_code == 503
    assert "1Password" in answer.get_json()["error"]
    assert app.test_client().post("/webhook").status_code == 401


def test_short_outage_of_the_vault_stops_no_call(client: FlaskClient, vault: VaultDouble) -> None:
    assert client.post("/webhook", headers={"X-Webhook-Key": "wrong"}).status_code == 401  # reads the key
    vault.away = True
    assert client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 202


@pytest.mark.parametrize("app", [{"failures_per_minute": 5}], indirect=True)
def test_too_many_failures_are_429_for_their_source_and_never_for_a_right_key(client: FlaskClient) -> None:
    def post(source: str, key: str) -> Any:
        return client.post("/webhook", headers={"X-Forwarded-For": source, "X-Webhook-Key": key})

    codes = [post("192.0.2.1", "wrong").status_code for _ in range(8)]
    assert codes == [401] * 5 + [429] * 3
    assert 0 < int(post("192.0.2.1", "wrong").headers["Retry-After"]) <= 60
    # What the caller writes before HAProxy's own entry does not make him somebody else.
    assert post("203.0.113.9, 192.0.2.1", "wrong").status_code == 429
    assert post("192.0.2.2", "wrong").status_code == 401
    assert post("192.0.2.1", "first-key").status_code == 202


def test_hundred_calls_lead_to_two_syncs(
    client: FlaskClient, remote: Remote, gate: GateDouble, app_settings: Settings
) -> None:
    wait_until(lambda: trees.Trees(app_settings.trees_dir).live(), what="the sync at the start")
    release = threading.Event()
    gate.before_answer = lambda: release.wait(60)
    parts: Services = client.application.extensions["webhook"]
    before = len(parts.store.jobs())
    remote.commit({"dags/two.py": "two = 1\n"})
    answers = [client.post("/sync", headers=TOKEN) for _ in range(50)]
    remote.commit({"dags/two.py": "two = 2\n"})  # in the middle: must be live in the end
    answers += [client.post("/sync", headers=TOKEN) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {202}
    release.set()
    names = list(dict.fromkeys(answer.get_json()["job"] for answer in answers))
    assert finished(client, names[-1])["commit"] == remote.head
    assert len(names) <= 2
    assert len(parts.store.jobs()) - before <= 2
    assert trees.commit_of(trees.Trees(app_settings.trees_dir).live()) == remote.head


def test_parallel_calls_over_http_lead_to_two_syncs(
    app: Flask, remote: Remote, app_settings: Settings
) -> None:
    wait_until(lambda: trees.Trees(app_settings.trees_dir).live(), what="the sync at the start")
    parts: Services = app.extensions["webhook"]
    wait_until(lambda: all(job["state"] == "done" for job in parts.store.jobs()))
    before = len(parts.store.jobs())
    commit = remote.commit({"dags/two.py": "two = 2\n"})
    started = time.monotonic()
    with served(app) as url, httpx.Client() as http, ThreadPoolExecutor(16) as pool:

        def call(number: int) -> int:
            # Spread evenly, so that several syncs as short as these could begin in between.
            time.sleep(max(0, started + number * 0.008 - time.monotonic()))
            return http.post(f"{url}/sync", headers=TOKEN).status_code

        codes = list(pool.map(call, range(100)))
        took = time.monotonic() - started
        wait_until(lambda: trees.commit_of(trees.Trees(app_settings.trees_dir).live()) == commit)
        wait_until(lambda: all(job["state"] == "done" for job in parts.store.jobs()))
    assert set(codes) == {202}
    # One for the first call, one for all others; on a machine that takes longer, one more for each second.
    assert len(parts.store.jobs()) - before <= 2 + int(took)


def test_restart_finishes_what_was_accepted(
    app_settings: Settings, vault: VaultDouble, remote: Remote
) -> None:
    parts = create_app({"SETTINGS": app_settings, "VAULT": vault}).extensions["webhook"]
    parts.close()
    lost = jobs.Job("0123456789abcdef", "webhook", time.time(), state="running")
    parts.store.save_job(lost.id, {**vars(lost)})
    commit = remote.commit({"dags/two.py": "two = 2\n"})
    app = create_app({"SETTINGS": app_settings, "VAULT": vault})
    wait_until(lambda: trees.commit_of(trees.Trees(app_settings.trees_dir).live()) == commit)
    assert app.test_client().get(f"/jobs/{lost.id}").get_json()["state"] == "interrupted"
    app.extensions["webhook"].close()


def test_failed_sync_is_tried_again_without_a_call(
    app_settings: Settings,
    vault: VaultDouble,
    gate: GateDouble,
    remote: Remote,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "RETRY_SECONDS", (0.05, 0.1))
    gate.error = "restarting"
    app = create_app({"SETTINGS": app_settings, "VAULT": vault})
    wait_until(lambda: len(gate.checked) >= 3)
    gate.error = None
    wait_until(lambda: trees.commit_of(trees.Trees(app_settings.trees_dir).live()) == remote.head)
    app.extensions["webhook"].close()
    asked = len(gate.checked)
    time.sleep(0.3)
    assert len(gate.checked) == asked


class StoreFault:
    """Keeps the webhook from writing its SQLite file."""

    def __init__(self, kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._kind, self._file = kind, file
        self._patch = monkeypatch
        self._connect = sqlite3.connect
        self._locking: sqlite3.Connection | None = None

    def begin(self) -> None:
        if self._kind == "locked":
            self._locking = self._connect(self._file, isolation_level=None, check_same_thread=False)
            self._locking.execute("BEGIN IMMEDIATE")
            return

        def fail(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        self._patch.setattr(sqlite3, "connect", fail)

    def end(self) -> None:
        if self._locking is not None:
            self._locking.close()
        self._patch.setattr(sqlite3, "connect", self._connect)


@pytest.fixture(params=["disk full", "locked"])
def fault(
    request: pytest.FixtureRequest, app_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoreFault]:
    monkeypatch.setattr(store, "LOCKED_SECONDS", 0.05, raising=False)
    found = StoreFault(request.param, app_settings.state_dir / "webhook.sqlite3", monkeypatch)
    yield found
    found.end()


def live(settings: Settings) -> str | None:
    return trees.commit_of(trees.Trees(settings.trees_dir).live())


def test_write_that_fails_loses_no_call(
    fault: StoreFault, client: FlaskClient, remote: Remote, app_settings: Settings
) -> None:
    wait_until(lambda: live(app_settings), what="the sync at the start")
    fault.begin()
    during = remote.commit({"dags/two.py": "two = 2\n"})
    answer = client.post("/sync", headers=TOKEN)
    assert answer.status_code == 202
    first = answer.get_json()["job"]
    assert finished(client, first)["commit"] == during
    fault.end()
    after = remote.commit({"dags/two.py": "two = 3\n"})
    answer = client.post("/sync", headers=TOKEN)
    assert finished(client, answer.get_json()["job"])["commit"] == after == live(app_settings)
    parts: Services = client.application.extensions["webhook"]
    assert {job["id"]: job["state"] for job in parts.store.jobs()}[first] == "done"
    assert parts.store.trouble is None


def test_write_that_fails_ends_no_thread(
    fault: StoreFault, client: FlaskClient, remote: Remote, gate: GateDouble, app_settings: Settings
) -> None:
    """It begins while a sync runs, so that the thread is the first to meet it."""
    wait_until(lambda: live(app_settings), what="the sync at the start")
    gate.before_answer = fault.begin
    commit = remote.commit({"dags/two.py": "two = 2\n"})
    job = client.post("/sync", headers=TOKEN).get_json()["job"]
    assert finished(client, job)["commit"] == commit
    gate.before_answer = lambda: None
    fault.end()
    assert client.get("/healthz").status_code == 200
    commit = remote.commit({"dags/two.py": "two = 3\n"})
    assert finished(client, client.post("/sync", headers=TOKEN).get_json()["job"])["commit"] == commit


def test_credential_that_cannot_be_noted_is_not_used(fault: StoreFault, client: FlaskClient) -> None:
    """The relay comes again after a 503, with the same call."""
    fault.begin()
    answer = client.post("/webhook", headers={"X-Webhook-Key": "first-key"})
    assert answer.status_code == 503
    assert 0 < int(answer.headers["Retry-After"]) <= Timing().longest_pause
    assert "webhook.sqlite3" in answer.get_json()["error"]
    fault.end()
    assert client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 202


def test_relay_is_heard_and_the_page_is_there_without_a_disk(fault: StoreFault, client: FlaskClient) -> None:
    fault.begin()
    assert client.post("/relay", headers=TOKEN, json={"state": "connected"}).status_code == 204
    page = client.get("/", headers={"Accept": "application/json"}).get_json()
    assert page["relay"]["state"] == "connected"
    assert any("webhook.sqlite3 cannot be read or written" in line for line in page["attention"])
    fault.end()
    assert client.post("/relay", headers=TOKEN, json={"state": "connected"}).status_code == 204
    page = client.get("/", headers={"Accept": "application/json"}).get_json()
    assert not any("webhook.sqlite3" in line for line in page["attention"])


def test_webhook_starts_without_a_disk(
    fault: StoreFault, app_settings: Settings, vault: VaultDouble, remote: Remote
) -> None:
    create_app({"SETTINGS": app_settings, "VAULT": vault}).extensions["webhook"].close()
    commit = remote.commit({"dags/two.py": "two = 2\n"})
    fault.begin()
    app = create_app({"SETTINGS": app_settings, "VAULT": vault})
    wait_until(lambda: live(app_settings) == commit)
    fault.end()
    assert app.test_client().post("/webhook", headers={"X-Webhook-Key": "first-key"}).status_code == 202
    app.extensions["webhook"].close()


def test_file_that_was_removed_is_made_anew(client: FlaskClient, app_settings: Settings) -> None:
    for path in app_settings.state_dir.glob("webhook.sqlite3*"):
        path.unlink(missing_ok=True)
    headers = {"X-Webhook-Key": "first-key"}
    # A connection that was open removes the new file's log when it is closed: the second call may fail, too.
    wait_until(lambda: client.post("/webhook", headers=headers).status_code == 202, what="a call is taken")


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError(), TypeError("a defect")], ids=repr)
def test_sync_that_breaks_off_is_the_last_of_none(
    client: FlaskClient,
    remote: Remote,
    gate: GateDouble,
    app_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    wait_until(lambda: live(app_settings), what="the sync at the start")

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(sync.Syncer, "sync", fail)
    found = finished(client, client.post("/sync", headers=TOKEN).get_json()["job"])
    assert (found["outcome"], type(error).__name__ in found["detail"]) == ("failed", True)
    commit = remote.commit({"dags/two.py": "two = 2\n"})
    assert finished(client, client.post("/sync", headers=TOKEN).get_json()["job"])["commit"] == commit


@pytest.mark.parametrize("endpoint", ["/sync", "/relay"])
@pytest.mark.parametrize(
    "value", [None, "Bearer wrong", "Bearer ", "relay-token", "Basic relay-token", "Bearer \xff"]
)
def test_endpoints_of_the_relay_need_the_token(client: FlaskClient, endpoint: str, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    assert client.post(endpoint, headers=headers, json={"state": "connected"}).status_code == 401


@pytest.mark.parametrize("app", [{"relay_token_file": None}], indirect=True)
def test_without_a_token_the_endpoints_of_the_relay_refuse(client: FlaskClient) -> None:
    assert client.post("/sync", headers={"Authorization": "Bearer "}).status_code == 401


def test_rotated_token_counts_at_once(client: FlaskClient, app_settings: Settings) -> None:
    assert app_settings.relay_token_file is not None
    app_settings.relay_token_file.write_text("new")
    assert client.post("/sync", headers=TOKEN).status_code == 401
    assert client.post("/sync", headers={"Authorization": "Bearer new"}).status_code == 202


def test_relay_is_heard(client: FlaskClient) -> None:
    assert client.post("/relay", headers=TOKEN, json={"state": "connected"}).status_code == 204
    relay = client.get("/", headers={"Accept": "application/json"}).get_json()["relay"]
    assert relay["state"] == "connected"
    assert relay["age_seconds"] < 5
    wrong: Any
    for wrong in ({"state": "x" * 99}, {}, [], None):
        assert client.post("/relay", headers=TOKEN, json=wrong).status_code == 400


def test_healthz_fails_once_nobody_works_on_calls(client: FlaskClient, app: Flask) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok"}
    app.extensions["webhook"].jobs.close()
    assert client.get("/healthz").status_code == 503


def test_healthz_fails_while_a_sync_is_stuck(
    client: FlaskClient, gate: GateDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is there and does nothing any more; one that takes long is well."""
    release, reached = threading.Event(), threading.Event()

    def be_stuck() -> None:
        reached.set()
        release.wait(60)

    gate.before_answer = be_stuck
    job = client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).get_json()["job"]
    assert reached.wait(60)
    assert client.get("/healthz").status_code == 200
    monkeypatch.setattr(jobs, "STUCK_SECONDS", 0)
    assert client.get("/healthz").status_code == 503
    release.set()
    finished(client, job)
    wait_until(lambda: client.get("/healthz").status_code == 200)


def test_healthz_fails_once_nobody_replaces_keys(client: FlaskClient, app: Flask) -> None:
    app.extensions["webhook"].keys.close()
    assert client.get("/healthz").status_code == 503


def test_metrics(client: FlaskClient, app_settings: Settings) -> None:
    job = client.post("/webhook", headers={"X-Webhook-Key": "first-key"}).get_json()["job"]
    finished(client, job)
    client.post("/webhook")
    client.post("/relay", headers=TOKEN, json={"state": "connected"})
    lines = client.get("/metrics").get_data(as_text=True).splitlines()
    assert 'webhook_calls_total{endpoint="webhook",status="202"} 1.0' in lines
    assert 'webhook_calls_total{endpoint="webhook",status="401"} 1.0' in lines
    assert any(line.startswith('webhook_syncs_total{outcome="switched"} 1') for line in lines)
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for name in ("last_successful_sync", "live_commit", "relay_heard"):
        assert abs(float(values[f"webhook_{name}_timestamp_seconds"]) - time.time()) < 60
    assert float(values["webhook_pinned"]) == 0


@pytest.fixture
def metrics_token(app_settings: Settings) -> Path:
    """The file of the token for Prometheus."""
    assert app_settings.metrics_token_file is not None
    return app_settings.metrics_token_file


def test_metrics_without_a_token_are_for_anybody(client: FlaskClient, metrics_token: Path) -> None:
    """And with a file that is gone for nobody: it is unknown whether there is a token."""
    assert client.get("/metrics").status_code == 200
    metrics_token.unlink()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer None"}).status_code == 401


@pytest.mark.parametrize(
    "value",
    [
        *(None, "Bearer wrong", "Bearer ", "Bearer", "scrape", "Basic scrape", "Bearer scrapes"),
        *("Bearer scrap", "Bearer relay-token", "Bearer scrape, Bearer wrong", "Bearer \xe9"),
    ],
)
def test_metrics_with_a_token_are_for_whoever_has_it(
    client: FlaskClient, metrics_token: Path, value: str | None
) -> None:
    """From the next call on, without a restart; the page stays open, and the token opens nothing else."""
    metrics_token.write_text("scrape\n")
    headers = {} if value is None else {"Authorization": value}
    answer = client.get("/metrics", headers=headers)
    assert (answer.status_code, "webhook_pinned" in answer.text) == (401, False)
    right = {"Authorization": "Bearer scrape"}
    assert "webhook_pinned" in client.get("/metrics", headers=right).text
    assert client.post("/sync", headers=right).status_code == 401
    assert client.get("/").status_code == 200


def test_metrics_token_may_have_letters_beyond_ascii(client: FlaskClient, metrics_token: Path) -> None:
    """Prometheus sends the bytes of its file, and WSGI hands on each as a character."""
    metrics_token.write_bytes("schlüssel\n".encode())
    sent = "Bearer schlüssel".encode().decode("latin-1")
    assert client.get("/metrics", headers={"Authorization": sent}).status_code == 200


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{}", b"[" * 100_000], ids=["not text", "empty", "nested"])
def test_state_that_cannot_be_read_stops_neither_page_nor_metrics_nor_calls(
    client: FlaskClient, app_settings: Settings, content: bytes
) -> None:
    finished(client, client.post("/sync", headers=TOKEN).get_json()["job"])
    (app_settings.state_dir / "state.json").write_bytes(content)
    page = client.get("/", headers={"Accept": "application/json"}).get_json()
    assert any("state.json cannot be read" in line for line in page["attention"])
    assert "webhook_pinned NaN" in client.get("/metrics").get_data(as_text=True)
    job = finished(client, client.post("/sync", headers=TOKEN).get_json()["job"])
    assert (job["outcome"], "state.json cannot be read" in job["detail"]) == ("failed", True)


def test_errors_are_json(client: FlaskClient) -> None:
    assert client.get("/nothing").get_json()["error"]
    answer = client.get("/webhook")
    assert (answer.status_code, "POST" in answer.headers["Allow"]) == (405, True)
    assert answer.get_json()["error"]
    assert client.get("/jobs/none").status_code == 404
