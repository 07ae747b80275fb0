"""`stop.yml` with worker hosts: they are stopped first, and one that fails keeps nothing else from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.policy.operations import Hosts, said
from tests.webhook.network import free_port

SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"{calls}"
case "$*" in
  *"stop airflow-worker.service"*)
    if [ -e "{failing}" ]; then echo "no answer from systemd" >&2; exit 1; fi ;;
  *is-enabled*) echo enabled ;;
  *show*) printf 'LoadState=loaded\\nActiveState=active\\n' ;;
esac
"""
DOCKER = """#!/bin/sh
echo "docker $*" >>"{calls}"
case "$*" in
  *"compose version"*) echo '{{"version": "2.30.0"}}' ;;
  *" images "*) echo '[]' ;;
  *version*) echo '{{"Server": {{"ApiVersion": "1.45", "Version": "27.0"}}}}' ;;
esac
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """A platform with two workers, and programs that only write down how they were called."""
    made = Hosts(tmp_path, "one")
    made.inventory(one={"ansible_become": False})
    workers = {name: {"ansible_connection": "local", "ansible_become": False} for name in ("w1", "w2")}
    (tmp_path / "inventory/workers.yml").write_text(yaml.safe_dump({"airflow_workers": {"hosts": workers}}))
    for name, text in (("docker", DOCKER), ("systemctl", SYSTEMCTL)):
        made.program(name, text.format(calls=tmp_path / "calls", failing=tmp_path / "failing"))
    (made.home("one") / "docker-compose.yaml").write_text("services: {}\n")
    return made


def stop(hosts: Hosts, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run it; return also what was stopped, in order, and by which profiles of Compose."""
    run = hosts.playbook("stop.yml", *options)
    path = hosts.folder / "calls"
    calls = path.read_text().splitlines() if path.exists() else []
    units = [call.removeprefix("systemctl ") for call in calls if call.startswith("systemctl ")]
    # The module has Compose make what is missing, looks at what runs, and stops that; here nothing does.
    looks = [call for call in calls if " up " in call and "--no-start" in call]
    profiles = ["worker" if "--profile worker" in call else "main" for call in looks]
    return run, [call for call in units if call.startswith(("stop", "disable"))] + profiles


def test_workers_are_stopped_first_and_for_good(hosts: Hosts) -> None:
    run, stopped = stop(hosts)
    assert run.returncode == 0, said(run)
    worker, main = "stop airflow-worker.service", "stop airflow.service"
    assert stopped.count(worker) == stopped.count("disable airflow-worker.service") == 2
    assert max(place for place, call in enumerate(stopped) if call == worker) < stopped.index(main)
    # A switch would start what is stopped.
    switch = "stop airflow-worker-switch.service"
    assert stopped.count(switch) == stopped.count("disable airflow-worker-switch.service") == 2
    assert max(place for place, call in enumerate(stopped) if call == switch) < stopped.index(worker)
    assert "disable airflow.service" in stopped
    assert stopped[-3:] == ["worker", "worker", "main"]


def test_worker_that_fails_is_said_and_keeps_nothing_running(hosts: Hosts) -> None:
    (hosts.folder / "failing").touch()
    run, stopped = stop(hosts)
    assert run.returncode != 0
    assert {"stop airflow.service", "disable airflow.service"} <= set(stopped)
    for name in ("w1", "w2"):
        assert f"The worker on {name} was not stopped: Unable to stop service airflow-worker.service" in said(
            run
        )
        assert f"run on {name}: systemctl disable --now airflow-worker-switch airflow-worker" in said(run)
    assert hosts.notes("one") == []


def test_no_worker_is_stopped_while_an_operation_is_active(hosts: Hosts) -> None:
    hosts.journal("one")
    run, stopped = stop(hosts)
    assert run.returncode != 0
    assert "Nothing was changed." in said(run)
    assert stopped == []


def test_check_stops_nothing(hosts: Hosts) -> None:
    run, stopped = stop(hosts, "--check")
    assert run.returncode == 0, said(run)
    assert [call for call in stopped if call.startswith(("stop", "disable"))] == []
    changed = {
        line.split()[0]: "changed=0 " not in line for line in run.stdout.splitlines() if " changed=" in line
    }
    assert changed == {"one": True, "w1": True, "w2": True}


def test_limit_leaves_the_others_alone(hosts: Hosts) -> None:
    run, stopped = stop(hosts, "--limit=one")
    assert run.returncode == 0, said(run)
    assert [call for call in stopped if "worker" in call] == []
    assert "stop airflow.service" in stopped


def test_only_worker_that_is_lost_on_the_way_keeps_nothing_running(hosts: Hosts) -> None:
    """Ansible ends a run when it has lost all hosts of a play."""
    lost = hosts.folder / "lost"
    loses = f'case "$*" in *"stop airflow-worker.service"*) touch "{lost}" ;; esac\ncase'
    systemctl = SYSTEMCTL.format(calls=hosts.folder / "calls", failing=hosts.folder / "failing")
    hosts.program("systemctl", systemctl.replace("case", loses, 1))
    is_lost = f"query('ansible.builtin.first_found', ['{lost}'], skip=true)"
    worker = {
        **{"ansible_connection": "{{ 'ssh' if " + is_lost + " else 'local' }}", "ansible_become": False},
        **{"ansible_host": "127.0.0.1", "ansible_port": free_port()},
        "ansible_ssh_common_args": "-o ControlMaster=no -o ControlPath=none",
    }
    inventory = {"airflow_workers": {"hosts": {"w1": worker}}}
    (hosts.folder / "inventory/workers.yml").write_text(yaml.safe_dump(inventory))
    run, stopped = stop(hosts)
    assert run.returncode != 0
    assert {"stop airflow.service", "disable airflow.service"} <= set(stopped)
    assert "The connection to w1 was lost, and the worker there may still run." in said(run)
    assert hosts.notes("one") == []
