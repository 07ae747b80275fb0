"""What a host for workers is once site.yml has run: what is on it, what runs, and what it lets in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from expected import DIRECTORY, ENDPOINTS
from test_sockets import listening, published
from testinfra.host import Host
from worker_host import LOG_PORT, SERVICES, WORKER_PORT, WorkerHost


@pytest.mark.usefixtures("healthy")
def test_each_service_is_healthy(each_worker: WorkerHost) -> None:
    assert set(each_worker.containers()) == SERVICES


def test_compose_reads_the_same_by_hand(each_worker: WorkerHost) -> None:
    """`docker compose --profile worker up` is for somebody without Ansible: it finds nothing to do."""
    assert set(each_worker.compose("config --services").split()) == SERVICES
    assert each_worker.check("docker compose config --services").split() == [], "without the profile"
    before = {name: one["Id"] for name, one in each_worker.containers().items()}
    each_worker.compose("up --detach --wait 2>&1")
    assert {name: one["Id"] for name, one in each_worker.containers().items()} == before


def test_images_are_those_of_the_main_host(host: Host, each_worker: WorkerHost) -> None:
    """By their ids: a worker that was built elsewhere would be another release."""
    there = set(host.check_output("docker images --no-trunc --quiet").split())
    found = {name: one["Image"] for name, one in each_worker.containers().items()}
    assert {name for name, image in found.items() if image not in there} == set()
    [main] = json.loads(
        host.check_output(f"cd {DIRECTORY} && docker inspect $(docker compose ps -q airflow-worker)")
    )
    assert found["airflow-worker"] == main["Image"]


def test_worker_has_its_hosts_name(each_worker: WorkerHost) -> None:
    """Airflow writes it down for each task, and asks it for the log."""
    done = each_worker.inside("import socket; print(socket.getfqdn())")
    assert done.stdout.strip() == each_worker.name, done.stderr


def test_worker_publishes_its_port_for_logs_alone(each_worker: WorkerHost) -> None:
    found = {name: published(one) for name, one in each_worker.containers().items()}
    assert found == {name: {LOG_PORT} if name == "tunnel" else set() for name in SERVICES}
    assert listening(each_worker.host, "tcp") == {LOG_PORT}
    assert listening(each_worker.host, "udp") == set()


def test_main_host_publishes_one_port_more(host: Host, containers: dict[str, Any]) -> None:
    """By the gateway, and nobody else."""
    ports = set(ENDPOINTS.values())
    found = {name: published(one) for name, one in containers.items() if published(one)}
    assert found == {"haproxy": ports, "worker-gateway": {WORKER_PORT}}
    assert listening(host, "tcp") == ports | {WORKER_PORT}


def test_no_container_is_more_than_on_the_main_host(each_worker: WorkerHost) -> None:
    """No capabilities, no new privileges; root, and Docker's socket, for the filter alone."""

    def privileges(document: dict[str, Any]) -> dict[str, Any]:
        status = each_worker.check(f"cat /proc/{document['State']['Pid']}/status")
        [uids] = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
        return {
            "dropped": document["HostConfig"]["CapDrop"],
            "added": document["HostConfig"]["CapAdd"] or [],
            "no new ones": "no-new-privileges:true" in document["HostConfig"]["SecurityOpt"],
            "root": "0" in uids,
            "socket": any(mount["Source"].endswith("docker.sock") for mount in document["Mounts"]),
        }

    found = {name: privileges(document) for name, document in each_worker.containers().items()}
    least = {"dropped": ["ALL"], "added": [], "no new ones": True, "root": False, "socket": False}
    of_the_filter = {"docker-socket-proxy": {**least, "root": True, "socket": True}}
    assert found == dict.fromkeys(SERVICES, least) | of_the_filter


def test_secrets_are_for_root(each_worker: WorkerHost) -> None:
    """The env files, and the key of the tunnel, which HAProxy's own user reads."""
    folder = each_worker.host.file(f"{DIRECTORY}/env")
    assert (folder.mode, folder.user) == (0o700, "root")
    modes = each_worker.check("find env -type f -printf %s", "%m %U %f\\n").splitlines()
    assert modes
    assert [line for line in modes if not line.startswith("600 0 ")] == []
    readable = "find . -perm /o+r -type f -exec grep --files-with-matches 'PRIVATE KEY' {} +"
    assert each_worker.run(readable).stdout == ""
