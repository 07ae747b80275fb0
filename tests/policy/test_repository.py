"""A repository over SSH needs the Git host's keys and a deploy key: who forgets one learns it early."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endpoints import ENDPOINTS
from tests.policy.conftest import ROOT, ansible, load
from tests.releases import NEWEST, RELEASES

SSH = [
    "git@github.com:cityofaustin/atd-airflow.git",
    "github.com:cityofaustin/atd-airflow.git",
    "ssh://git@github.com/cityofaustin/atd-airflow.git",
    "ssh://git@github.com:2222/cityofaustin/atd-airflow.git",
    "git+ssh://git@github.com/cityofaustin/atd-airflow.git",
]
OTHER = [
    "",
    "https://github.com/cityofaustin/atd-airflow.git",
    "http://10.0.0.2:9005/team/a.git",
    "/srv/git:2/a",
]


class Run:
    """Some of a role's tasks, run by ansible-playbook on this machine."""

    def __init__(
        self, folder: Path, role: str, part: str, variables: dict[str, Any], loop: list[Any] | None = None
    ) -> None:
        """Run it, for each `item` of a loop if there is one."""
        playbook = folder / "play.yml"
        include = {"name": f"Take {part}", "ansible.builtin.include_role": {"name": role, "tasks_from": part}}
        if loop is not None:
            include["loop"] = loop
        play = {
            "name": "Run a part of a role",
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            # As wiring.yml gives it to preflight.
            "vars": {
                "preflight_releases": RELEASES,
                "preflight_endpoints": ENDPOINTS,
                "preflight_ports": [],
                **variables,
            },
            "tasks": [include],
        }
        playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        self._run = ansible("ansible-playbook", "--inventory=localhost,", str(playbook))

    @property
    def ok(self) -> bool:
        return self._run.returncode == 0

    @property
    def output(self) -> str:
        """What was printed, without the wrapping of long messages."""
        return re.sub(r"\s+", " ", self._run.stdout + self._run.stderr)


def preflight(folder: Path, repository: str, known_hosts: str) -> Run:
    variables = {
        "preflight_airflow_version": NEWEST,
        "preflight_environment": "production",
        "preflight_uid": 50000,
        "preflight_repository": repository,
        "preflight_known_hosts": known_hosts,
    }
    return Run(folder, "preflight", "inputs", variables)


@pytest.mark.parametrize("repository", SSH)
def test_preflight_asks_for_the_git_hosts_keys(tmp_path: Path, repository: str) -> None:
    run = preflight(tmp_path, repository, " \n")
    assert not run.ok
    assert f"dag_repository is {repository}" in run.output
    assert "dag_repository_known_hosts is empty" in run.output


@pytest.mark.parametrize(
    ("repository", "known_hosts"),
    [(SSH[0], "github.com ssh-ed25519 AAAA"), *((other, "") for other in OTHER)],
)
def test_preflight_lets_pass_what_can_be_read(tmp_path: Path, repository: str, known_hosts: str) -> None:
    run = preflight(tmp_path, repository, known_hosts)
    assert run.ok, run.output


def test_preflight_comes_first_and_gets_the_repository() -> None:
    """Nothing has been changed when it says no."""
    play, *_ = load(ROOT / "playbooks/site.yml")
    assert play["roles"][:2] == ["preflight", "secrets"]
    wiring = load(ROOT / "playbooks/group_vars/all/wiring.yml")
    assert wiring["preflight_repository"] == "{{ dag_repository }}"
    assert wiring["preflight_known_hosts"] == "{{ dag_repository_known_hosts }}"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A private key as ssh-keygen writes it."""
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.read_text()


def deploy_key(folder: Path, text: str) -> Run:
    variables = {
        "dag_delivery_repository": SSH[0],
        "dag_delivery_environment": "production",
        "dag_delivery_secrets": {"deploy_key": text},
    }
    return Run(folder, "dag_delivery", "deploy_key", variables)


@pytest.mark.parametrize("text", ["", " \r\n"])
def test_missing_deploy_key_is_named(tmp_path: Path, text: str) -> None:
    run = deploy_key(tmp_path, text)
    assert not run.ok
    assert "the vault has no deploy key" in run.output
    assert 'item "DAG repository", section "production", field "deploy key"' in run.output


def test_key_that_lost_its_lines_is_refused(tmp_path: Path, key: str) -> None:
    """As a field that takes one line only would hold it. The key itself is not shown."""
    run = deploy_key(tmp_path, key.replace("\n", " "))
    assert not run.ok
    assert "has no private key" in run.output
    assert key.splitlines()[2] not in run.output


def test_public_half_is_refused(tmp_path: Path) -> None:
    run = deploy_key(
        tmp_path, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    )
    assert not run.ok
    assert "has no private key" in run.output


FORMS: dict[str, Callable[[str], str]] = {
    "as written": str,
    "without the last line end": str.rstrip,
    "with a browser's line ends": lambda key: key.replace("\n", "\r\n"),
    "with blank lines around it": lambda key: f"\n\r\n{key}\n\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_key_survives_the_way_to_the_host(tmp_path: Path, key: str, form: str) -> None:
    """OpenSSH reads the file that the role writes; and the file is the same for every form."""
    given = FORMS[form](key)
    assert deploy_key(tmp_path, given).ok
    play = {
        "name": "Write it as the role does",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROOT / f"roles/dag_delivery/{part}/main.yml") for part in ("defaults", "vars")],
        "vars": {
            "dag_delivery_project": str(ROOT),
            "dag_delivery_secrets": {"deploy_key": given, "relay_token": "token", "metrics_token": ""},
        },
        "tasks": [
            {
                "name": "Make the directory",
                "ansible.builtin.file": {"path": f"{tmp_path}/webhook", "state": "directory"},
            },
            {
                "name": "Write",
                "host_files": {"files": "{{ __dag_delivery_credentials }}", "group": str(os.getgid())},
            },
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run = ansible(
        *("ansible-playbook", "--inventory=localhost,", str(tmp_path / "play.yml")),
        # A test may run as anybody.
        *("--extra-vars", f"dag_delivery_directory={tmp_path} __dag_delivery_uid={os.getuid()}"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    written = tmp_path / "webhook/deploy_key"
    assert written.read_text() == key
    assert written.stat().st_mode & 0o777 == 0o400
    read = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(written)], capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    assert read.stdout.startswith("ssh-ed25519 ")
