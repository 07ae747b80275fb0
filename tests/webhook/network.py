"""Servers that can be stopped and started on one port, and a line between two programs that can be cut or go
mute.
"""

import contextlib
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from werkzeug.serving import BaseWSGIServer, make_server

PORTS = range(20_000, 28_000)
"""Below those that Linux gives to connections, one of which could take a port before its server does."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A WSGI app on a port of its own. Stopping it ends its connections, as the end of a process would."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.port = free_port()
        self._server: BaseWSGIServer | None = None
        self._connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        server = make_server("127.0.0.1", self.port, self._app, threaded=True)
        accept = server.get_request

        def get_request() -> tuple[socket.socket, Any]:
            connection, address = accept()
            self._connections.append(connection)
            return connection, address

        server.get_request = get_request  # type: ignore[method-assign]
        server.block_on_close = False  # type: ignore[attr-defined]
        server.daemon_threads = True  # type: ignore[attr-defined]
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it was closed already
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()


@dataclass
class Line:
    """A TCP proxy on a port of its own, in front of another port."""

    target: int
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._mute: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go_mute(self) -> None:
        """Carry nothing more on the present connections, and end none: a forgotten NAT entry."""
        for pair in self._pairs:
            self._mute.update(pair)

    def reset(self) -> None:
        """End the present connections with a TCP reset."""
        while self._pairs:
            near, far = self._pairs.pop()
            with contextlib.suppress(OSError):  # it ended by itself just now
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            near.close()
            far.close()

    def close(self) -> None:
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError, ValueError):
            for end in other:
                selector.register(end, selectors.EVENT_READ, end)
            while True:
                for key, _ in selector.select(0.05):
                    data = key.data.recv(2**16)
                    while near in self._mute:
                        time.sleep(0.05)
                        near.getpeername()  # raises once the line is closed
                    if not data:
                        raise OSError
                    other[key.data].sendall(data)
        with contextlib.suppress(ValueError):  # `reset` took it
            self._pairs.remove((near, far))
        near.close()
        far.close()


class BlackHole:
    """A server that takes every connection and never says a word."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._callers: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/team/airflow.git"

    def callers(self) -> int:
        """Return how many connections came so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._callers.append(self._listener.accept()[0])
        return len(self._callers)

    def close(self) -> None:
        """End all connections, and take no more."""
        self._listener.close()
        for caller in self._callers:
            caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
