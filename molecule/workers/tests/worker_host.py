"""A host for workers, as the tests ask it and what they do to it; and the way to it and to the main host."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import testinfra
from airflow_api import wait_for
from delivery import INSTANCE, docker
from expected import DIRECTORY, PROJECT
from testinfra.backend.base import CommandResult
from testinfra.host import Host

NAMES = ("atd-worker01", "atd-worker02") if os.environ.get("UPGRADE_TESTS") == "all" else ("atd-worker01",)
FIRST = NAMES[0]
MAIN = "atd-data03"
SERVICES = {"tunnel", "airflow-worker", "docker-socket-proxy", "log-server", "log-copy", "dag-follower"}
"""What runs on a host for workers where the DAGs come from a repository."""
WORKER_PORT = 8443
LOG_PORT = 8793
GATEWAY = f"{DIRECTORY}/worker-gateway"
"""The files of the main host's end."""
CONNECTIONS = ("DATABASE__SQL_ALCHEMY_CONN", "CELERY__RESULT_BACKEND")
"""The settings of Airflow that lead to the database."""
CONSUMES_SECONDS = 120
"""Within so long after a fault a worker runs tasks again."""

CLOSED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)

Json = dict[str, Any]


def address_of(name: str) -> str:
    """Return the address that a host of the sandbox has now."""
    form = f'{{{{(index .NetworkSettings.Networks "{INSTANCE}").IPAddress}}}}'
    return docker("inspect", "--format", form, f"{INSTANCE}-{name}").strip()


class WorkerHost:
    """One host for workers."""

    def __init__(self, name: str) -> None:
        """Reach it as Docker's container."""
        self.name = name
        self.container = f"{INSTANCE}-{name}"
        self.host: Host = testinfra.get_host(f"docker://{self.container}")
        self.address = address_of(name)
        self.main_address = address_of(MAIN)

    def run(self, command: str, *arguments: str, seconds: int = 120) -> CommandResult:
        """Run a shell command in the platform's directory, each %s an argument."""
        script = self.host.backend.quote(command, *arguments)
        return self.host.run(f"cd {DIRECTORY} && exec timeout {seconds} sh -c %s", script)

    def check(self, command: str, *arguments: str, seconds: int = 120) -> str:
        """Run a command that has to succeed; return what it printed."""
        done = self.run(command, *arguments, seconds=seconds)
        assert done.rc == 0, f"{self.name}: {command}: {done.rc}\n{done.stdout}{done.stderr}"
        return str(done.stdout)

    def compose(self, command: str, *arguments: str) -> str:
        """Run Compose as somebody does by hand."""
        return self.check(f"docker compose --profile worker {command}", *arguments)

    def inside(self, program: str, *arguments: str) -> CommandResult:
        """Run a Python program where this host's tasks run."""
        command = "docker compose --profile worker exec --no-TTY airflow-worker python -c"
        return self.run(command + " %s" * (1 + len(arguments)), program, *arguments)

    def containers(self) -> dict[str, Json]:
        """Return what Docker says of each running container of the platform, by service."""
        labels = (f"com.docker.compose.project={PROJECT}", "com.docker.compose.oneoff=False")
        listed = "docker ps --quiet" + "".join(f" --filter label={label}" for label in labels)
        found = json.loads(
            self.check("sh -c %s", f"{listed} | xargs --no-run-if-empty docker inspect") or "[]"
        )
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def healthy(self) -> bool:
        """Say whether each service is; a host that is only just booting may not answer yet."""
        if self.run("docker info", seconds=20).rc != 0:
            return False
        states = {name: one["State"].get("Health", {}) for name, one in self.containers().items()}
        return set(states) == SERVICES and {one.get("Status") for one in states.values()} == {"healthy"}

    def wait_until_healthy(self, seconds: float = 180) -> None:
        """Wait until each service is."""
        wait_for(f"every service of {self.name} to be healthy", self.healthy, seconds)

    def setting(self, name: str) -> str:
        """Return a line of the worker's own env file."""
        found = re.findall(
            rf"(?m)^{name}='?(.*?)'?$", self.host.file(f"{DIRECTORY}/env/worker.env").content_string
        )
        assert len(found) == 1, f"{name} is {len(found)} times in env/worker.env"
        return str(found[0])

    @property
    def database_passwords(self) -> set[str]:
        """Return the passwords of its connections to the database, of which there should be one."""
        addresses = (self.setting(f"AIRFLOW__{name}") for name in CONNECTIONS)
        return {unquote(urlsplit(address).password or "") for address in addresses}

    def live(self) -> str:
        """Return the commit that `current` names."""
        return self.check(f"readlink {DIRECTORY}/trees/current").strip().rpartition("/")[2].partition("-")[0]

    @property
    def certificate(self) -> str:
        """Return the one key and certificate that this host has."""
        others = "".join(f" --exclude-dir={folder}" for folder in ("trees", "delivery", "logs"))
        command = f"grep --recursive --files-with-matches{others} 'PRIVATE KEY' {DIRECTORY}"
        [path] = self.host.check_output(command).split()
        return str(self.host.file(path).content_string)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Take the host off the network. Afterwards it is back, at the address that the inventory has."""
        docker("network", "disconnect", INSTANCE, self.container)
        try:
            yield
        finally:
            docker("network", "connect", INSTANCE, self.container)
            now = address_of(self.name)
            assert now == self.address, (
                f"Docker gave {self.name} {now} instead of {self.address}: run converge"
            )

    def reboot(self) -> None:
        """Restart the host in good order; it need not have booted yet."""
        # `-t` is what every version of Docker's client calls it: seconds for a clean shutdown.
        docker("restart", "-t", "120", self.container, seconds=180)


def release_of(host: Host) -> str:
    """Return the release that runs on the main host, as names of connections have it."""
    [release] = re.findall(r"(?m)^WORKER_RELEASE=(.*)$", host.file(f"{DIRECTORY}/.env").content_string)
    return release


def connection_name(service: str, release: str) -> str:
    """Return the name that a worker of a release asks for."""
    return f"{service}-{release}.workers.airflow.internal"


def say_plainly(address: str, port: int, text: bytes) -> bytes:
    """Return what a port answers to plain text, b"" when it closes the connection."""
    try:
        with socket.create_connection((address, port), 10) as connection:
            connection.sendall(text)
            return connection.recv(4096)
    except CLOSED:
        return b""


def say(address: str, port: int, name: str, text: bytes, certificate: Path | None = None) -> bytes:
    """Return what is answered over TLS by whom this name leads to, b"" for nobody.

    Whoever attacks does not care whom he talks to. A server may refuse a certificate when the handshake is
    over on this side already, and just close the connection. A port where nobody listens is an error: that
    refuses nobody.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    try:
        with (
            socket.create_connection((address, port), 10) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            secured.sendall(text)
            return secured.recv(4096)
    except (ssl.SSLError, *CLOSED):
        return b""
