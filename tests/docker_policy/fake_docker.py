"""A Docker Engine as far as the filter needs one: it records, byte for byte, what reaches its Unix socket.

Containers are as their create request says, plus those that a test puts there. The calls are those of
https://docs.docker.com/reference/api/engine/version/v1.45/.
"""

from __future__ import annotations

import hashlib
import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

OUTPUT = b"one\ntwo\n"


@dataclass
class Container:
    """A container that the fake knows."""

    identity: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    tty: bool = False
    started: threading.Event = field(default_factory=threading.Event)
    started_at: str = "2026-01-01T00:00:00.1Z"
    place: str = ""
    """Where it has the filter's volume mounted."""
    docker_socket: bool = False
    running: bool = True

    @property
    def host_name(self) -> str:
        """Its name for itself, which is the beginning of its id."""
        return self.identity[:12]

    @property
    def row(self) -> dict[str, Any]:
        """What a list has of it."""
        mounts = [{"Type": "volume", "Source": "/var/lib/volume", "Destination": self.place}]
        mounts += [{"Type": "bind", "Source": "/run/docker.sock"}] if self.docker_socket else []
        return {
            **{"Id": self.identity, "Names": [f"/{self.name}"], "Image": "atddocker/etl:production"},
            **{"Labels": self.labels, "Mounts": mounts},
        }


