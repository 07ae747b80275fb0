"""Who is let in at the two ports between the hosts: whoever has the right certificate, and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_api import wait_for
from platform_host import Platform
from testinfra.host import Host
from worker_host import (
    FIRST,
    GATEWAY,
    LOG_PORT,
    WORKER_PORT,
    WorkerHost,
    connection_name,
    release_of,
    say,
    say_plainly,
)

from tests.certificates import certificate

PING = b"PING\r\n"
NO_PASSWORD = b"-NOAUTH"
"""What Redis answers to whoever reaches it."""
GET_LOG = f"GET /log/ HTTP/1.1\r\nHost: {FIRST}\r\nConnection: close\r\n\r\n".encode()
LOGS = f"{FIRST}.hosts.airflow.internal"

Pem = Callable[[str], Path]


@pytest.fixture
def pem(tmp_path: Path) -> Pem:
    """Return a function that writes a key with its certificate into a file."""

    def write(text: str) -> Path:
        path = tmp_path / "client.pem"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def redis(host: Host) -> str:
    """The name of a connection to Redis, of the release that runs."""
    return connection_name("redis", release_of(host))


@pytest.fixture
def foreign(pem: Pem) -> Callable[[str], Path]:
    """Return a function that makes a certificate of another authority for a host of the platform."""

    def make(name: str) -> Path:
        return pem(certificate([f"{name}.hosts.airflow.internal"], common_name=name))

    return make


def test_worker_is_let_in(worker: WorkerHost, redis: str, pem: Pem) -> None:
    """Otherwise the refusals below would prove nothing."""
    answer = say(worker.main_address, WORKER_PORT, redis, PING, pem(worker.certificate))
    assert answer.startswith(NO_PASSWORD)


@pytest.mark.parametrize(
    "text", [PING, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\x00\x00\x08\x04\xd2\x16\x2f"]
)
def test_gateway_answers_no_plain_text(worker: WorkerHost, text: bytes) -> None:
    """Neither Redis' language nor that of the web or of Postgres."""
    assert say_plainly(worker.main_address, WORKER_PORT, text) == b""


def test_gateway_wants_a_certificate(worker: WorkerHost, redis: str) -> None:
    assert say(worker.main_address, WORKER_PORT, redis, PING) == b""


@pytest.mark.parametrize("name", [FIRST, "gateway"])
def test_gateway_refuses_another_authority(
    worker: WorkerHost, redis: str, foreign: Callable[[str], Path], name: str
) -> None:
    """Whatever name it has given."""
    assert say(worker.main_address, WORKER_PORT, redis, PING, foreign(name)) == b""


@pytest.mark.parametrize(
    "name",
    [
        connection_name("redis", "2-5-3-0123456789ab"),
        connection_name("webserver", "any"),
        "redis.workers.airflow.internal",
        "localhost",
    ],
)
def test_gateway_refuses_another_release(worker: WorkerHost, pem: Pem, name: str) -> None:
    """Or what is none; with a certificate that is good."""
    assert say(worker.main_address, WORKER_PORT, name, PING, pem(worker.certificate)) == b""


@pytest.fixture
def _revoked(host: Host, platform: Platform, worker: WorkerHost) -> Iterator[None]:
    """Have no line for the worker among those who may in."""
    path, kept = f"{GATEWAY}/workers.map", "/root/workers.map"
    text = host.file(path).content_string
    left = "".join(line for line in text.splitlines(keepends=True) if line.split()[-1:] != [worker.name])
    assert left != text
    host.check_output(f"cp --preserve=all {path} {kept}")

    def restart() -> None:
        platform.check("docker compose restart worker-gateway 2>&1")
        state = "docker compose ps --format %s worker-gateway"
        wait_for(
            "the gateway to be healthy",
            lambda: platform.check(state, "{{.Health}}").strip() == "healthy",
            60,
        )

    try:
        # Written in place: the container sees the file, and its owner stays.
        host.check_output(f"printf %s %s > {path}", "%s", left)
        restart()
        yield
    finally:
        host.check_output(f"cat {kept} > {path} && rm {kept}")
        restart()
        worker.wait_until_healthy()


@pytest.mark.usefixtures("_revoked")
def test_gateway_refuses_a_revoked_certificate(worker: WorkerHost, redis: str, pem: Pem) -> None:
    """Of the right authority, and not at its end."""
    assert say(worker.main_address, WORKER_PORT, redis, PING, pem(worker.certificate)) == b""


def test_main_host_is_let_in_at_the_logs(host: Host, worker: WorkerHost, pem: Pem) -> None:
    """With the gateway's certificate: otherwise the refusals below would prove nothing."""
    gateway = pem(host.file(f"{GATEWAY}/gateway.pem").content_string)
    assert say(worker.address, LOG_PORT, LOGS, GET_LOG, gateway).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("text", [GET_LOG, b"@RSYNCD: 31.0\n"])
def test_worker_answers_no_plain_text(worker: WorkerHost, text: bytes) -> None:
    assert say_plainly(worker.address, LOG_PORT, text) == b""


def test_worker_wants_a_certificate(worker: WorkerHost) -> None:
    assert say(worker.address, LOG_PORT, LOGS, GET_LOG) == b""


def test_worker_refuses_another_authority(worker: WorkerHost, foreign: Callable[[str], Path]) -> None:
    """Also one that has the gateway's name."""
    assert say(worker.address, LOG_PORT, LOGS, GET_LOG, foreign("gateway")) == b""


def test_worker_refuses_a_worker(worker: WorkerHost, pem: Pem) -> None:
    """It has a certificate of the right authority, and no business with logs."""
    assert say(worker.address, LOG_PORT, LOGS, GET_LOG, pem(worker.certificate)) == b""
