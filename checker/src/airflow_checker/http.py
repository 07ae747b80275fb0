"""One call over HTTP or HTTPS. An address may be a secret: no error says it."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


class NoAnswerError(Exception):
    """Nobody answered; the message says why, without the address."""


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, and the header `Date`."""

    status: int
    date: str | None


def call(
    address: str,
    *,
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5,
) -> Answer:
    """Fetch an address, or post a body to it; `timeout` is in seconds for each step.

    Raises:
        NoAnswerError: nobody answers in time.
    """
    parts = urlsplit(address)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with contextlib.closing(_connection(parts.scheme, parts.netloc, timeout)) as connection:
            connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
            with contextlib.closing(connection.getresponse()) as response:
                response.read(2**20)
                return Answer(response.status, response.getheader("Date"))
    except (OSError, ValueError, http.client.HTTPException) as error:
        # What http.client calls invalid it quotes, a token of a header, too.
        known = isinstance(error, OSError) and error.strerror
        raise NoAnswerError(str(known or type(error).__name__)) from None


def _connection(scheme: str, host: str, timeout: float) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(host, timeout=timeout)
    import ssl  # costs more than all else, where it is not needed

    return http.client.HTTPSConnection(host, timeout=timeout, context=ssl.create_default_context())
