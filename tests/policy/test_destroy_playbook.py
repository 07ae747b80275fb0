"""`destroy.yml --check`: it names all that it would remove, nothing of anybody else, and removes nothing."""

from __future__ import annotations

import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.policy.conftest import ROOT, load
from tests.policy.operations import Hosts, said

OWN = {"com.docker.compose.project": "airflow"}
OBJECTS = {
    "containers": {"airflow-postgres-1": OWN, "airflow-gate-1": OWN, "somebodys-wiki": {}},
    "networks": {"airflow_broker": OWN, "airflow_edge": OWN, "bridge": {}},
    "volumes": {"airflow_postgres_data": OWN, "airflow_weather": OWN, "knack_data": {"kept": "yes"}},
}
"""What Docker has, by its name, with the labels."""

DOCKER = """#!/bin/sh
echo "docker $*" >>"{calls}"
case "$*" in
  *"compose version"*) echo '{{"version": "2.30.0"}}' ;;
  *" images "*) echo '[]' ;;
  *version*) echo '{{"Server": {{"ApiVersion": "1.45", "Version": "27.0"}}}}' ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"{calls}"
printf 'LoadState=not-found\\nActiveState=inactive\\n'
"""
REMOVE = """#!/bin/sh
echo "rm $*" >>"{calls}"
"""
"""The real ones must not be reached, whatever the playbook has become: this machine has files of its own."""


class Docker(BaseHTTPRequestHandler):
    """The few questions of `docker_host_info`, as Docker's API answers them."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        given = json.loads(parse_qs(address.query).get("filters", ["{}"])[0])
        labels = dict(label.split("=", 1) for label in given.get("label", []))
        found = {
            kind: [name for name, has in objects.items() if labels.items() <= has.items()]
            for kind, objects in OBJECTS.items()
        }
        answers: dict[str, Any] = {
            "version": {"ApiVersion": "1.45", "Version": "27.0"},
            "info": {"Name": "one"},
            "json": [{"Id": name, "Names": [f"/{name}"]} for name in found["containers"]],
            "networks": [{"Id": name, "Name": name} for name in found["networks"]],
            "volumes": {"Volumes": [{"Name": name} for name in found["volumes"]]},
        }
        body = json.dumps(answers[address.path.rpartition("/")[2]]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A Unix socket has no address."""
        return "-"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """It answers on a Unix socket."""

    daemon_threads = True


@pytest.fixture
def docker() -> Iterator[str]:
    """The address of a Docker that has the objects above."""
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="docker-", dir="/tmp") as folder:
        path = f"{folder}/socket"
        with Server(path, Docker) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"unix://{path}"
            server.shutdown()


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """A host with a platform, and programs that only write down how they were called."""
    made = Hosts(tmp_path, "one")
    made.inventory(one={"ansible_become": False})
    calls = tmp_path / "calls"
    for name, text in (("docker", DOCKER), ("systemctl", SYSTEMCTL), ("rm", REMOVE)):
        made.program(name, text.format(calls=calls))
    plays = load(ROOT / "playbooks/destroy.yml")
    for role in {file.removeprefix("../") for play in plays for file in play.get("vars_files", [])}:
        (tmp_path / role).parent.mkdir(parents=True)
        (tmp_path / role).symlink_to(ROOT / role)
    (made.home("one") / "docker-compose.yaml").write_text("services: {}\n")
    (made.home("one") / "trees").mkdir()
    (made.home("one") / "trees/a-commit").mkdir()
    return made


def listed(output: str, host: str = "one") -> dict[str, list[str]]:
    """Return what would be removed from a host, as the playbook says it."""
    text = output.partition("Say what would be removed")[2].partition(f"ok: [{host}] => ")[2]
    found, _ = json.JSONDecoder().raw_decode(text)
    message: dict[str, list[str]] = found["msg"]
    return message


def test_check_lists_everything_and_removes_nothing(hosts: Hosts, docker: str, tmp_path: Path) -> None:
    """It once listed nothing."""
    run = hosts.playbook("destroy.yml", "--check", "--extra-vars=confirm_host=one", DOCKER_HOST=docker)
    assert run.returncode == 0, said(run)
    found = listed(run.stdout)
    assert found["containers"] == ["/airflow-gate-1", "/airflow-postgres-1"]
    assert found["networks"] == ["airflow_broker", "airflow_edge"]
    assert found["volumes"] == ["airflow_postgres_data", "airflow_weather"]
    home = hosts.home("one")
    assert {str(home / "docker-compose.yaml"), str(home / "trees/a-commit")} <= set(found["files"])
    assert {"/usr/local/bin/airflow-release", "/etc/systemd/system/airflow.service"} <= set(
        found["files_elsewhere_if_they_are_there"]
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    [down] = [call for call in calls if " down" in call]
    assert "--dry-run" in down
    assert [call for call in calls if call.startswith("rm")] == []
    asked = {call.split()[1] for call in calls if call.startswith("systemctl")}
    assert asked <= {"show", "is-active", "is-enabled", "list-unit-files"}
    assert (home / "trees/a-commit").is_dir()


@pytest.mark.parametrize("options", [["--check"], []])
def test_another_hosts_name_removes_nothing(
    hosts: Hosts, docker: str, tmp_path: Path, options: list[str]
) -> None:
    run = hosts.playbook("destroy.yml", *options, "--extra-vars=confirm_host=two", DOCKER_HOST=docker)
    assert run.returncode == 2, said(run)
    assert "'two' is not 'one': nothing was removed." in said(run)
    assert not (tmp_path / "calls").exists()


def test_check_lists_what_a_worker_has(hosts: Hosts, docker: str, tmp_path: Path) -> None:
    """Each worker by itself, before the main host."""
    inventory = tmp_path / "inventory/workers.yml"
    inventory.write_text(
        "airflow_workers: {hosts: {w1: {ansible_connection: local, ansible_become: false}}}\n"
    )
    run = hosts.playbook("destroy.yml", "--check", "--extra-vars=confirm_host=one", DOCKER_HOST=docker)
    assert run.returncode == 0, said(run)
    found = listed(run.stdout, "w1")
    assert found["volumes"] == ["airflow_postgres_data", "airflow_weather"], "those of the same Docker"
    elsewhere = set(found["files_elsewhere_if_they_are_there"])
    assert "/etc/systemd/system/airflow-worker.service" in elsewhere
    assert "/usr/local/bin/airflow-release" not in elsewhere
    downs = [call for call in (tmp_path / "calls").read_text().splitlines() if " down" in call]
    assert ["--profile worker" in call for call in downs] == [True, False]
    assert all("--dry-run" in call for call in downs)


def test_worker_alone_is_not_removed(hosts: Hosts, docker: str, tmp_path: Path) -> None:
    """Nobody has typed the main host's name by then."""
    inventory = tmp_path / "inventory/workers.yml"
    inventory.write_text(
        "airflow_workers: {hosts: {w1: {ansible_connection: local, ansible_become: false}}}\n"
    )
    limit = ("--limit=w1", "--extra-vars=confirm_host=w1")
    run = hosts.playbook("destroy.yml", *limit, DOCKER_HOST=docker)
    assert run.returncode != 0
    assert "The worker on w1 was not removed: one is not among the hosts of this run" in said(run)
    assert not (tmp_path / "calls").exists()
