"""`smee-relay`: carries calls from a smee channel to the webhook on this host, over whatever goes wrong
between them.

A channel keeps nothing: what is sent while nobody listens is lost. So after every connect the relay asks the
webhook to sync, and also when it had to give a call up. A lost call then costs seconds, not a deployment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import httpx_sse

from webhook import systemd
from webhook.retry_after import retry_after

log = logging.getLogger("smee-relay")

# Of the caller's connection, not of his message (RFC 9110, 7.6.1), made anew for ours, or no header at all.
_DROPPED_HEADERS = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    *("host", "content-length", "content-encoding", "accept-encoding", "expect"),
    *("body", "query", "timestamp"),
}


@dataclass(frozen=True)
class Timing:
    """All times, in seconds."""

    # smee pings every 30 s. Nothing for longer than that and a little is a dead line, whatever TCP thinks of
    # it.
    silence: float = 35
    connect: float = 5
    # From the request for the channel to its first event.
    first_event: float = 10
    # Reconnects and local deliveries begin with the first pause, double it, and stay at the longest.
    first_pause: float = 0.2
    # app.py asks for 3 s by Retry-After, and the relay waits no longer than this: below 3, lower both.
    longest_pause: float = 3
    # A call that is older is given up. Less than the 300 s after which the webhook refuses a signature
    # anyway.
    delivery_age: float = 240
    local_answer: float = 15
    # After an answer that time alone will not change, such as 401: somebody has to put the token right.
    after_refusal: float = 30
    # A server that asks us to wait longer is not obeyed: by then the host's timer has found the commit.
    longest_asked: float = 300
    # Calls lost in a flood lead to at most one sync in this time.
    between_loss_syncs: float = 30


@dataclass(frozen=True)
class Call:
    """A call as the channel passed it on: headers, the body's exact text, and when it came (monotonic
    seconds).
    """

    headers: dict[bytes, bytes]
    body: bytes
    received_at: float

    @property
    def age(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.received_at


def parse_event(data: str) -> Call | None:
    """Return the call in the data of a message event, or None when there is none in it.

    smee puts the headers, in lower case, beside `body`, `query` and `timestamp` (probot/smee.io,
    lib/server.js). The body is cut out of the text rather than parsed and written again, so that no number or
    escape changes its form.
    """
    try:
        members = {name: (value, text) for name, value, text in _members(data)}
    except (ValueError, RecursionError):
        return None
    if "body" not in members:
        return None
    headers = {
        name.lower().encode(): value.strip().encode("latin-1")
        for name, (value, _) in members.items()
        if name.lower() not in _DROPPED_HEADERS and isinstance(value, str) and _is_header(name, value)
    }
    return Call(headers, members["body"][1].encode(errors="replace"), time.monotonic())


def _members(text: str) -> Iterator[tuple[str, object, str]]:
    """Yield name, value and the value's text for each member of a JSON object.

    Raises:
        ValueError: this is not a JSON object.
    """
    decoder = json.JSONDecoder()
    at = _expect(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, _skip_space(text, at))
        if not isinstance(name, str):
            raise ValueError("a name must be a string")
        start = _skip_space(text, _expect(text, at, ":"))
        value, at = decoder.raw_decode(text, start)
        yield name, value, text[start:at]
        at = _skip_space(text, at)
        if text[at : at + 1] == "}":
            return
        at = _expect(text, at, ",")


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> int:
    at = _skip_space(text, at)
    if text[at : at + 1] != character:
        raise ValueError(f"expected {character}")
    return at + 1


def _is_header(name: str, value: str) -> bool:
    """Say whether this can be sent as a header (RFC 9110, 5.5): anyone can post anything to a channel."""
    token = bool(name) and all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name)
    return token and all(c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff" for c in value)


def _reason(error: Exception) -> str:
    """Say what is wrong with the channel without its address, which httpx's messages have in many places."""
    if isinstance(error, httpx.HTTPStatusError):
        moved = ": the channel has moved, enter its new address in 1Password"
        return f"HTTP {error.response.status_code}" + (moved if error.response.has_redirect_location else "")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return "the channel's address in 1Password is not a URL"
    if isinstance(error, httpx_sse.SSEError):
        return "the channel does not answer with events"
    # The system's words, or the proxy's; other messages quote what was received or would have been sent.
    words = str(error) if isinstance(error, (httpx.ConnectError, httpx.ProxyError)) else ""
    return f"{type(error).__name__}: {words}".rstrip(": ")


@dataclass(frozen=True)
class _Setback:
    """Why something has to be posted again, and how many seconds it waits at least."""

    reason: str
    pause: float = 0


