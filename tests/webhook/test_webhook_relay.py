"""The relay, with its real times, against a smee-compatible server on loopback: the webhook is always told.

One push and one fault at a time. `smee-client` 5.0.0 fails in all of these.
"""

import email.utils
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask, request
from flask.typing import ResponseReturnValue
from hypothesis import given
from hypothesis import strategies as st
from webhook.relay import parse_event
from webhook.retry_after import retry_after

from sandbox import smee
from tests.webhook.doubles import wait_until
from tests.webhook.network import Line, Server

Process = subprocess.Popen[str]
Start = Callable[..., Process]

CHANNEL = "/a-channel"
PUSH = {"ref": "refs/heads/production", "text": "é \u2028 <&>", "number": 1.5}


class Webhook:
    """Takes the relay's calls, and answers what a test says."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.states: list[str] = []
        self.answers: list[int] = []
        self.answer = 202
        self.setbacks: list[tuple[str, int, str]] = []
        """For the next requests: path, status and `Retry-After`."""
        self.turned_away: list[float] = []
        """When that happened."""
        app = Flask("webhook-double")

        @app.before_request
        def turn_away() -> ResponseReturnValue | None:
            if self.setbacks and self.setbacks[0][0] == request.path:
                _, status, seconds = self.setbacks.pop(0)
                self.turned_away.append(time.monotonic())
                return "", status, {"Retry-After": seconds}
            return None

        @app.post("/webhook")
        def webhook() -> ResponseReturnValue:
            status = self.answers.pop(0) if self.answers else self.answer
            if status == 202:
                self.calls.append(
                    ({name.lower(): value for name, value in request.headers}, request.get_data())
                )
                self.told.append(("call", time.monotonic()))
            return "", status

        @app.post("/sync")
        def sync() -> ResponseReturnValue:
            if request.headers.get("Authorization") != "Bearer relay-token":
                return "", 401
            self.told.append(("sync", time.monotonic()))
            return "", 202

        @app.post("/relay")
        def relay() -> ResponseReturnValue:
            self.states.append(request.get_json()["state"])
            return "", 204

        self.server = Server(app)

    def told_since(self, moment: float) -> float | None:
        """Return when it was first told after a moment: by the call, or by a request to sync."""
        return next((at for _, at in self.told if at >= moment), None)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    webhook.server.start()
    yield webhook
    webhook.server.stop()


@pytest.fixture
def channels() -> Iterator[Server]:
    server = Server(smee.create_app())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def line(channels: Server) -> Iterator[Line]:
    line = Line(channels.port)
    yield line
    line.close()


@pytest.fixture
def start_relay(start: Start, line: Line, webhook: Webhook, tmp_path: Path) -> Start:
    (tmp_path / "token").write_text("relay-token\n")

    def start_relay(**more: str) -> Process:
        arguments = ["--source", line.url + CHANNEL, "--target", f"{webhook.server.url}/webhook"]
        return start("webhook.relay", *arguments, "--token-file", str(tmp_path / "token"), **more)

    return start_relay


@pytest.fixture
def relay(start_relay: Start, webhook: Webhook) -> Process:
    """A relay that is connected and has asked for its first sync."""
    process = start_relay()
    wait_until(lambda: ("sync" in [kind for kind, _ in webhook.told]) and webhook.states, 60, "first sync")
    webhook.told.clear()
    return process


def push(channels: Server, **more: str) -> None:
    """Post to the channel as GitHub's runner does. The answer is 200 even if nobody hears it."""
    body = json.dumps({**PUSH, **more}).encode()
    headers = {"X-Webhook-Key": "a-key", "Content-Type": "application/json", "X-GitHub-Event": "push"}
    assert httpx.post(channels.url + CHANNEL, content=body, headers=headers).status_code == 200


@pytest.mark.usefixtures("relay")
def test_call_passes_with_headers_and_body_as_received(channels: Server, webhook: Webhook) -> None:
    push(channels)
    ((headers, body),) = wait_until(lambda: webhook.calls)
    assert headers["x-webhook-key"] == "a-key"
    assert headers["x-github-event"] == "push"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == webhook.server.url.removeprefix("http://")
    assert body == json.dumps(PUSH, separators=(",", ":"), ensure_ascii=False).encode()
    assert not {"query", "timestamp", "body"} & set(headers)


@pytest.mark.usefixtures("relay")
def test_webhook_down_for_8_seconds(channels: Server, webhook: Webhook) -> None:
    webhook.server.stop()
    push(channels)
    time.sleep(8)  # the fault itself
    webhook.server.start()
    up_again = time.monotonic()
    wait_until(lambda: webhook.calls, what="the call")
    assert webhook.told[0][1] - up_again < 5


