"""Needs Airflow and pytest, nothing else; see pytest.ini for how to run it."""

import importlib.util
import re
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.gate.gate_server import Server, Tree

if importlib.util.find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            "tests/gate: not run, Airflow is not installed here. `bin/test --fast` installs it; "
            "then run .cache/airflow-<version>/bin/python -m pytest tests/gate"
        )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("gate"))
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0


@pytest.fixture
def tree(server: Server, request: pytest.FixtureRequest) -> Iterator[Tree]:
    name = re.sub(r"\W", "-", request.node.name)
    tree = Tree(server.root / "worktrees" / name)
    yield tree
    for path in server.root.glob(f"worktrees/{name}*"):
        shutil.rmtree(path)
