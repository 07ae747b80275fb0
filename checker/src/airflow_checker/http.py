"""One call over HTTP or HTTPS, by the environment's proxies. An address may be a secret: no error has it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit


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
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    given = dict(headers or {})
    proxy = None
    try:
        proxy = _proxy(parts)
        if proxy and parts.scheme != "https":
            target = f"{parts.scheme}://{parts.netloc}{target}"
            given.update(_login(proxy))
        with contextlib.closing(_connection(parts, proxy, timeout)) as connection:
            connection.request("GET" if body is None else "POST", target, body, given)
            with contextlib.closing(connection.getresponse()) as response:
                response.read(2**20)
                return Answer(response.status, response.getheader("Date"))
    except (OSError, ValueError, http.client.HTTPException) as error:
        # What http.client calls invalid it quotes, a token of a header, too.
        known = isinstance(error, OSError) and error.strerror
        refused = re.match(r"Tunnel connection failed: (\d+)", str(error))
        reason = f"HTTP {refused[1]}" if refused else str(known or type(error).__name__)
        raise NoAnswerError(f"the proxy: {reason}" if proxy else reason) from None


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Return an address's proxy, by `https_proxy`, `no_proxy` and the like; None where there is none."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # costs much, as below

    proxies = getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all")
    if not address or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return urlsplit(address if "://" in address else f"http://{address}")


def _login(proxy: SplitResult) -> dict[str, str]:
    """Return the header with the login that a proxy's address has (RFC 9110, 11.7.1)."""
    if proxy.username is None:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _connection(parts: SplitResult, proxy: SplitResult | None, timeout: float) -> http.client.HTTPConnection:
    host = (proxy or parts).netloc.rpartition("@")[2]
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, timeout=timeout)
    import ssl  # costs more than all else, where it is not needed

    connection = http.client.HTTPSConnection(host, timeout=timeout, context=ssl.create_default_context())
    if proxy:
        connection.set_tunnel(parts.netloc, headers=_login(proxy))
    return connection