@pytest.mark.usefixtures("relay")
def test_webhook_answers_503_three_times(channels: Server, webhook: Webhook) -> None:
    webhook.answers = [503, 503, 503]
    push(channels)
    wait_until(lambda: not webhook.answers, what="three refusals")
    last_refusal = time.monotonic()
    wait_until(lambda: webhook.calls, what="the call")
    assert webhook.told[0][1] - last_refusal < 5


@pytest.mark.usefixtures("relay")
def test_connection_is_reset(channels: Server, line: Line, webhook: Webhook) -> None:
    line.reset()
    push(channels)  # nobody listens: this one is lost
    over = time.monotonic()
    wait_until(lambda: webhook.told_since(over), what="told")


@pytest.mark.usefixtures("relay")
def test_path_goes_mute(channels: Server, line: Line, webhook: Webhook) -> None:
    """The longest: smee pings every 30 s, so only then can silence be told from peace."""
    line.go_mute()
    muted = time.monotonic()
    push(channels)
    wait_until(lambda: webhook.told_since(muted), what="told")
    wait_until(lambda: "reconnecting" in webhook.states and webhook.states[-1] == "connected")


@pytest.mark.usefixtures("relay")
def test_channel_server_is_restarted(channels: Server, webhook: Webhook) -> None:
    channels.stop()
    time.sleep(2)  # the fault itself
    channels.start()
    push(channels)  # before the relay is back
    over = time.monotonic()
    wait_until(lambda: webhook.told_since(over), what="told")


def test_relay_is_killed(relay: Process, start_relay: Start, channels: Server, webhook: Webhook) -> None:
    relay.kill()
    relay.wait()
    push(channels)
    over = time.monotonic()
    start_relay()  # as systemd does
    wait_until(lambda: webhook.told_since(over), what="told")


def test_webhook_and_channel_down_at_once(relay: Process, channels: Server, webhook: Webhook) -> None:
    channels.stop()
    webhook.server.stop()
    time.sleep(1)
    channels.start()
    time.sleep(4)  # so the relay is back, and asks in vain
    webhook.server.start()
    up_again = time.monotonic()
    wait_until(lambda: webhook.told_since(up_again), what="told")
    assert relay.poll() is None


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("status", [401, 409, 413, 429])
def test_refused_call_is_not_repeated(channels: Server, webhook: Webhook, status: int) -> None:
    webhook.answers = [status]
    push(channels)
    push(channels)
    wait_until(lambda: webhook.calls)
    assert [kind for kind, _ in webhook.told if kind == "call"] == ["call"]
    if status == 429:  # lost by no fault of its own
        wait_until(lambda: "sync" in [kind for kind, _ in webhook.told])


def test_pings_are_passed_on_to_the_status_page(start_relay: Start, line: Line, webhook: Webhook) -> None:
    quick = Server(smee.create_app(ping_seconds=0.1))
    quick.start()
    line.target = quick.port
    start_relay()
    wait_until(lambda: webhook.states.count("connected") > 5)
    quick.stop()
    wait_until(lambda: webhook.states[-1] == "reconnecting")


def test_junk_on_the_channel_stops_nothing(relay: Process, channels: Server, webhook: Webhook) -> None:
    for junk in (
        {
            "body": {"a": 1},
            "x-webhook-key": "k\r\nX-Evil: 1",
            "bad name": "x",
            "": "",
            "é": "x",
            "n": 1,
            "x": "\u2028",
        },
        {
            "body": None,
            "content-length": "5",
            "transfer-encoding": "chunked",
            "host": "evil",
            "expect": "100-continue",
        },
        {"x-webhook-key": "k"},
        {"body": "text", "query": {"a" * 70_000: "b"}, "content-type": " padded "},
        {},
    ):
        assert httpx.post(f"{channels.url}{CHANNEL}/redeliver", json=junk).status_code == 200
    push(channels)
    wait_until(lambda: len(webhook.calls) == 4)
    assert [body for _, body in webhook.calls][:3] == [b'{"a":1}', b"null", b'"text"']
    assert all("x-evil" not in headers for headers, _ in webhook.calls)
    assert webhook.calls[1][0]["host"] != "evil"
    assert relay.poll() is None


