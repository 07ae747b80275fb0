"""The channel server does what smee.io does, where a relay depends on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from flask import Flask
from waitress import create_server, wasyncore

from sandbox import smee
from tests.served import served

PING_SECONDS = 0.2


@pytest.fixture
def app() -> Flask:
    return smee.create_app(ping_seconds=PING_SECONDS)


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    with served(app) as url:
        yield url


@pytest.fixture
def listen(url: str) -> Iterator[Callable[[], Iterator[dict[str, str]]]]:
    """Join the channel `one`, and yield its events as they come."""
    with httpx.Client(timeout=10) as client:
        responses: list[httpx.Response] = []

        def listen() -> Iterator[dict[str, str]]:
            request = client.build_request("GET", f"{url}/one", headers={"Accept": "text/event-stream"})
            response = client.send(request, stream=True)
            responses.append(response)
            assert response.headers["Content-Type"] == "text/event-stream"
            event: dict[str, str] = {}
            for line in response.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                else:
                    yield event
                    event = {}

        yield listen
        for response in responses:
            response.close()


def post(url: str, body: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/one", content=body if isinstance(body, bytes) else json.dumps(body), **more)


JSON = {"Content-Type": "application/json"}


def test_ready_then_messages_and_pings(url: str, listen: Callable[[], Iterator[dict[str, str]]]) -> None:
    events = listen()
    assert next(events) == {"id": "0", "event": "ready", "data": "{}"}
    assert next(events) == {"id": "1", "event": "ping", "data": "{}"}
    before = time.time() * 1000
    body = b'{ "b": 1.0, "a": "\\u00e9", "big": 1e21, "half": 0.5 }'
    assert post(url, body, headers={**JSON, "X-Webhook-Key": "k"}, params={"q": "1"}).status_code == 200
    event = next(event for event in events if "event" not in event)
    assert '"body":{"b":1,"a":"é","big":1e+21,"half":0.5}' in event["data"]
    message = json.loads(event["data"])
    assert message["x-webhook-key"] == "k"
    assert message["content-type"] == "application/json"
    assert message["query"] == {"q": "1"}
    assert before - 1 <= message["timestamp"] <= time.time() * 1000


def test_all_listeners_hear_it_and_the_sender_never_knows(
    url: str, listen: Callable[[], Iterator[dict[str, str]]], app: Flask
) -> None:
    assert post(url, {"lost": True}, headers=JSON).status_code == 200
    streams = [listen(), listen()]
    for stream in streams:
        assert next(stream)["event"] == "ready"
    assert app.extensions["channels"].count("one") == 2
    post(url, {"heard": True}, headers=JSON)
    for stream in streams:
        message = next(event for event in stream if "event" not in event)
        assert json.loads(message["data"])["body"] == {"heard": True}


def test_redelivery_is_passed_on_as_it_is(url: str, listen: Callable[[], Iterator[dict[str, str]]]) -> None:
    events = listen()
    next(events)
    httpx.post(f"{url}/one/redeliver", json={"x-any": "thing", "body": 1})
    message = next(event for event in events if "event" not in event)
    assert json.loads(message["data"]) == {"x-any": "thing", "body": 1}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"a=b", {"Content-Type": "text/x"}, 415),
    ],
)
def test_what_smee_refuses(url: str, body: bytes, headers: dict[str, str], status: int) -> None:
    assert post(url, body, headers=headers).status_code == status


def test_bad_channel_page_and_new_channel(url: str) -> None:
    assert httpx.get(f"{url}/bad.name").status_code == 400
    assert (
        httpx.get(f"{url}/one", headers={"Accept": "text/event-stream, */*"})
        .headers["Content-Type"]
        .startswith("text/html")
    )
    answer = httpx.get(f"{url}/new")
    assert answer.status_code == 307
    assert httpx.get(f"{url}{answer.headers['Location']}").status_code == 200


def test_waitress_frees_the_thread_of_a_listener_that_left() -> None:
    """Served as in the sandbox, a relay that reconnects often must not use the threads up."""
    slow = smee.create_app(ping_seconds=1_000)
    sockets: dict[int, object] = {}
    server = create_server(
        slow, map=sockets, host="127.0.0.1", port=0, threads=2, channel_request_lookahead=1
    )
    done = Event()

    def serve() -> None:
        # Closed by the thread that polls the sockets, since poll fails on one that is closed meanwhile.
        while not done.is_set():
            wasyncore.loop(timeout=1, use_poll=True, map=sockets, count=1)
        wasyncore.close_all(sockets)
        server.task_dispatcher.shutdown()

    serving = Thread(target=serve)
    serving.start()
    url = f"http://127.0.0.1:{server.effective_port}/one"
    try:
        for _ in range(4):
            with httpx.stream("GET", url, headers={"Accept": "text/event-stream"}, timeout=10) as response:
                assert next(response.iter_lines()) == "id: 0"
    finally:
        done.set()
        server.pull_trigger()  # wakes the loop
        slow.extensions["channels"].close()
        serving.join()
