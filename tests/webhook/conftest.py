"""A Git repository to push to, a gate to ask, and settings of a host that has both."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from webhook.settings import Settings

from tests.webhook.doubles import GateDouble, Remote

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    remote = Remote(tmp_path / "remote")
    remote.commit({"dags/one.py": "one = 1\n", "dags/utils/common.py": "common = 1\n", "site.yml": "---\n"})
    return remote


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[GateDouble]:
    with GateDouble(tmp_path / "gate.sock", tmp_path / "trees") as double:
        yield double


@pytest.fixture
def settings(tmp_path: Path, remote: Remote, gate: GateDouble) -> Settings:
    return Settings(
        environment="production",
        trees_dir=tmp_path / "trees",
        state_dir=tmp_path / "state",
        repository=remote.settings(retry_pause=0.05),
        gate_socket=gate.path,
        lock_timeout=30,
        airflow_url="http://127.0.0.1:9",  # discard: nobody answers
    )


@pytest.fixture
def environment(settings: Settings, remote: Remote) -> dict[str, str]:
    """The same settings as the variables that a program is started with."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OP_", "GIT_"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT / "webhook/src"), str(ROOT)]),
        "ENVIRONMENT": settings.environment,
        "DAG_TREES_DIR": str(settings.trees_dir),
        "DAG_STATE_DIR": str(settings.state_dir),
        "DAG_REPOSITORY": str(remote.path),
        "GATE_SOCKET": str(settings.gate_socket),
    }


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m <module> <arguments>`; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(module: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        with contextlib.suppress(ValueError):  # the test has read it
            print(process.communicate()[0])