def test_wrong_answers_of_the_channel_are_survived(start: Start, webhook: Webhook, tmp_path: Path) -> None:
    """A page instead of a stream, an error, a redirect to nowhere; then the channel is back."""
    answers = [("<html>", 200), ("", 500), ("", 404)]
    real = smee.create_app()

    def app(environ: dict[str, object], start_response: Callable[..., object]) -> object:
        if answers:
            body, status = answers.pop(0)
            start_response(f"{status} X", [("Content-Type", "text/html")])
            return [body.encode()]
        return real(environ, start_response)  # type: ignore[arg-type]

    server = Server(app)  # type: ignore[arg-type]
    server.start()
    (tmp_path / "token").write_text("relay-token")
    start(
        "webhook.relay",
        *("--source", server.url + CHANNEL, "--target", f"{webhook.server.url}/webhook"),
        *("--token-file", str(tmp_path / "token")),
    )
    wait_until(lambda: webhook.told)
    server.stop()


@pytest.mark.usefixtures("start_relay")
@pytest.mark.parametrize(
    "location", ["/another-channel", "https://smee.example/another-channel", None], ids=str
)
def test_redirect_does_not_tell_the_channels_address(
    start: Start, webhook: Webhook, tmp_path: Path, location: str | None
) -> None:
    """Who knows the address can read the channel and write to it. Every way to name it is tried."""
    seen: list[str] = []

    def app(environ: dict[str, object], start_response: Callable[..., object]) -> object:
        seen.append(str(environ["PATH_INFO"]))
        target = location or f"{server.url.upper()}{CHANNEL}/"
        start_response("302 Found", [("Location", target), ("Content-Length", "0")])
        return [b""]

    server = Server(app)  # type: ignore[arg-type]
    server.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(30)
        process = start(
            "webhook.relay",
            # Not as httpx would write it.
            *("--source", server.url.replace("http", "HTTP") + CHANNEL, "--target", webhook.server.url),
            *("--token-file", str(tmp_path / "token")),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        messages = [notify.recv(4096).decode() for _ in range(3)]
    process.terminate()
    output, _ = process.communicate(timeout=60)
    server.stop()
    assert seen[0] == CHANNEL
    assert "disconnected: HTTP 302: the channel has moved, enter its new address in 1Password" in output
    for text in (output, *messages):
        assert "channel/" not in text
        assert CHANNEL.strip("/") not in text
        assert "another-channel" not in text


def test_channel_that_asks_for_time_gets_it(start_relay: Start, line: Line, webhook: Webhook) -> None:
    """Otherwise a server that is overloaded is asked five times a second by everybody."""
    seen: list[float] = []
    real = smee.create_app()

    def app(environ: dict[str, object], start_response: Callable[..., object]) -> object:
        seen.append(time.monotonic())
        if len(seen) == 1:
            start_response("429 X", [("Retry-After", "2"), ("Content-Length", "0")])
            return [b""]
        return real(environ, start_response)  # type: ignore[arg-type]

    server = Server(app)  # type: ignore[arg-type]
    server.start()
    line.target = server.port
    start_relay()
    wait_until(lambda: webhook.told)
    server.stop()
    assert seen[1] - seen[0] >= 2


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("path", ["/sync", "/webhook"])
def test_webhook_that_asks_for_time_gets_it(
    channels: Server, line: Line, webhook: Webhook, path: str
) -> None:
    webhook.setbacks = [(path, 503, "2")]
    push(channels) if path == "/webhook" else line.reset()
    wait_until(lambda: webhook.told)
    assert webhook.told[0][1] - webhook.turned_away[0] >= 2


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize(
    ("path", "status", "seconds"), [("/webhook", 503, "600"), ("/sync", 503, "600"), ("/sync", 429, "1")]
)
def test_webhook_that_is_back_is_told_soon(
    channels: Server, line: Line, webhook: Webhook, path: str, status: int, seconds: str
) -> None:
    """HAProxy asks for a long wait whatever the fault; and what is over in a second is no wait of 30."""
    webhook.setbacks = [(path, status, seconds)]
    push(channels) if path == "/webhook" else line.reset()
    wait_until(lambda: webhook.turned_away)
    wait_until(lambda: webhook.told, what="told")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 400, float("inf")),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        *((text, None) for text in ("", "-1", "1.5", "soon", "²", "Thu, 99 Jan 2026 00:00:00 GMT")),
    ],
)
def test_time_that_is_asked_for(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}) == seconds


def test_date_until_which_to_wait() -> None:
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = retry_after({"Retry-After": date})
    assert seconds is not None
    assert 1800 < seconds <= 3600
    assert retry_after({}) is None


