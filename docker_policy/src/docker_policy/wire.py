"""HTTP/1.1 on a socket: what Docker's clients use of it, and nothing that could be read in two ways.

A connection has one request and one answer. So nothing that follows a request can become another one.
"""

import json
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from docker_policy.errors import RefusedError, malformed

LARGEST_HEAD = 32 * 2**10
LARGEST_BODY = 2**20
CHUNK = 2**16
MOST_HEADERS = 64
REQUEST_SECONDS = 10
"""A request is there within this time, or is refused."""

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,8191}) HTTP/1\.1")
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):([\t -~\x80-\xff]*)")
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([\t -~]*))?")
_LENGTH = re.compile(r"[0-9]{1,10}")

REASONS = {400: "Bad Request", 403: "Forbidden", 404: "Not Found", 413: "Content Too Large"}
REASONS |= {200: "OK", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable"}


class ClosedError(Exception):
    """The other side closed the connection before it had sent anything, or was gone in the middle."""


@dataclass(frozen=True)
class Request:
    """What a client sent. Names of headers are in lower case, and each is there once."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class ResponseHead:
    """The beginning of Docker's answer."""

    status: int
    reason: str
    headers: Mapping[str, str]


def read_request(connection: socket.socket) -> Request:
    """Read the connection's request.

    Raises:
        RefusedError: it is malformed, too large or too slow.
        ClosedError: there is none.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    head, rest = _read_head(connection, deadline)
    request = parse_request_head(head)
    length = body_length(request)
    body = bytearray(rest)
    while len(body) < length:
        body += _receive(connection, deadline)
    if len(body) > length:
        raise malformed("more follows the request; a connection has one request", "body")
    return Request(request.method, request.path, request.query, request.headers, bytes(body))


def _read_head(connection: socket.socket, deadline: float) -> tuple[bytes, bytes]:
    """Return the head without the empty line that ends it, and what came with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        if len(received) > LARGEST_HEAD:
            raise malformed("the request's headers are too large", "headers")
        if b"\n\n" in received:
            raise malformed("a line ends with a bare line feed", "headers")
        received += _receive(connection, deadline)
    head, _, rest = received.partition(b"\r\n\r\n")
    if len(head) > LARGEST_HEAD:
        raise malformed("the request's headers are too large", "headers")
    return head, rest


def _receive(connection: socket.socket, deadline: float) -> bytes:
    remaining = deadline - time.monotonic()
    try:
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        data = connection.recv(CHUNK)
    except TimeoutError:
        raise malformed(f"the request was not there after {REQUEST_SECONDS} s") from None
    except OSError:
        data = b""
    if not data:
        raise ClosedError
    return data


def parse_request_head(head: bytes) -> Request:
    """Return a request without its body.

    Raises:
        RefusedError: it is malformed.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if not match:
        raise malformed("the request line is malformed", "request")
    path, _, query = match[2].partition("?")
    return Request(match[1], path, query, _headers(lines))


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > MOST_HEADERS:
        raise malformed("there are too many headers", "headers")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if not match:
            raise malformed("a header is malformed", "headers")
        name = match[1].lower()
        if name in headers:
            raise malformed("the header is there more than once", name)
        headers[name] = match[2].strip(" \t")
    return headers


def body_length(request: Request) -> int:
    """Return how long the body is, in bytes.

    Raises:
        RefusedError: the headers say something else than one length, or it is too much.
    """
    for name in ("transfer-encoding", "content-encoding", "expect", "trailer"):
        if name in request.headers:
            raise RefusedError("Docker's clients send no such header", field=name, status=501)
    length = request.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise malformed("it is not a number", "content-length")
    if int(length) > LARGEST_BODY:
        raise RefusedError(f"it is larger than {LARGEST_BODY} bytes", field="body", status=413)
    return int(length)


def write_request(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return a request for Docker."""
    lines = [f"{method} {target} HTTP/1.1", "Host: docker", *(f"{name}: {value}" for name, value in headers)]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def read_response_head(connection: socket.socket) -> tuple[ResponseHead, bytes]:
    """Read the beginning of Docker's answer, and what of its body came with it.

    Raises:
        ClosedError: there is no answer.
        RefusedError: it is malformed.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(CHUNK)
        if not data or len(received) > LARGEST_HEAD:
            raise ClosedError
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    match = _STATUS_LINE.fullmatch(first)
    try:
        headers = _headers(lines)
    except RefusedError:
        match = None
    if not match:
        raise RefusedError("Docker's answer is malformed", status=502)
    return ResponseHead(int(match[1]), match[2] or "", headers), rest


def write_response_head(status: int, reason: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the beginning of an answer."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def write_error(status: int, message: str) -> bytes:
    """Return an answer in the form of Docker's own errors."""
    body = json.dumps({"message": message}).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    return write_response_head(status, REASONS.get(status, "Error"), headers) + body
