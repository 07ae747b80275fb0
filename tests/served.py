"""Serves a Flask app on a free port of this machine, with faults on request; for tests of its clients."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask
from werkzeug.serving import make_server

TOKEN = "token-4b1f-sentinel-value"
VAULT_ID = "testvault0123456789abcdefg"


@dataclass
class Fault:
    """An answer to give in the place of the real one (or, with ``after``, when the real one was made)."""

    status: str
    body: bytes = b'{"status": 0, "message": "injected"}'
    headers: list[tuple[str, str]] = field(default_factory=list)
    method: str | None = None
    after: bool = False


class FaultyServer:
    """A WSGI app around another: logs the API's requests and answers the next of them with given faults."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if not path.startswith("/v1/"):
            return self._app(environ, start_response)
        with self._lock:
            self.requests.append((method, path))
            fault = self.always
            if fault is None and self.faults and self.faults[0].method in (None, method):
                fault = self.faults.popleft()
        if fault is None:
            return self._app(environ, start_response)
        if fault.after:
            list(self._app(environ, _ignore))
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(fault.status, [("Content-Type", "application/json"), *fault.headers])
        return [fault.body]

    def count(self, method: str, ending: str = "") -> int:
        """Return how many requests with this method and end of the path arrived."""
        return sum(1 for asked, path in self.requests if asked == method and path.endswith(ending))


def _ignore(status: str, headers: Any, error: Any = None) -> Callable[[bytes], object]:
    """Take a WSGI app's answer and lose it."""
    return len


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve a WSGI app on 127.0.0.1; yield its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
