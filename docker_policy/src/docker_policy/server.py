"""The two sockets: the one that DAGs know as Docker's, and one for health and metrics."""

import contextlib
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from docker_policy import log, ownership, streams, wire
from docker_policy.engine import Engine
from docker_policy.errors import RefusedError, printable
from docker_policy.metrics import Metrics
from docker_policy.orphans import Orphans
from docker_policy.policy import Policy
from docker_policy.settings import TASK_LABEL, File, Settings, SettingsError

TASK_HEADER = "airflow-task"
"""`<DAG>/<task>`, which the worker puts into its requests. It is for the log, and decides nothing."""
WORKER_HEADER = "airflow-worker"
"""The host name of the worker's container, which it puts there, too. A wrong one only makes its own container
another's, or nobody's in particular."""
LINGER_SECONDS = 1
_MOST_LINGERED = 4 * wire.LARGEST_BODY


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    mode = 0o660

    def server_bind(self) -> None:
        """Take the place of a socket that an earlier process left."""
        path = Path(str(self.server_address))
        path.unlink(missing_ok=True)
        super().server_bind()
        path.chmod(self.mode)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in the log what no handler has caught, as one line."""
        log.write("failed", message=repr(sys.exception()))


class ReplacedSocketError(Exception):
    """Docker listens on another socket now, which this process cannot see."""


class Filter(_UnixServer):
    """Serves DAGs."""

    def __init__(self, settings: Settings, file: File | None = None) -> None:
        """Listen; `serve_forever` answers, by the settings of `file` as soon as it is another one."""
        self._file = file
        self.engine = Engine(settings.docker_socket)
        self.orphans = Orphans(settings, self.engine)
        self.policy = self._policy(settings)
        self.metrics = Metrics()
        self._free = threading.BoundedSemaphore(settings.connections)
        super().__init__(str(settings.socket), _Handler)

    def _policy(self, settings: Settings) -> Policy:
        return Policy(settings, lambda reference: ownership.find(self.engine, reference), self._origin)

    def _origin(self, request: wire.Request) -> dict[str, str]:
        """Return the labels that say which worker, and which of its tasks, asks for a container."""
        task = printable(request.headers.get(TASK_HEADER, ""))
        makers = self.orphans.labels(request.headers.get(WORKER_HEADER, ""))
        return {**makers, **({TASK_LABEL: task} if task else {})}

    def service_actions(self) -> None:
        """Look, between two connections, whether settings or Docker's socket are others.

        Raises:
            ReplacedSocketError: the container has to start anew.
        """
        if self.engine.is_replaced():
            raise ReplacedSocketError
        if self._file and self._file.is_another():
            try:
                # Streams go on: a task need not fail because the inventory lists one more image.
                self.policy = self._policy(self._file.read())
                log.write("configured")
            except SettingsError as error:
                log.write("failed", message=f"{error}; the earlier settings stay in force")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, as long as there are not too many."""
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.sendall(wire.write_error(503, "DAGs have too many connections to Docker"))
            self.shutdown_request(request)
            return
        self.metrics.opened(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.metrics.opened(-1)
            self._free.release()


class _Handler(socketserver.BaseRequestHandler):
    """One connection: one request, one answer."""

    request: socket.socket
    server: Filter

    def handle(self) -> None:
        """Decide, and answer."""
        request: wire.Request | None = None
        started = time.monotonic()
        try:
            request = wire.read_request(self.request)
            self.request.settimeout(None)
            decision = self.server.policy.decide(request)
            with self.server.engine.connect() as engine:
                status = streams.exchange(self.request, engine, decision)
            self._discard()
            if not status:
                return
            self.server.metrics.passed(decision.operation, status)
            if decision.note:
                seconds = round(time.monotonic() - started, 3)
                self._log(
                    "passed",
                    request,
                    operation=decision.operation,
                    note=decision.note,
                    status=status,
                    seconds=seconds,
                )
        except RefusedError as error:
            self._refuse(error, request)
        except (OSError, wire.ClosedError):
            # The client is gone, or Docker: the other one sees a connection that ends.
            return

    def _refuse(self, error: RefusedError, request: wire.Request | None) -> None:
        is_policy = error.status in (400, 403, 413, 501) or isinstance(error, ownership.ForeignError)
        if is_policy:
            field = "container" if isinstance(error, ownership.ForeignError) else error.field
            self.server.metrics.refused(field)
            self._log("refused", request, field=field, status=error.status, message=str(error))
        elif error.status >= 500:
            self._log("unavailable", request, status=error.status, message=str(error))
        with contextlib.suppress(OSError):
            self.request.settimeout(LINGER_SECONDS)
            self.request.sendall(wire.write_error(error.status, str(error)))
            self._linger()

    def _discard(self) -> None:
        """Read what a client has sent into a stream: closed on unread data, it would see a reset."""
        self.request.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(_MOST_LINGERED // wire.CHUNK):
                if not self.request.recv(wire.CHUNK):
                    return

    def _linger(self) -> None:
        """Wait for the end of what a client still sends: else it might not see the answer."""
        self.request.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_SECONDS
        read = 0
        while read < _MOST_LINGERED and time.monotonic() < deadline:
            data = self.request.recv(wire.CHUNK)
            if not data:
                return
            read += len(data)

    @staticmethod
    def _log(event: str, request: wire.Request | None, **facts: Any) -> None:
        task = request.headers.get(TASK_HEADER, "") if request else ""
        dag, _, name = task.partition("/")
        asked: dict[str, Any] = {"method": request.method, "path": request.path} if request else {}
        log.write(event, dag=dag, task=name, **asked, **facts)


class Status(_UnixServer):
    """Serves `/healthz` and `/metrics`, to whoever mounts its socket and never to DAGs."""

    def __init__(self, path: Path, served: Filter) -> None:
        """Listen; `serve_forever` answers."""
        self.served = served
        super().__init__(str(path), _StatusHandler)


class _StatusHandler(BaseHTTPRequestHandler):
    server: Status

    def do_GET(self) -> None:
        """Answer from the filter's own state; `/healthz` asks Docker, too."""
        if self.path == "/metrics":
            self._answer(200, self.server.served.metrics.page(), "text/plain; version=0.0.4")
        elif self.path == "/healthz":
            up = self.server.served.engine.is_up()
            self._answer(200 if up else 503, b"ok\n" if up else b"Docker does not answer\n", "text/plain")
        else:
            self._answer(404, b"not found\n", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay silent."""
