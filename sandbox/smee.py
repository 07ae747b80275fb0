"""A channel server that behaves as smee.io does (probot/smee.io, lib/server.js): what is posted to a channel
goes to whoever listens at that moment, re-serialised, and the answer is 200 even when nobody does.
"""

from __future__ import annotations

import json
import queue
import re
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox.web import MAX_BODY_BYTES, log_requests

PING_SECONDS = 30.0
# How often a stream looks whether its listener is still there, in seconds.
LOOK_SECONDS = 1.0


class Channels:
    """Who listens to what: one queue of serialised events per listener."""

    def __init__(self) -> None:
        """Begin with no listener."""
        self._lock = threading.Lock()
        self._listeners: dict[str, set[queue.SimpleQueue[str]]] = defaultdict(set)
        self.closed = False

    def join(self, channel: str) -> queue.SimpleQueue[str]:
        """Add a listener and return its queue."""
        events: queue.SimpleQueue[str] = queue.SimpleQueue()
        with self._lock:
            self._listeners[channel].add(events)
        return events

    def leave(self, channel: str, events: queue.SimpleQueue[str]) -> None:
        """Remove a listener."""
        with self._lock:
            self._listeners[channel].discard(events)

    def send(self, channel: str, payload: dict[str, Any]) -> None:
        """Pass an event to all who listen now, as JSON.stringify would write it."""
        event = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
        with self._lock:
            for events in self._listeners[channel]:
                events.put(event)

    def close(self) -> None:
        """Have every stream end, within LOOK_SECONDS."""
        self.closed = True

    def count(self, channel: str) -> int:
        """Return how many listen."""
        with self._lock:
            return len(self._listeners[channel])


def create_app(ping_seconds: float = PING_SECONDS) -> Flask:
    """Return the server. Each listener holds one thread of it.

    ``app.extensions["channels"]`` are its channels. Waitress notices a listener that went away only with
    ``channel_request_lookahead`` set to 1 or more; otherwise the next ping does.
    """
    app = Flask("sandbox.smee")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    channels = app.extensions["channels"] = Channels()

    @app.get("/new")
    def new() -> AnyResponse:
        return redirect(f"/{secrets.token_urlsafe(12)}", 307)

    @app.get("/<channel>")
    def listen(channel: str) -> Response:
        _check(channel)
        # The comparison is smee's own: with any other header one gets a page.
        if request.headers.get("Accept") != "text/event-stream":
            return Response(
                "<!doctype html><title>smee</title>POST here, or listen with text/event-stream.\n"
            )
        gone = request.environ.get("waitress.client_disconnected", lambda: False)
        events = channels.join(channel)
        return Response(
            _stream(channels, channel, events, ping_seconds, gone),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )

    @app.post("/<channel>")
    def post(channel: str) -> Response:
        _check(channel)
        headers = {name.lower(): value for name, value in request.headers}
        timestamp = time.time_ns() // 1_000_000
        channels.send(channel, {**headers, "body": _body(), "query": request.args, "timestamp": timestamp})
        return Response(status=200)

    @app.post("/<channel>/redeliver")
    def redeliver(channel: str) -> Response:
        _check(channel)
        channels.send(channel, _body())
        return Response(status=200)

    log_requests(app)
    return app


def _stream(
    channels: Channels, channel: str, events: queue.SimpleQueue[str], ping_seconds: float, gone: Any
) -> Iterator[bytes]:
    number = 0
    try:
        yield f"id: {number}\nevent: ready\ndata: {{}}\n\n".encode()
        ping_at = time.monotonic() + ping_seconds
        while not gone() and not channels.closed:
            try:
                wait = min(LOOK_SECONDS, max(0, ping_at - time.monotonic()))
                event = f"data: {events.get(timeout=wait)}"
            except queue.Empty:
                if time.monotonic() < ping_at:
                    continue
                event = "event: ping\ndata: {}"
                ping_at += ping_seconds
            number += 1
            yield f"id: {number}\n{event}\n\n".encode()
    finally:
        channels.leave(channel, events)


def _check(channel: str) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", channel):
        abort(400)


def _body() -> dict[str, Any]:
    """Parse the body as JavaScript would hold it, where 1.0 is 1."""
    if request.mimetype != "application/json":
        abort(415)
    try:
        body = json.loads(request.get_data(), parse_float=_number)
    except (ValueError, RecursionError):
        abort(400)
    if not isinstance(body, dict):
        abort(400)
    return body


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e21 else value
