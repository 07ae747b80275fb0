"""A main host and its worker hosts on loopback: gunicorn, git daemon, HAProxy as the gateway, followers."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.webhook.doubles import Remote, wait_until
from tests.webhook.front import HAPROXY
from tests.webhook.network import free_port

Start = Callable[..., subprocess.Popen[str]]
TOKEN = "relay-token"

CONFIGURATION = """\
global
  stats socket {socket} mode 600 level admin
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"""
OF_A_WORKER = """\
frontend redis_in_{name}
  bind 127.0.0.1:{redis_port}
  default_backend redis_{name}
backend redis_{name}
  server main 127.0.0.1:{redis}
frontend follow_in_{name}
  mode http
  bind 127.0.0.1:{follow_port}
  http-request set-header X-Worker {name}
  default_backend follow_{name}
backend follow_{name}
  mode http
  server main unix@{reports}
"""


class Redis:
    """Takes connections and echoes what comes: enough to see who may connect, and who was cut."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        # Whoever is cut off, or stops, may leave while an answer is on its way.
        with connection, suppress(ConnectionError):
            while data := connection.recv(100):
                connection.sendall(data)

    def close(self) -> None:
        self._listener.close()


def answers(connection: socket.socket) -> bool:
    """Say whether a connection to Redis still works."""
    try:
        connection.settimeout(5)
        connection.sendall(b"PING")
        return connection.recv(100) == b"PING"
    except OSError:
        return False


@dataclass
class Gateway:
    """The real HAProxy, with as much of the gateway's configuration as the coordinator knows of."""

    folder: Path
    names: Sequence[str]
    redis: Redis = field(default_factory=Redis)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.socket = self.folder / "admin.sock"
        self.reports = self.folder / "follow.sock"
        self.ports = {name: {"redis_port": free_port(), "follow_port": free_port()} for name in self.names}
        text = CONFIGURATION.format(socket=self.socket)
        for name, ports in self.ports.items():
            text += OF_A_WORKER.format(name=name, redis=self.redis.port, reports=self.reports, **ports)
        (self.folder / "haproxy.cfg").write_text(text)

    def start(self) -> None:
        with (self.folder / "log").open("a") as log:
            command = [HAPROXY, "-db", "-f", str(self.folder / "haproxy.cfg")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: self.admin("show info"), what="the gateway")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def admin(self, command: str) -> str:
        """Ask the admin socket; "" where nobody listens."""
        answer = b""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
            except OSError:
                return ""
            client.sendall(command.encode() + b"\n")
            while part := client.recv(2**16):
                answer += part
        return answer.decode()

    def connect(self, name: str) -> socket.socket:
        """Connect a worker to Redis."""
        return socket.create_connection(("127.0.0.1", self.ports[name]["redis_port"]))

    def lets_in(self, name: str) -> bool:
        with self.connect(name) as connection:
            return answers(connection)

    def close(self) -> None:
        self.stop()
        self.redis.close()


@dataclass
class Platform:
    """The hosts. Environment variables `main` are those of the webhook."""

    start: Start
    main: dict[str, str]
    folder: Path
    gateway: Gateway
    page_port: int
    git_port: int
    remote: Remote
    followers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    server: subprocess.Popen[str] | None = None

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.page_port}"

    def trees(self, name: str) -> Path:
        return self.folder / name / "trees"

    def link(self, name: str) -> Path:
        """Return the link `current` of a worker, or of the main host."""
        return (Path(self.main["DAG_TREES_DIR"]) if name == "main" else self.trees(name)) / "current"

    def live(self, name: str) -> str | None:
        link = self.link(name)
        return link.resolve().name.partition("-")[0] if link.is_symlink() else None

    def follower_environment(self, name: str) -> dict[str, str]:
        return {
            "DAG_TREES_DIR": str(self.trees(name)),
            "DAG_STATE_DIR": str(self.folder / name / "state"),
            "DAG_MIRROR": f"git://127.0.0.1:{self.git_port}/mirror.git",
            "FOLLOW_URL": f"http://127.0.0.1:{self.gateway.ports[name]['follow_port']}",
            "WORKER_RELEASE": "2-11-2-test",
            "WORKER_QUEUES": f"default,{name}",
            "WORKER_SLOTS": "8",
        }

    def follow(self, name: str) -> subprocess.Popen[str]:
        process = self.start("webhook.follower", **self.follower_environment(name))
        self.followers[name] = process
        return process

    def serve(self) -> subprocess.Popen[str]:
        """Start gunicorn, and wait for its page."""
        binds = [f"--bind=127.0.0.1:{self.page_port}", f"--bind=unix:{self.gateway.reports}"]
        config = "--config=python:webhook.gunicorn"
        process = self.start("gunicorn", config, *binds, "webhook.app:create_app()", **self.main)
        wait_until(self._serves, what="gunicorn")
        self.server = process
        return process

    def _serves(self) -> bool:
        try:
            return httpx.get(f"{self.page}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def sync(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run dag-sync to its end, in a process of its own."""
        process = self.start("webhook.cli", *(command or ("once",)), **self.main)
        output, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, output)

    def workers(self) -> dict[str, dict[str, Any]]:
        found = httpx.get(f"{self.page}/lights", trust_env=False).json()["workers"]
        return {worker["name"]: worker for worker in found}

    def states(self) -> dict[str, str]:
        return {name: worker["state"] for name, worker in self.workers().items()}

    def _has(self, name: str, commit: str) -> bool:
        return self.live(name) == commit

    def wait_for(self, commit: str, *names: str) -> None:
        for name in names:
            wait_until(partial(self._has, name, commit), what=f"{commit} on {name}")


@contextmanager
def platform(
    start: Start, environment: dict[str, str], remote: Remote, folder: Path, names: Sequence[str]
) -> Iterator[Platform]:
    """Run the main host and its gateway; start followers with `follow`."""
    state = Path(environment["DAG_STATE_DIR"])
    state.mkdir()
    token = folder / "relay-token"
    token.write_text(TOKEN)
    gateway = Gateway(folder / "gateway", names)
    git_port = free_port()
    main = {
        "WORKERS": ",".join(names),
        "WORKER_GATEWAY_SOCKET": str(gateway.socket),
        "RELAY_TOKEN_FILE": str(token),
        "AIRFLOW_URL": "http://127.0.0.1:9",
        "DAG_TREES_DIR": environment["DAG_TREES_DIR"],
    }
    environment.update(main)
    options = ("--reuseaddr", "--export-all", "--strict-paths", f"--base-path={state}")
    daemon = subprocess.Popen(
        ["git", "daemon", *options, "--listen=127.0.0.1", f"--port={git_port}", str(state / "mirror.git")],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        gateway.start()
        yield Platform(start, main, folder, gateway, free_port(), git_port, remote)
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait()
        gateway.close()
