"""What the webhook's door keeps out before anything behind it is busy with it."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

import pytest
import requests
from airflow_api import wait_for
from delivery import Delivery

LIMIT_BYTES = 2**20
REQUEST_SECONDS = 10
"""How long a client may take to send its request."""


@pytest.fixture
def line(delivery: Delivery) -> Iterator[socket.socket]:
    """A connection to the webhook's door."""
    address = urlsplit(delivery.webhook)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield connection


def status(line: socket.socket) -> int:
    """Read the status of an answer, 0 when the connection was closed without one."""
    with contextlib.suppress(ConnectionError):
        if answer := line.recv(100):
            return int(answer.split()[1])
    return 0


def test_large_body_is_refused_before_it_is_read(line: socket.socket) -> None:
    """By the length that it states; no more than HAProxy's buffer of it is taken in."""
    line.sendall(f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT_BYTES + 1}\r\n\r\n".encode())
    line.sendall(b"x" * 0x10000)
    line.settimeout(REQUEST_SECONDS / 2)
    assert status(line) == 413


def test_large_body_without_a_length_is_refused(line: socket.socket) -> None:
    """By what it turns out to be."""
    line.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    # It may be refused before all of it was sent.
    with contextlib.suppress(ConnectionError):
        for _ in range(LIMIT_BYTES // 0x10000 + 1):
            line.sendall(chunk)
        line.sendall(b"0\r\n\r\n")
    assert status(line) in (413, 0)


def seconds_open(address: tuple[str, int], start: bytes) -> float:
    """Send the start of a request, then a byte a second; return after how many seconds that was cut off."""
    with socket.create_connection(address, timeout=1) as line:
        line.sendall(start)
        began = time.monotonic()
        while time.monotonic() - began < 3 * REQUEST_SECONDS:
            try:
                line.sendall(b"x")
                answer = line.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                answer = b""
            assert answer == b"" or answer.split()[1] == b"408"
            return time.monotonic() - began
    return math.inf


def test_slow_clients_are_cut_off(delivery: Delivery) -> None:
    """One byte a second keeps no connection open, be it of the headers or of the body."""
    starts = {
        "headers": b"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "body": b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    }
    url = urlsplit(delivery.webhook)
    address = (str(url.hostname), int(url.port or 0))
    with ThreadPoolExecutor() as pool:
        found = dict(zip(starts, pool.map(partial(seconds_open, address), starts.values()), strict=True))
    assert max(found.values()) < REQUEST_SECONDS + 5, found


def test_busy_source_is_answered_by_haproxy_alone(delivery: Delivery) -> None:
    """Whoever keeps failing is work for nobody behind the door, and later may call again."""
    answers: list[requests.Response] = []
    while len(answers) < 500:
        answers.append(
            delivery.http("POST", f"{delivery.webhook}/webhook", headers={"X-Webhook-Key": "wrong"})
        )
        # The webhook itself answers in JSON.
        if not answers[-1].headers["Content-Type"].startswith("application/json"):
            break
    assert answers[-1].status_code == 429
    assert {answer.status_code for answer in answers} == {401, 429}

    def again() -> bool:
        headers = {"X-Webhook-Key": delivery.vault("key")}
        return bool(delivery.http("POST", f"{delivery.webhook}/webhook", headers=headers).status_code == 202)

    wait_for("the end of the pause", again, 90, pause=2)
