"""How the checker calls Slack, the heartbeat and Connect, also through the proxy of the network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from airflow_checker import messages
from airflow_checker.gather import connect
from airflow_checker.http import NoAnswerError, call


class Proxy(ThreadingHTTPServer):
    """Answers in the place of whom it is asked for, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.logins: set[str | None] = set()
        self.refusal = 0
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path))
        self.server.logins.add(self.headers.get("Proxy-Authorization"))
        self.send_response(self.server.refusal or 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_CONNECT = answer

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The network's proxy, as the unit's environment names it."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    server = Proxy()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://someone:p%40ss@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1,.office.example")
    yield server
    server.shutdown()
    server.server_close()


def test_messages_and_heartbeat_go_through_the_proxy(proxy: Proxy) -> None:
    assert messages.post("http://hooks.slack.example/services/T/B/X", {"text": "words"}) == ""
    assert messages.beat("http://beat.example/a?b=c") == ""
    assert connect.ask("http://connect.example", connect.Access("token", "vault")).status == 200
    assert proxy.asked == [
        ("POST", "http://hooks.slack.example/services/T/B/X"),
        ("GET", "http://beat.example/a?b=c"),
        ("GET", "http://connect.example/v1/vaults/vault"),
    ]
    assert proxy.logins == {"Basic c29tZW9uZTpwQHNz"}


@pytest.mark.parametrize(("status", "reason"), [(403, "the proxy: HTTP 403"), (407, "the proxy: HTTP 407")])
def test_tls_goes_through_a_tunnel_of_the_proxy(proxy: Proxy, status: int, reason: str) -> None:
    """It sees the name and nothing else; and what it refuses is told as its own refusal."""
    proxy.refusal = status
    assert messages.post("https://hooks.slack.example/services/T/B/X", {"text": "words"}) == reason
    assert proxy.asked == [("CONNECT", "hooks.slack.example:443")]
    assert proxy.logins == {"Basic c29tZW9uZTpwQHNz"}


def test_proxy_that_is_away_is_named_without_its_login(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://someone:secret@127.0.0.1:9")
    assert messages.beat("http://beat.example/") == "the proxy: Connection refused"


def test_what_needs_no_proxy_is_asked_directly(proxy: Proxy) -> None:
    assert call(f"http://127.0.0.1:{proxy.server_port}/path").status == 200
    assert proxy.asked == [("GET", "/path")]
    with pytest.raises(NoAnswerError):
        call("http://connect.office.example/", timeout=5)
    assert len(proxy.asked) == 1


class _Connect(BaseHTTPRequestHandler):
    """Gives each token the vaults that are in its name."""

    def do_GET(self) -> None:
        token, vault = self.headers["Authorization"].split(" ", 1)[1], self.path.rpartition("/")[2]
        self.send_response(401 if token == "revoked" else 200 if vault in token.split("+") else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def vaults() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Connect) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("tasks", "platform", "known"),
    [
        (("tasks", "tasks"), ("platform", "platform"), (200, 200, False)),
        (("platform", "platform"), ("platform", "platform"), (200, 200, True)),
        (("platform+tasks", "tasks"), ("platform", "platform"), (200, 200, True)),
        (("platform", "platform"), ("platform+other", "platform"), (200, 200, True)),
        (("revoked", "tasks"), ("platform", "platform"), (401, 200, False)),
        (("tasks", "tasks"), ("revoked", "platform"), (200, 401, False)),
        (("tasks", "platform"), ("platform", "platform"), (403, 200, False)),
        (("tasks", "tasks"), None, (200, 200, False)),
    ],
)
def test_connect_says_what_each_token_reads(
    vaults: str, tasks: tuple[str, str], platform: tuple[str, str] | None, known: tuple[int, int, bool]
) -> None:
    """Not names of settings but Connect itself says whether tasks read the platform's vault."""
    accesses = [connect.Access(*access) for access in (tasks, platform) if access]
    answer = connect.ask(vaults, *accesses)
    assert (answer.status, answer.platform_status, answer.reads_platform) == known
