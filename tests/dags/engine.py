"""A Docker Engine as far as DockerOperator needs one: the API on a Unix socket, and a function to "run".

The calls are those of https://docs.docker.com/reference/api/engine/version/v1.41/.
"""

import json
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

CONTAINER = "c0ffee"
Program = Callable[[dict[str, Any]], tuple[int, str]]


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Knows one container; `program` gets its create request and returns exit status and output."""

    daemon_threads = True

    def __init__(self, path: Path, images: list[str], program: Program) -> None:
        self.images, self.program = images, program
        self.created: dict[str, Any] = {}
        self.removed = False
        self.result: tuple[int, str] = (0, "")
        self.finished = threading.Event()
        self.calls: list[str] = []
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_call(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        call = f"{self.command} /" + path.lstrip("/").removeprefix("v1.41/")
        engine = self.server
        engine.calls.append(call)
        container = f"/containers/{CONTAINER}"
        if call == "GET /_ping":
            self.reply(200, "OK")
        elif call == "GET /version":
            self.reply(200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10"})
        elif call == "GET /images/json":
            self.reply(200, [{"RepoTags": [name]} for name in engine.images if name.split(":")[0] in query])
        elif call == "POST /containers/create":
            engine.created = json.loads(body)
            self.reply(201, {"Id": CONTAINER, "Warnings": []})
        elif call == f"GET {container}/json":
            self.reply(200, {"Id": CONTAINER, "Config": {"Tty": False}})
        elif call == f"POST {container}/start":
            engine.result = engine.program(engine.created)
            engine.finished.set()
            self.reply(204)
        elif call == f"POST {container}/attach":
            self.attach()
        elif call == f"POST {container}/wait":
            self.reply(200, {"StatusCode": engine.result[0]})
        elif call == f"DELETE {container}":
            engine.removed = True
            self.reply(204)
        else:
            self.reply(404, {"message": f"{call} is not known here"})

    do_GET = do_POST = do_DELETE = handle_call

    def reply(self, status: int, content: Any = None) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Api-Version", "1.41")
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def attach(self) -> None:
        """Take over the connection, and send the output in frames: stream, length, text."""
        self.send_response(101, "UPGRADED")
        self.send_header("Content-Type", "application/vnd.docker.raw-stream")
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        assert self.server.finished.wait(30), "the container was attached to and never started"
        output = self.server.result[1].encode()
        self.wfile.write(struct.pack(">BxxxL", 1, len(output)) + output)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@contextmanager
def serve_engine(path: Path, images: list[str], program: Program) -> Iterator[Engine]:
    """Serve a Docker Engine on the Unix socket `path` for as long as the context lasts."""
    with Engine(path, images, program) as engine:
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield engine
        engine.shutdown()
        thread.join()
