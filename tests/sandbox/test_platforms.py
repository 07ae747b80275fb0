"""Molecule's configuration: its Docker driver makes the same sandbox for every scenario and for bin/up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from molecule.config import Config

from tests.endpoints import ENDPOINTS

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
PLAYBOOK = """
- name: Take the platforms as create.yml does
  hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [ROOT/sandbox/vars/main.yml, ROOT/playbooks/group_vars/all/endpoints.yml]
  vars:
    # As Molecule's inventory has it; and what sandbox/images/build says.
    molecule_yml: "{{ lookup('ansible.builtin.file', molecule_file) | from_yaml }}"
    __sandbox_images: {stdout: abc}
  tasks:
    - ansible.builtin.copy:
        content: "{{ sandbox_platforms | to_json }}"
        dest: "{{ folder }}/platforms.json"
        mode: "0600"
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No sandbox is named, and Molecule's state is this test's own."""
    for name in ("SANDBOX_INSTANCE", "SANDBOX_PORT_OFFSET", "SANDBOX_MOUNT_DAGS", "SANDBOX_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MOLECULE_EPHEMERAL_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.chdir(ROOT)


def configuration(scenario: str = "default") -> Config:
    """Return a scenario's configuration, which Molecule and its driver have found valid."""
    return Config(
        molecule_file=str(ROOT / "molecule" / scenario / "molecule.yml"),
        args={"base_config": [str(ROOT / ".config/molecule/config.yml")]},
        command_args={"subcommand": "create"},
    )


def platforms(folder: Path, offset: str = "10000", **environment: str) -> list[dict[str, Any]]:
    """Return the platforms as the driver gets them."""
    file = folder / "molecule.yml"
    file.write_text(yaml.safe_dump(configuration().config_data))
    (folder / "sandbox/playbooks").mkdir(parents=True)
    playbook = folder / "sandbox/playbooks/platforms.yml"
    playbook.write_text(PLAYBOOK.replace("ROOT", str(ROOT)))
    subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--inventory=localhost,",
            f"--extra-vars=molecule_file={file}",
            f"--extra-vars=folder={folder}",
            str(playbook),
        ],
        env={**os.environ, "SANDBOX_PORT_OFFSET": offset, **environment},
        check=True,
    )
    made: list[dict[str, Any]] = json.loads((folder / "platforms.json").read_text())
    return made


@pytest.mark.parametrize(
    ("asked", "names"), [("", ["atd-worker01"]), ("all", ["atd-worker01", "atd-worker02"])]
)
def test_hosts_for_workers_are_as_the_host(tmp_path: Path, asked: str, names: list[str]) -> None:
    """Names and volumes are of their own, and none of their ports is on this machine."""
    host, _, *workers = platforms(
        tmp_path, SANDBOX_INSTANCE="airflow-molecule", SANDBOX_WORKERS="true", UPGRADE_TESTS=asked
    )
    del host["published_ports"]
    assert [worker["hostname"] for worker in workers] == names
    for worker in workers:
        name = f"airflow-molecule-{worker['hostname']}"
        own = {
            "name": name,
            "hostname": worker["hostname"],
            "volumes": [host["volumes"][0], f"{name}-docker:/var/lib/docker"],
        }
        assert worker == {**host, **own}


def test_only_their_scenario_has_hosts_for_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are as quick as before, also when all tests run."""
    monkeypatch.setenv("UPGRADE_TESTS", "all")
    asking = {
        name for name in SCENARIOS if "SANDBOX_WORKERS" in configuration(name).config_data["ansible"]["env"]
    }
    assert asking == {"workers"}
    assert len(platforms(tmp_path)) == 2


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_has_the_same_platforms(scenario: str) -> None:
    """One sandbox, written down once."""
    found = configuration(scenario)
    assert found.driver.name == "docker"
    assert [one["name"] for one in found.platforms.instances] == [
        "airflow-molecule-atd-data03",
        "airflow-molecule-services",
    ]
    assert found.platforms.instances == configuration().platforms.instances


def test_environment_names_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """As bin/up does: containers, volumes, network and ports are of its own."""
    monkeypatch.setenv("SANDBOX_INSTANCE", "airflow-local")
    monkeypatch.setenv("SANDBOX_PORT_OFFSET", "0")
    found = configuration("local")
    assert "airflow-molecule" not in yaml.safe_dump(found.config_data)
    assert found.config_data["ansible"]["env"]["SANDBOX_PORT_OFFSET"] == "0"


def test_ports_are_those_of_the_endpoints(tmp_path: Path) -> None:
    """On the loopback address, and with each the image of this working copy."""
    host, services = platforms(tmp_path, offset="20000")
    ports = [endpoint["port"] for endpoint in ENDPOINTS]
    assert host["published_ports"] == [f"127.0.0.1:{port + 20_000}:{port}" for port in ports]
    assert "published_ports" not in services
    assert (host["image"], services["image"]) == ("airflow-sandbox/host:abc", "airflow-sandbox/services:abc")


@pytest.mark.parametrize("mounted", [True, False])
def test_dags_are_mounted_where_bin_up_says_so(tmp_path: Path, mounted: bool) -> None:
    """Beside the volumes that each host has."""
    host, _ = platforms(tmp_path, **({"SANDBOX_MOUNT_DAGS": "true"} if mounted else {}))
    assert host["volumes"][:2] == [
        "/sys/fs/cgroup:/sys/fs/cgroup:rw",
        "airflow-molecule-docker:/var/lib/docker",
    ]
    assert [volume.partition(":")[2] for volume in host["volumes"][2:]] == (
        ["/srv/airflow/trees/working-copy/dags:ro"] if mounted else []
    )


def test_host_of_the_former_driver_can_be_destroyed(tmp_path: Path) -> None:
    """A machine that tested an earlier release has such a state; then the Docker driver takes over."""
    state = tmp_path / "state/state.yml"
    state.parent.mkdir()
    state.write_text("created: true\nprepared: true\ndriver: default\n")
    found = configuration()
    assert found.provisioner is not None
    assert found.provisioner.playbooks.destroy == str(ROOT / "sandbox/playbooks/destroy.yml")
    found.state.reset()
    found = configuration()
    assert found.driver.name == "docker"
    assert not found.state.created
