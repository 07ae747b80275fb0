"""An Airflow of its own for these tests: empty settings, a database in a temporary directory, the real dags/.

Needs Airflow, images/airflow/requirements.txt and pytest, nothing else; see pytest.ini for how to run it.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
HOME = Path(tempfile.mkdtemp(prefix="airflow-tests-"))
ENVIRONMENT = "development"

# Airflow reads its settings when it is imported: before that, the tests' own replace the container's.
for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AIRFLOW__", "OP_"))]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE="airflow-annotate:test",
    AIRFLOW_VAR_WEATHER_VOLUME="airflow_weather",
    ENVIRONMENT=ENVIRONMENT,
)
sys.path[:0] = [str(DAGS), str(ROOT), str(ROOT / "images/airflow/lib")]

# Another provider for Docker than the lock file's, from a folder of its own: tests/dags/on_other_providers.
if provider := os.environ.get("DOCKER_PROVIDER"):
    import airflow

    airflow.__path__.insert(0, f"{provider}/airflow")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME)


if importlib.util.find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            "tests/dags: not run, Airflow is not installed here. `bin/test --fast` installs it; "
            "then run .cache/airflow-<version>/bin/python -m pytest tests/dags"
        )


@pytest.fixture(scope="session")
def dag_bag() -> object:
    """Every DAG of dags/, parsed once as Airflow does it, without the network and without Connect's token."""
    from airflow.models import DagBag

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a DAG file used the network while it was parsed: {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return DagBag(dag_folder=str(DAGS), include_examples=False)


@pytest.fixture(scope="session")
def database() -> None:
    """The tables that a run of a DAG needs."""
    from airflow.utils.db import initdb

    initdb()


class Site(ThreadingHTTPServer):
    """An HTTP server that answers what `answers` says for a path, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.endless: dict[str, int] = {}
        """Paths that answer with so many bytes, as long as somebody takes them."""
        self.sent: dict[str, int] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        if self.path in self.server.endless:
            self.send_much(self.server.endless[self.path])
            return
        status, content = self.server.answers.get(self.path, (404, b"not found"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_much(self, size: int) -> None:
        self.server.sent[self.path] = 0
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while self.server.sent[self.path] < size:
                self.server.sent[self.path] += self.wfile.write(bytes(2**20))

    do_GET = do_POST = answer

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def site() -> Iterator[Site]:
    """A real HTTP server on a port of its own."""
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The sandbox's 1Password Connect, served over HTTP and named in the environment as a worker sees it."""
    from vault import serve_vault

    with serve_vault(tmp_path / "connect") as vault:
        monkeypatch.setenv("OP_CONNECT", vault.url)
        monkeypatch.setenv("OP_API_TOKEN", vault.token)
        monkeypatch.setenv("OP_VAULT_ID", vault.vault_id)
        yield vault