def test_systemd_is_told_and_a_stop_is_clean(start_relay: Start, webhook: Webhook, tmp_path: Path) -> None:
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)

        def receive() -> None:
            while "STOPPING=1" not in messages:
                messages.extend(notify.recv(4096).decode().splitlines())

        thread = threading.Thread(target=receive)
        thread.start()
        process = start_relay(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        wait_until(lambda: messages.count("WATCHDOG=1") > 5)
        wait_until(lambda: webhook.told)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        thread.join()
    assert process.returncode == 0
    assert messages[0] == "READY=1"
    assert "STATUS=connected to the channel" in messages
    assert output.splitlines() == ["connected", "asked for a sync", "stopped"]


def test_journal_says_what_happened(relay: Process, channels: Server, line: Line, webhook: Webhook) -> None:
    push(channels)
    wait_until(lambda: webhook.calls)
    line.reset()
    wait_until(lambda: webhook.told_since(webhook.told[0][1] + 0.001))
    relay.terminate()
    output, _ = relay.communicate(timeout=60)
    for line_start in ("connected", "forwarded: HTTP 202", "disconnected: ", "reconnected", "stopped"):
        assert any(entry.startswith(line_start) for entry in output.splitlines()), output
    assert CHANNEL not in output  # who knows the channel can read it and write to it


def test_address_may_come_from_a_file(
    start: Start, channels: Server, webhook: Webhook, tmp_path: Path
) -> None:
    (tmp_path / "source").write_text(channels.url + CHANNEL + "\n")
    process = start(
        "webhook.relay",
        *("--source-file", str(tmp_path / "source"), "--target", f"{webhook.server.url}/webhook"),
    )
    app = channels._app
    wait_until(lambda: app.extensions["channels"].count(CHANNEL[1:]))  # type: ignore[attr-defined]
    push(channels)
    wait_until(lambda: webhook.calls)
    assert CHANNEL not in Path(f"/proc/{process.pid}/cmdline").read_text()


def test_without_a_token_it_does_not_claim_to_have_asked(
    start: Start, channels: Server, line: Line, webhook: Webhook
) -> None:
    """It cannot ask, and says that once."""
    process = start(
        "webhook.relay", "--source", line.url + CHANNEL, "--target", f"{webhook.server.url}/webhook"
    )

    def heard(when: str) -> bool:
        push(channels, when=when)
        return any(when in str(body) for _, body in webhook.calls)

    wait_until(lambda: heard("on the first line"))
    line.reset()
    wait_until(lambda: heard("on the second line"))
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert "reconnected" in output
    assert "asked for a sync" not in output
    assert output.count("cannot be asked to sync") == 1
    assert {kind for kind, _ in webhook.told} == {"call"}


@pytest.mark.parametrize(
    "arguments", [[], ["--source", "x", "--source-file", "y"], ["--source-file", os.devnull + "/x"]]
)
def test_usage(start: Start, arguments: list[str]) -> None:
    assert start("webhook.relay", "--target", "http://127.0.0.1", *arguments).wait() == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


@given(JSON, st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 2]), st.booleans())
def test_body_is_cut_out_exactly(
    body: object, others: dict[str, object], indent: int | None, ensure_ascii: bool
) -> None:
    event = json.dumps({**others, "body": body}, indent=indent, ensure_ascii=ensure_ascii)
    call = parse_event(event)
    assert call is not None
    text = call.body.decode()
    assert text in event.encode(errors="replace").decode()
    if ensure_ascii:
        assert json.loads(text) == body
    for name, value in call.headers.items():
        assert value == value.strip()
        assert not set(name + value) & set(b"\r\n\0")


class Counted(str):
    """A text that counts how many of its characters are copied."""

    copied = 0

    def __getitem__(self, key: Any) -> str:
        part = super().__getitem__(key)
        self.copied += len(part)
        return part


def test_members_cost_the_same_however_many_there_are() -> None:
    """Anybody may post an event of a hundred thousand members; the relay does nothing else meanwhile."""
    event = Counted(json.dumps({**{f"x-{number}": number for number in range(5_000)}, "body": {"a": 1}}))
    call = parse_event(event)
    assert call is not None
    assert call.body == b'{"a": 1}'
    assert 0 < event.copied < 10 * len(event)


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    call = parse_event(text)
    assert call is None or '"body"' in text or "\\u" in text


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", "null", '{"body":}', '{"body": 1', "[" * 100_000, '{"a": ' * 9_999]
)
def test_what_is_no_call(text: str) -> None:
    assert parse_event(text) is None
