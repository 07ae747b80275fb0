"""A worker is taken out of the inventory: it is shut out. With the last one the main host is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_node import ControlNode
from delivery import Delivery
from expected import DIRECTORY, ENDPOINTS, SERVICES
from long_tests import when_asked
from platform_host import Platform
from test_sockets import listening
from testinfra.host import Host
from worker_host import GATEWAY, NAMES, WORKER_PORT, WorkerHost, connection_name, release_of, say


@when_asked
@pytest.mark.parametrize("name", NAMES[::-1])
def test_removed_worker_is_shut_out(
    host: Host,
    platform: Platform,
    delivery: Delivery,
    control: ControlNode,
    with_workers: str,
    workers: dict[str, WorkerHost],
    tmp_path: Path,
    name: str,
) -> None:
    """With its certificate, which has not ended. Those that stay work on."""
    worker = workers[name]
    worker.wait_until_healthy()
    certificate = tmp_path / "worker.pem"
    certificate.touch(mode=0o600)
    certificate.write_text(worker.certificate)
    ping = b"PING\r\n"
    assert say(
        worker.main_address, WORKER_PORT, connection_name("redis", release_of(host)), ping, certificate
    )

    inventory: dict[str, Any] = yaml.safe_load((control.project / with_workers.partition("=")[2]).read_text())
    hosts = inventory["airflow_workers"]["hosts"]
    left = {other: values for other, values in hosts.items() if NAMES.index(other) < NAMES.index(name)}
    arguments = [f"--extra-vars=remove_worker={name}"]
    if left:
        file = tmp_path / "workers.yml"
        file.write_text(yaml.safe_dump({"airflow_workers": {"hosts": left}}))
        arguments.append(f"--inventory={file}")
    control.run("site.yml", *arguments).succeeded()

    platform.wait_until_healthy()
    assert {row["name"] for row in delivery.page()["workers"]} == set(left)
    if left:
        lines = host.file(f"{GATEWAY}/workers.map").content_string.splitlines()
        assert {line.split()[-1] for line in lines if line.strip()} == set(left)
        redis = connection_name("redis", release_of(host))
        assert say(worker.main_address, WORKER_PORT, redis, ping, certificate) == b""
        for other in left:
            workers[other].wait_until_healthy()


@when_asked
def test_main_host_is_as_without_workers(host: Host, platform: Platform) -> None:
    """Its services, its ports, and what Compose reads are those of a host that never had one."""
    assert set(platform.containers()) == set(SERVICES)
    assert listening(host, "tcp") == set(ENDPOINTS.values())
    text = host.check_output(f"docker compose --project-directory {DIRECTORY} config --format json")
    assert set(json.loads(text)["services"]) == set(SERVICES)
