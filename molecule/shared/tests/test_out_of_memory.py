"""A process that the kernel ends for want of memory, in a container of the project, as the checker sees it.

The container is of no service that should run, so that no light is lit and no message is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from expected import PROJECT
from testinfra.host import Host

SERVICE = "out-of-memory-of-tests"
# The shell goes on when its child is ended, as a worker does.
PROGRAM = "python3 -c 'kept = [b\"x\" * 2**20 for _ in range(1024)]'; exec sleep 300"
# With the package that the host's checker has, as it is there.
LOOK = """
import json, sys, time
sys.path.insert(0, "/usr/local/lib/airflow-checker")
from airflow_checker.gather.docker import Docker
docker, service = Docker(), sys.argv[1]
container = docker.containers()[service]
now = time.time()
events = docker.out_of_memory(now - 120, now)
print(json.dumps([container.state, container.memory, container.out_of_memory, service in events]))
"""


@pytest.fixture
def container(host: Host, containers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A container that has 32 MiB and wants more."""
    image = containers["docker-socket-proxy"]["Config"]["Image"]
    labels = {"project": PROJECT, "service": SERVICE, "oneoff": "False"}
    options = " ".join(f"--label com.docker.compose.{name}={value}" for name, value in labels.items())
    identity = host.check_output(
        f"docker run --detach --network none --memory 32m --memory-swap 32m {options}"
        f" --entrypoint sh {image} -c %s",
        PROGRAM,
    ).strip()
    yield identity
    host.check_output(f"docker rm --force {identity}")


def test_checker_sees_that_memory_ran_out(host: Host, container: str) -> None:
    """In Docker's events, and in what it says of a container that goes on."""
    deadline = time.monotonic() + 60
    seen: list[Any] = []
    while seen != ["running", 32 * 2**20, True, True] and time.monotonic() < deadline:
        seen = json.loads(host.check_output("python3 -c %s %s", LOOK, SERVICE))
    assert seen == ["running", 32 * 2**20, True, True], host.check_output(f"docker logs {container} 2>&1")
