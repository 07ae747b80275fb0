"""Whatever is thrown at any route through HAProxy: no 5xx, no sync, no key used up."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from urllib.parse import quote, urlsplit

import pytest
from delivery import Delivery
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.webhook.routes import ROUTES

EXAMPLES = 150
HAPROXY_ERRORS = 80
"""In ten seconds; from 100 on HAProxy answers this machine by itself, and nothing is tried any more."""

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"]
NAMES = [
    *("X-Webhook-Key", "X-Webhook-Signature", "X-Webhook-Timestamp", "X-Webhook-Nonce", "Authorization"),
    *("Content-Type", "Content-Encoding", "Accept", "Accept-Charset", "Accept-Encoding", "Cookie", "Origin"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Range", "If-None-Match", "User-Agent"),
    *("Expect", "Upgrade", "Connection", "Underscore_d"),
]
ODD_LINES = [
    *("Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 99999999999999999999"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity"),
    *("Host: [::1", "Host: a:99999", "bad name: x", "(parentheses): x", ": x", "X-Folded: a\r\n b", "\0: \0"),
]
"""Of these most are refused by HAProxy, and what it lets pass reaches gunicorn."""

# What may be in a header (RFC 9110, 5.5), and what may be in a path once it is quoted.
TEXT = st.text(
    alphabet=st.characters(min_codepoint=0x20, max_codepoint=0xFF, categories=["L", "N", "P", "S", "Zs"])
)
LATIN = st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=255), max_size=60)
VALUES = TEXT | st.sampled_from(
    [
        *(
            "application/json",
            "application/json; charset=no-such",
            "multipart/form-data; boundary=",
            "text/html",
        ),
        *("application/x-www-form-urlencoded", "*/*;q=abc", "text/html;q=0, */*;q=-1", "gzip", "websocket"),
        *("-1", "1800000000", "0" * 12, "n" * 16, "sha256=" + "0" * 64, "x" * 9_000, "100-continue"),
        *("Bearer relay-token", "Bearer", "Basic Og==", "bytes=9-1", "[::1", "a:99999", "close"),
    ]
)
BODIES = st.binary(max_size=300) | st.sampled_from(
    [
        *(b"{}", b'{"state": "connected"}', b"[" * 5_000, b"\xff\xfe", b'{"a": 1e999}', b"--\r\n\r\n", b"\0"),
        *(b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffff1\r\n"),
    ]
)


def send(host: str, port: int, message: bytes) -> int:
    """Send bytes and no more; return the answer's status, 0 when the connection ended without one."""
    answer = b""
    with socket.create_connection((host, port), timeout=30) as line:
        # It may be refused, and closed, before all was sent.
        with contextlib.suppress(ConnectionError):
            line.sendall(message)
        with contextlib.suppress(ConnectionError):
            while len(answer) < 12 and (data := line.recv(1000)):
                answer += data
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0


@pytest.mark.usefixtures("alone")
def test_no_input_leads_to_a_5xx(delivery: Delivery) -> None:
    """Malformed methods, paths, headers, bodies and framings, the same ones in every run."""
    address = urlsplit(delivery.webhook)
    assert address.hostname
    assert address.port
    errors: deque[float] = deque(maxlen=HAPROXY_ERRORS)
    key, live = delivery.vault("key"), delivery.live()
    accepted = [
        f'webhook_calls_total{{endpoint="{endpoint}",status="202"}}' for endpoint in ("webhook", "sync")
    ]
    before = [delivery.metric(series) for series in accepted]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        # Without shrinking, which would go on for minutes at this pace.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(METHODS),
        st.sampled_from([*ROUTES, "/{}"]),
        LATIN.map(quote) | st.just("\xff\x01 "),
        st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5),
        st.lists(st.sampled_from(ODD_LINES), max_size=1),
        BODIES,
    )
    def attempt(
        method: str, route: str, piece: str, headers: dict[str, str], odd: list[str], body: bytes
    ) -> None:
        if len(errors) == HAPROXY_ERRORS:
            time.sleep(max(0, errors[0] + 10 - time.monotonic()))
        lines = [f"{method} {route.replace('{}', piece)} HTTP/1.1", "Host: x"]
        lines += [*(f"{name}: {value}" for name, value in headers.items()), *odd]
        if not any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in odd):
            lines.append(f"Content-Length: {len(body)}")
        status = send(address.hostname, address.port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        if status >= 400:
            errors.append(time.monotonic())
        assert status < 500
        assert status != 202

    attempt()
    assert [delivery.metric(series) for series in accepted] == before
    assert delivery.vault("key") == key
    assert delivery.live() == live