class FakeDocker(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers as Docker does, and keeps what it was sent."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: Path) -> None:
        self.connections: list[bytearray] = []
        self.containers: dict[str, Container] = {}
        self.created: list[dict[str, Any]] = []
        self.refuse_attach = False
        self.vanishes = False
        self.log_may_end = threading.Event()
        self.streams_ended = threading.Semaphore(0)
        super().__init__(str(path), _Handler)

    def put(self, name: str, labels: dict[str, str] | None = None, tty: bool = False) -> Container:
        """Add a container; its id is made of its name."""
        container = Container(hashlib.sha256(name.encode()).hexdigest(), name, labels or {}, tty)
        self.containers[container.identity] = container
        return container

    def find(self, reference: str) -> Container | None:
        """Return a container by id, the beginning of one, or name, as Docker does."""
        for container in self.containers.values():
            if reference == container.name or container.identity.startswith(reference):
                return container
        return None

    def listed(self, filters: dict[str, list[str]]) -> list[Container]:
        """Return the containers of a list, as Docker does: with all of the labels, and one of the names."""

        def is_listed(container: Container) -> bool:
            labels = {*container.labels, *(f"{name}={value}" for name, value in container.labels.items())}
            names = filters.get("name", [""])
            if not container.running or container.place not in filters.get("volume", [container.place]):
                return False
            return labels.issuperset(filters.get("label", [])) and any(
                name in container.name for name in names
            )

        return [container for container in self.containers.values() if is_listed(container)]

    @property
    def received(self) -> list[bytes]:
        """What came on each connection."""
        return [bytes(each) for each in self.connections]

    @property
    def calls(self) -> list[str]:
        """The first lines of it, without the protocol."""
        return [each.split(b"\r\n")[0].decode().removesuffix(" HTTP/1.1") for each in self.connections]


class _Handler(socketserver.BaseRequestHandler):
    server: FakeDocker

    def handle(self) -> None:
        received = bytearray()
        self.server.connections.append(received)
        while b"\r\n\r\n" not in received:
            data = self.request.recv(65536)
            if not data:
                return
            received += data
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(self.headers.get("content-length", "0"))
        while len(body) < length:
            data = self.request.recv(65536)
            received += data
            body += data
        method, target, _ = first.split(" ")
        path, _, self.query = target.partition("?")
        parts = path.strip("/").split("/")
        if parts[0].startswith("v1."):
            parts = parts[1:]
        if self.server.vanishes:
            return
        self.answer(method, parts, body)
        self.request.shutdown(1)
        while data := self.request.recv(65536):
            received += data

    def answer(self, method: str, parts: list[str], body: bytes) -> None:
        match method, parts:
            case "HEAD", ["_ping"]:
                self.send(b"HTTP/1.1 200 OK\r\nApi-Version: 1.45\r\nContent-Length: 2\r\n\r\n")
            case "GET", ["_ping"]:
                self.reply(200, b"OK", "text/plain; charset=utf-8")
            case "GET", ["version"]:
                self.reply(200, {"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24"})
            case "GET", ["info"]:
                self.reply(200, {"ID": "fake"})
            case "GET", ["images", "json"]:
                self.reply(200, [])
            case "GET", ["images", *name, "json"]:
                self.reply(200, {"Id": "sha256:0", "RepoTags": ["/".join(name)]})
            case "POST", ["auth"]:
                self.reply(200, {"Status": "Login Succeeded", "IdentityToken": ""})
            case "POST", ["images", "create"]:
                self.chunked([b'{"status":"Pulling"}\r\n', b'{"status":"Done"}\r\n'])
            case "GET", ["containers", "json"]:
                filters = json.loads(parse_qs(self.query).get("filters", ["{}"])[0])
                found = self.server.listed(filters)
                self.reply(200, [each.row for each in found])
            case "POST", ["containers", "create"]:
                self.create(json.loads(body))
            case method, ["containers", reference, *rest]:
                container = self.server.find(reference)
                if container is None:
                    self.reply(404, {"message": f"No such container: {reference}"})
                else:
                    self.ask(method, container, rest)
            case _:
                self.reply(404, {"message": "page not found"})

    def create(self, document: dict[str, Any]) -> None:
        self.server.created.append(document)
        container = self.server.put(
            f"made-{len(self.server.created)}", document.get("Labels") or {}, document.get("Tty", False)
        )
        self.reply(201, {"Id": container.identity, "Warnings": []})

    def ask(self, method: str, container: Container, rest: list[str]) -> None:
        match method, rest:
            case "GET", ["json"]:
                config = {"Labels": container.labels, "Tty": container.tty, "Hostname": container.host_name}
                known = {"Id": container.identity, "Name": container.name, "Config": config}
                self.reply(200, {**known, "State": {"StartedAt": container.started_at}})
            case "POST", ["start"]:
                container.started.set()
                self.reply(204)
            case "POST", ["wait"]:
                if container.started.wait(20):
                    self.reply(200, {"StatusCode": 0})
            case "POST", ["attach"]:
                self.attach(container)
            case "GET", ["logs"]:
                self.chunked([_frame(b"one\n")], end=False)
                self.server.log_may_end.wait(20)
                self.chunked([_frame(b"two\n")], head=False)
            case "GET", ["archive"]:
                stat = "eyJuYW1lIjoieCIsInNpemUiOjN9"  # {"name":"x","size":3}
                self.reply(200, b"tar", "application/x-tar", f"X-Docker-Container-Path-Stat: {stat}\r\n")
            case ("POST", ["stop" | "kill"]) | ("DELETE", []):
                container.running = False
                self.reply(204)
            case "POST", ["resize"]:
                self.reply(200, b"", "text/plain")
            case _:
                self.reply(404, {"message": "page not found"})

    def attach(self, container: Container) -> None:
        """Make a stream of the connection: raw with a terminal, in frames without one."""
        if self.server.refuse_attach:
            self.reply(409, {"message": "container is paused"})
            return
        kind = "raw-stream" if container.tty else "multiplexed-stream"
        head = f"Content-Type: application/vnd.docker.{kind}\r\n"
        if "upgrade" in self.headers:
            head = f"HTTP/1.1 101 UPGRADED\r\n{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        else:
            head = f"HTTP/1.1 200 OK\r\n{head}\r\n"
        self.send(head.encode())
        self.request.settimeout(0.02)
        while not container.started.is_set():
            try:
                data = self.request.recv(65536)
            except TimeoutError:
                continue
            if not data:
                self.server.streams_ended.release()
                return
            self.server.connections[-1].extend(data)
        self.request.settimeout(None)
        self.send(OUTPUT if container.tty else _frame(OUTPUT))

    def reply(self, status: int, content: Any = None, kind: str = "application/json", more: str = "") -> None:
        if status == 204:
            self.send(b"HTTP/1.1 204 No Content\r\nApi-Version: 1.45\r\n\r\n")
            return
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status} Status\r\nApi-Version: 1.45\r\nX-Other: x\r\nContent-Type: {kind}\r\n{more}"
        )
        self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def chunked(self, chunks: list[bytes], head: bool = True, end: bool = True) -> None:
        if head:
            self.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
        for chunk in chunks:
            self.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if end:
            self.send(b"0\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.request.sendall(data)


def _frame(data: bytes) -> bytes:
    """Return a frame of standard output: stream, length, text."""
    return struct.pack(">BxxxL", 1, len(data)) + data


@contextmanager
def serve(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve for as long as the context lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
