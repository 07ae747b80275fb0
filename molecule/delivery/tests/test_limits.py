"""What HAProxy keeps out of the webhook before anything behind it is busy with it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from airflow_api import wait_for
from delivery import ROOT, Delivery

LIMIT_BYTES = 16 * 2**10
REQUEST_SECONDS = 10
"""How long a client may take to send its headers, and how long to send the body."""
KINDS = ["headers", "body", "large body", "chunks", "large chunks", "large head"]


@pytest.fixture
def line(delivery: Delivery) -> Iterator[socket.socket]:
    """A connection to the webhook's endpoint."""
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


def cut_off(endpoint: str, url: str) -> dict[str, dict[str, Any]]:
    """Have a port called slowly, two callers for each kind, until all were cut off; return what they saw."""
    address = urlsplit(url)
    # The rest of a large request to Airflow is its own server's.
    kinds = ["headers", "body", "chunks"] if endpoint == "airflow" else KINDS
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "bench" / "slow_callers", str(address.hostname), str(address.port)),
            *(f"--callers={2 * len(kinds)}", "--once", "--seconds=60", *(f"--kind={kind}" for kind in kinds)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=90,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return {f"{endpoint}: {kind}": seen for kind, seen in found.items()}


def test_slow_callers_are_cut_off(endpoints: dict[str, str]) -> None:
    """At every port: bytes that come one by one keep no connection open, be they headers or body."""
    with ThreadPoolExecutor() as pool:
        found = {
            kind: seen
            for each in pool.map(cut_off, endpoints, endpoints.values())
            for kind, seen in each.items()
        }
    assert {kind: seen for kind, seen in found.items() if seen["ended"] != seen["opened"]} == {}
    assert max(seen["longest_seconds"] for seen in found.values()) < 2 * REQUEST_SECONDS + 5, found
    assert {status for seen in found.values() for status in seen["answers"]} == {"408", "413"}


def test_busy_source_is_answered_by_haproxy_alone(delivery: Delivery) -> None:
    """Whoever keeps failing is work for no service, and later may call again."""
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