class Relay:
    """Reads the channel, delivers its calls in order, and sees to it that a sync follows every gap."""

    def __init__(
        self, source: str, target: str, token_file: Path | None, timing: Timing | None = None
    ) -> None:
        """`source` is the channel's URL, `target` the webhook's; `token_file` has the token with which the
        relay may ask for a sync and report itself. Without it, it does neither.
        """
        self._source = source
        self._target = httpx.URL(target)
        self._token_file = token_file
        self._timing = timing or Timing()
        self._calls: asyncio.Queue[Call] = asyncio.Queue(maxsize=256)
        self._sync_due = asyncio.Event()
        self._last_loss_sync = float("-inf")
        self._state = "reconnecting"
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        systemd.notify(READY="1", STATUS="connecting")
        # Proxies of the environment lead to the channel, never to this host.
        local = httpx.AsyncClient(
            # No proxy stands in between, but the certificate may be of the office's own authority.
            trust_env=False,
            verify=ssl.create_default_context(),
            timeout=self._timing.local_answer,
        )
        # anyio, which httpx brings, has on every Python what asyncio has from 3.11 on.
        async with local, anyio.create_task_group() as group:
            group.start_soon(self._listen)
            group.start_soon(self._deliver, local)
            if self._token_file is not None:
                group.start_soon(self._request_syncs, local, self._token_file)
                group.start_soon(self._report, local, self._token_file)
            group.start_soon(self._feed_watchdog)

    async def _listen(self) -> None:
        """Keep the line to the channel up."""
        timing = self._timing
        timeout = httpx.Timeout(timing.connect, read=timing.silence)
        failures = 0
        connected_before = False
        while True:
            asked: float | None = None
            try:
                with anyio.fail_after(timing.first_event) as limit:
                    async with (
                        httpx.AsyncClient(timeout=timeout) as client,
                        httpx_sse.aconnect_sse(client, "GET", self._source) as stream,
                    ):
                        stream.response.raise_for_status()
                        async for event in stream.aiter_sse():
                            limit.deadline = math.inf
                            if event.event == "ready":
                                failures = 0
                                self._connected(again=connected_before)
                                connected_before = True
                            elif event.event == "ping":
                                self._heard.set()
                            elif event.event == "message":
                                self._take(event.data)
                reason = "the channel closed the line"
            except httpx.ReadTimeout:
                reason = f"nothing heard for {timing.silence:g} s"
            except TimeoutError:
                reason = f"no event within {timing.first_event:g} s"
            except (httpx.HTTPError, httpx_sse.SSEError, httpx.InvalidURL) as error:
                reason = _reason(error)
                if isinstance(error, httpx.HTTPStatusError):
                    asked = retry_after(error.response.headers)
            self._state = "reconnecting"
            self._heard.set()
            failures += 1
            pause = max(self._pause(failures), min(asked or 0, timing.longest_asked))
            log.warning("disconnected: %s; next try in %.1f s", reason, pause)
            systemd.notify(STATUS=f"reconnecting: {reason}")
            await asyncio.sleep(pause)

    def _connected(self, again: bool) -> None:
        self._state = "connected"
        log.info("reconnected" if again else "connected")
        systemd.notify(STATUS="connected to the channel")
        self._sync_due.set()
        self._heard.set()

    def _take(self, data: str) -> None:
        call = parse_event(data)
        if call is None:
            log.warning("ignored a message that is not a call")
            return
        try:
            self._calls.put_nowait(call)
        except asyncio.QueueFull:
            self._lost("dropped a call: too many are waiting")

    def _lost(self, message: str) -> None:
        """Make up for a lost call with a sync."""
        log.error("%s", message)
        now = time.monotonic()
        if now - self._last_loss_sync >= self._timing.between_loss_syncs:
            self._last_loss_sync = now
            self._sync_due.set()

    async def _deliver(self, local: httpx.AsyncClient) -> None:
        """Post the calls in order, each until it is answered or too old."""
        while True:
            call = await self._calls.get()
            tries = 0
            while True:
                setback = await self._post_call(local, call)
                if setback is None:
                    break
                tries += 1
                if call.age >= self._timing.delivery_age:
                    self._lost(f"gave up a call after {call.age:.0f} s and {tries} tries: {setback.reason}")
                    break
                if tries == 1:
                    log.warning("the webhook does not take a call yet: %s", setback.reason)
                await asyncio.sleep(max(self._pause(tries), setback.pause))

    async def _post_call(self, local: httpx.AsyncClient, call: Call) -> _Setback | None:
        """Post a call once; return None when that settled it, else why it has to be tried again."""
        try:
            response = await local.post(self._target, content=call.body, headers=call.headers)
        except httpx.LocalProtocolError:  # its message quotes the header, which may be a key
            log.warning("ignored a call that cannot be sent")
            return None
        except httpx.HTTPError as error:
            return _Setback(type(error).__name__)
        if response.is_server_error:
            return self._setback(response)
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self._lost("the webhook turned a call away: HTTP 429")
        else:
            outcome = "forwarded" if response.is_success else "forwarded, refused"
            log.info("%s: HTTP %d after %.1f s", outcome, response.status_code, call.age)
        return None

    async def _request_syncs(self, local: httpx.AsyncClient, token_file: Path) -> None:
        """Ask for a sync whenever one is due, until the webhook takes the request."""
        while True:
            await self._sync_due.wait()
            self._sync_due.clear()  # before the request: a gap that opens while it is under way asks again
            tries = 0
            while setback := await self._post_own(local, token_file, "/sync", {}):
                tries += 1
                if tries == 1:
                    log.warning("the webhook does not take the request for a sync yet: %s", setback.reason)
                await asyncio.sleep(max(self._pause(tries), setback.pause))
            log.info("asked for a sync")

    async def _report(self, local: httpx.AsyncClient, token_file: Path) -> None:
        """Tell the webhook how the line is, whenever that was heard; the next ping retries."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            if setback := await self._post_own(local, token_file, "/relay", {"state": self._state}):
                log.debug("the webhook was not told: %s", setback.reason)

    async def _post_own(
        self, local: httpx.AsyncClient, token_file: Path, path: str, content: Mapping[str, str]
    ) -> _Setback | None:
        """Post to one of the webhook's endpoints for the relay; return None when it was taken."""
        try:
            headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
            response = await local.post(
                self._target.copy_with(raw_path=path.encode()), json=content, headers=headers
            )
        except OSError as error:
            return _Setback(f"{token_file}: {error.strerror}")
        except httpx.HTTPError as error:
            return _Setback(type(error).__name__)
        return None if response.is_success else self._setback(response)

    def _setback(self, response: httpx.Response) -> _Setback:
        """Return what an answer that takes nothing means for the next try."""
        asked, timing = retry_after(response.headers), self._timing
        if response.is_server_error:
            # HAProxy asks everybody for 10 s. The webhook is mostly back sooner, and a push waits for it.
            pause = min(asked or 0, timing.longest_pause)
        else:
            pause = timing.after_refusal if asked is None else min(asked, timing.longest_asked)
        return _Setback(f"HTTP {response.status_code}", pause)

    async def _feed_watchdog(self) -> None:
        """Tell systemd that this loop turns; every wait in it has an end, so a hung relay falls silent."""
        interval = systemd.watchdog_seconds()
        while interval is not None:
            systemd.notify(WATCHDOG="1")
            await asyncio.sleep(interval / 3)

    def _pause(self, tries: int) -> float:
        """Return the pause after that many failures in a row."""
        first, longest = self._timing.first_pause, self._timing.longest_pause
        return float(min(longest, first * 2 ** min(tries - 1, 16)))


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; exit 0 then."""
    parser = argparse.ArgumentParser(prog="smee-relay", description="Carry calls from a smee channel.")
    parser.add_argument("--source", help="URL of the channel; anyone who knows it can read it")
    parser.add_argument(
        "--source-file", type=Path, help="file with that URL, so that it shows in no process list"
    )
    parser.add_argument(
        "--target", required=True, help="URL of the webhook, such as http://127.0.0.1:8081/webhook"
    )
    parser.add_argument(
        "--token-file", type=Path, help="file with the token for the webhook's endpoints /sync and /relay"
    )
    options = parser.parse_args(arguments)
    if (options.source is None) == (options.source_file is None):
        parser.error("give --source or --source-file")
    # The journal adds time and unit.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        source = options.source or options.source_file.read_text().strip()
    except OSError as error:
        parser.error(f"{options.source_file}: {error.strerror}")
    if options.token_file is None:
        log.warning("without --token-file the webhook cannot be asked to sync after a gap")
    asyncio.run(_run_until_signal(source, options.target, options.token_file))
    return 0


async def _run_until_signal(source: str, target: str, token_file: Path | None) -> None:
    # Before Python 3.10 a queue belongs to the loop in which it is made.
    task = asyncio.ensure_future(Relay(source, target, token_file).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    systemd.notify(STOPPING="1")
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
