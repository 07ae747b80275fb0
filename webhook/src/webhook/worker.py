"""gunicorn's worker with threads, and an end to every request: whoever sends or reads slowly keeps a thread
for that long and no longer. HAProxy passes whole requests only; this is for callers that come without it.
"""

import contextlib
import socket
import time
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

REQUEST_SECONDS = 20
"""From the first byte of a request to the last of its answer. The app itself takes 12 s at most, when
1Password does not answer."""


class Worker(ThreadWorker):
    """Ends a connection whose request takes too long."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """Work on nothing yet."""
        super().__init__(*arguments, **more)
        self._deadlines: dict[TConn, float] = {}

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop: reports of worker hosts wait no longer."""
        super().handle_exit(sig, frame)
        parts = getattr(getattr(self, "wsgi", None), "extensions", {}).get("webhook")
        if parts is not None and parts.coordinator is not None:
            parts.coordinator.end()

    def handle(self, conn: TConn) -> Any:
        """Serve one request, in one of the threads."""
        self._deadlines[conn] = time.monotonic() + REQUEST_SECONDS
        try:
            return super().handle(conn)
        finally:
            del self._deadlines[conn]

    def notify(self) -> None:
        """Tell the arbiter that the main loop turns, once a second at least, and look at the deadlines."""
        super().notify()
        now = time.monotonic()
        for conn, deadline in list(self._deadlines.items()):
            if now > deadline:
                # Wakes the thread that reads or writes; the thread closes it.
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)
