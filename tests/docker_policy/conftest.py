"""A filter between a test and a Docker Engine that records what it is sent."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker_policy.policy import Decision, Policy
from docker_policy.server import Filter
from docker_policy.settings import OWNER_LABEL, Settings
from docker_policy.wire import Request

from tests.docker_policy.fake_docker import FakeDocker, serve

IDENTITY = "a" * 64
OWNED = {OWNER_LABEL: "true"}
LIMITS: dict[str, Any] = {
    "images": ("atddocker/*", "ghcr.io/city/etl:production", "airflow-platform/annotate:1-0123456789ab"),
    "volumes": ("airflow_weather", "knack"),
    "registries": ("docker.io", "ghcr.io"),
    "memory_mib": 1024,
    "cpus": 2,
    "pids": 512,
    "reserved_names": ("airflow-", "airflow_"),
}


@pytest.fixture
def settings() -> Settings:
    """An inventory's settings."""
    return Settings(**LIMITS)


@pytest.fixture
def policy(settings: Settings) -> Policy:
    """The decisions alone: every container is a DAG's."""
    return Policy(settings, lambda reference: IDENTITY)


def request(
    method: str, target: str, document: Any = None, headers: Mapping[str, str] | None = None
) -> Request:
    """Return a request as `wire` would have read it; a document is bytes or is encoded."""
    path, _, query = target.partition("?")
    body = (
        b""
        if document is None
        else document
        if isinstance(document, bytes)
        else json.dumps(document).encode()
    )
    kind = {} if document is None else {"content-type": "application/json"}
    return Request(method, path, query, {**kind, **(headers or {})}, body)


Create = Callable[..., dict[str, Any]]


@pytest.fixture
def create(policy: Policy) -> Create:
    """Decide on a create request, and return the document for Docker."""

    def run(document: Any) -> dict[str, Any]:
        decision: Decision = policy.decide(request("POST", "/v1.41/containers/create", document))
        built: dict[str, Any] = json.loads(decision.body)
        return built

    return run


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """Docker's form of an error."""
        return str(json.loads(self.body)["message"])


@dataclass
class Wired:
    """A filter that serves, and the Docker behind it."""

    path: Path
    docker: FakeDocker
    filter: Filter

    def connect(self) -> socket.socket:
        """Return a client's connection."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(str(self.path))
        return client

    def send(self, data: bytes) -> Answer:
        """Send bytes, and return the answer, which may be there before all was sent: as urllib3 does."""
        with self.connect() as client:
            with contextlib.suppress(BrokenPipeError):
                client.sendall(data)
            return read_answer(client, data.partition(b" ")[0].decode())

    def ask(
        self, method: str, target: str, document: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request as a client writes it."""
        body = b"" if document is None else json.dumps(document).encode()
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += ["Content-Type: application/json"] if document is not None else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return self.send("\r\n".join([*lines, "", ""]).encode() + body)


def read_answer(client: socket.socket, method: str = "GET") -> Answer:
    """Read the whole of an answer."""
    with contextlib.closing(http.client.HTTPResponse(client, method=method)) as response:
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@pytest.fixture
def wired() -> Iterator[Wired]:
    """Sockets in a directory with a short name: 107 bytes is all that a path may have."""
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        folder = Path(name)
        docker = FakeDocker(folder / "docker.sock")
        settings = Settings(**LIMITS, socket=folder / "dags.sock", docker_socket=folder / "docker.sock")
        served = Filter(settings)
        with serve(docker), serve(served):
            yield Wired(folder / "dags.sock", docker, served)
