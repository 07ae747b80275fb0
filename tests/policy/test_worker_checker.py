"""The checker of a worker host: what workers.yml gives the role, and what is rendered of it there."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from airflow_checker.settings import Settings
from airflow_checker.settings import load as load_settings

from tests.policy.conftest import CASES, ROOT, Rendered, ansible, flat, load
from tests.policy.test_units import CERTIFICATE_OF, as_root, with_the_rights_of

PLAY, _ = load(ROOT / "playbooks/workers.yml")
FILES = {
    "settings": "etc/airflow-checker/settings.json",
    "restart": "etc/systemd/system/airflow-restart@.service",
    "secrets": "srv/airflow/env/checker.env",
}
MAIN = {
    "environment_name": "staging",
    "disk_low_percent": 30,
    "disk_full_percent": 20,
    "stack_build_proxies": {"https_proxy": "http://proxy.example.org:3128"},
    "backup_remote": "elsewhere:backups",
    "secrets": {"slack_webhook_url": "https://slack.example.org/T/B/x", "heartbeat_url": "https://beat.test"},
}
"""What the group of the main host sets, in which a worker is not, and what a run has fetched for it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checker's files of a worker host, rendered with the variables that the play and the wiring have."""
    folder = tmp_path_factory.mktemp("worker-checker")
    inventory = {
        "all": {
            "vars": load(ROOT / "roles/airflow_checker/defaults/main.yml"),
            "children": {
                "airflow": {"hosts": {"atd-data03": MAIN}},
                "airflow_workers": {"hosts": {"atd-worker01": {"worker_queues": ["default", "gpu"]}}},
            },
        }
    }
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    play = {
        "name": "Render the checker's files of a worker host",
        "hosts": "airflow_workers",
        "connection": "local",
        "gather_facts": False,
        "vars": PLAY["vars"],
        "vars_files": [f"{ROOT}/roles/airflow_checker/vars/main.yml"],
        "tasks": [
            {
                "name": f"Render {path}",
                "ansible.builtin.template": {
                    "src": f"{ROOT}/templates/{path}.j2",
                    "dest": f"{folder}/{name}",
                    "mode": "0600",
                },
            }
            for name, path in FILES.items()
        ],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    # Where a playbook finds the settings' defaults and the wiring.
    (folder / "group_vars").symlink_to(ROOT / "playbooks/group_vars")
    run = ansible(
        "ansible-playbook",
        f"--inventory={folder}/inventory.yml",
        f"--extra-vars=project_root={ROOT}",
        f"{folder}/play.yml",
        environment={"ANSIBLE_PYTHON_INTERPRETER": sys.executable},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return {name: folder / name for name in FILES}


@pytest.fixture
def settings(files: dict[str, Path]) -> Settings:
    """What the checker of the worker host reads."""
    variables = dict(re.findall(r"(?m)^(\w+)='(.*)'$", files["secrets"].read_text()))
    return load_settings(files["settings"], variables)


def test_checker_looks_at_the_workers_services(settings: Settings) -> None:
    assert settings.profiles == ("worker",)
    assert settings.worker_queues == {}


def test_checker_says_which_host_it_is(settings: Settings) -> None:
    assert (settings.environment, settings.host) == ("staging", "atd-worker01")


def test_checker_calls_the_same_disks_full_as_that_of_the_main_host(settings: Settings) -> None:
    assert (settings.disk_low_percent, settings.disk_full_percent) == (30, 20)


def test_checker_tells_slack_and_does_not_say_that_the_main_host_lives(
    settings: Settings, files: dict[str, Path]
) -> None:
    assert (settings.slack, settings.heartbeat) == ("https://slack.example.org/T/B/x", "")
    assert "https_proxy='http://proxy.example.org:3128'" in files["secrets"].read_text()


def test_restart_knows_the_profile(files: dict[str, Path]) -> None:
    """Without it Compose would know no service of a worker host."""
    [command] = re.findall(r"(?m)^ExecStart=(.*)$", files["restart"].read_text())
    compose = "/usr/bin/docker compose --project-directory /srv/airflow"
    assert command == f"{compose} --profile worker restart --no-deps %i"


@pytest.mark.parametrize("case", CASES)
def test_main_host_has_no_profile(rendered: dict[str, Rendered], case: str) -> None:
    files = rendered[case]
    assert "profiles" not in json.loads(files[FILES["settings"]])
    compose = "ExecStart=/usr/bin/docker compose --project-directory /srv/airflow"
    assert f"{compose} restart --no-deps %i\n" in files[FILES["restart"]]


def test_checker_starts_when_the_worker_does_and_its_files_are_recorded() -> None:
    """In each playbook that makes a worker host follow; a check records nothing."""
    included = [
        (task["ansible.builtin.include_role"], task.get("when", ""))
        for task in flat(PLAY["tasks"])
        if "ansible.builtin.include_role" in task
    ]
    names = [(role["name"], role.get("tasks_from", "main")) for role, _ in included]
    start = names.index(("worker", "start"))
    assert names[start + 1 : start + 3] == [("airflow_checker", "main"), ("airflow_checker", "record")]
    assert included[start + 2][1] == "not ansible_check_mode"


@as_root
@pytest.mark.parametrize("role", ["worker", "worker_certificates"])
def test_checker_may_read_the_certificates_of_the_tunnel(tmp_path: Path, role: str) -> None:
    """With the owner and the mode that the role gives: the unit has no capability."""
    variables = load(ROOT / f"roles/{role}/vars/main.yml")
    tables = [
        table for name, table in variables.items() if name.endswith("_files") and isinstance(table, list)
    ]
    [entry] = [
        one for table in tables for one in table if one["path"].endswith(("worker.pem", "gateway.pem"))
    ]
    assert "__" in entry["owner"]
    file = tmp_path / "certificate.pem"
    file.write_text("the certificate")
    os.chown(file, *CERTIFICATE_OF)
    file.chmod(int(entry["mode"], 8))
    tmp_path.chmod(0o755)
    run = with_the_rights_of("airflow-checker.service", "cat", str(file))
    assert run.stdout == "the certificate", run.stderr
    assert int(entry["mode"], 8) & 0o007 == 0
