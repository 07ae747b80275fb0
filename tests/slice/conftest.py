"""The virtual machine that `in_a_virtual_machine` runs, by SSH, and Docker there as DAGs see it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import testinfra
from testinfra.host import Host

SSH_CONFIG = os.environ.get("SLICE_SSH_CONFIG", "")
WAIT_SECONDS = 300
"""An emulated processor needs up to a minute to start a container."""

if not SSH_CONFIG:
    collect_ignore_glob = ["test_*.py"]

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            "tests/slice: not run, there is no virtual machine. As root run tests/slice/in_a_virtual_machine"
        )


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Wait until the condition is met.

    Raises:
        AssertionError: it is not met within `WAIT_SECONDS`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def host() -> Host:
    return testinfra.get_host("ssh://slice", ssh_config=SSH_CONFIG, controlpersist=600)


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.APIClient]:
    """Docker through the filter, by the SDK that DockerOperator uses."""
    socket = tmp_path_factory.mktemp("slice") / "docker.sock"
    forwarded = f"{socket}:/run/docker-proxy/docker.sock"
    with subprocess.Popen(["ssh", "-F", SSH_CONFIG, "-N", "-L", forwarded, "slice"]) as tunnel:
        wait_until("the filter's socket is here", Path(socket).exists)
        client = docker.APIClient(f"unix://{socket}", version="auto", timeout=WAIT_SECONDS)
        yield client
        client.close()
        tunnel.terminate()
