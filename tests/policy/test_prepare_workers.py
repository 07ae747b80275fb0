"""Worker hosts get the next release before the main host's switch begins; none can end an operation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.missing import needs
from tests.policy import operations
from tests.policy.conftest import ROOT, Rendered, ansible
from tests.policy.operations import said
from tests.policy.test_operation_playbooks import UPGRADE
from tests.policy.test_worker_role import IMAGES, MAIN, REPOSITORY, WORKER, Hosts, variables
from tests.webhook.network import free_port

ONE, TWO = "worker-one", "worker-two"
LOST = "worker-lost"
PREPARE = [
    {
        "name": "prepare | Lose the connection to one of them",
        "ansible.builtin.ping": None,
        "delegate_to": "{{ 'away' if worker_name == 'worker-lost' else worker_name }}",
        "register": "pinged",
    },
    {
        "name": "prepare | Fail for what asks for it, or has lost the connection",
        "ansible.builtin.assert": {
            "that": "pinged is not unreachable and not hostvars[worker_name].fails | default(false)",
            "fail_msg": "no space left.",
        },
    },
    {
        "name": "prepare | Write down what the host was asked before, and the worker's settings",
        "ansible.builtin.copy": {
            "content": "{{ {'asked': query('ansible.builtin.lines', 'cat ' ~ calls),"
            " 'main': worker_main_directory, 'gateway': worker_gateway_address,"
            " 'logs': worker_log_server_port, 'queues': worker_consumed_queues, 'slots': worker_slots}"
            " | to_json }}",
            "dest": "{{ airflow_directory }}/{{ worker_name }}.json",
            "mode": "0600",
        },
        "vars": {"calls": "{{ airflow_directory }}/calls.jsonl"},
    },
]
"""In place of the role's tasks, which other tests run."""


class Operation(operations.Hosts):
    """A main host whose worker hosts are on this machine, too, or away."""

    def __init__(self, folder: Path, workers: dict[str, dict[str, Any]]) -> None:
        """Have an inventory with worker hosts, by their names and variables."""
        super().__init__(folder, "one")
        (folder / "roles/worker/tasks").mkdir(parents=True)
        (folder / "roles/worker/tasks/prepare.yml").write_text(yaml.safe_dump(PREPARE))
        path = folder / "inventory/hosts.yml"
        away = {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": free_port(),
            "ansible_ssh_common_args": "-o ControlMaster=no -o ControlPath=none",
        }
        document = yaml.safe_load(path.read_text())
        document["airflow_workers"] = {
            "hosts": {
                name: {"worker_queues": [name], "worker_concurrency": 3, "worker_main_address": "192.0.2.1"}
                | ({"ansible_connection": "local"} if given.pop("here", True) else away)
                | given
                for name, given in workers.items()
            }
        }
        document["others"] = {"hosts": {"away": away}}
        path.write_text(yaml.safe_dump(document))

    def noted(self, worker: str) -> Any:
        """Return what was written down as a worker host was prepared; None for nothing."""
        path = self.home("one") / f"{worker}.json"
        return json.loads(path.read_text()) if path.exists() else None


def test_worker_hosts_are_prepared_before_the_switch_begins(tmp_path: Path) -> None:
    """Each by its own settings, of the inventory's line for it."""
    hosts = Operation(tmp_path, {ONE: {}, TWO: {"worker_log_port": 9793, "worker_queues": ["a", "b"]}})
    run = hosts.play(**UPGRADE)
    assert run.returncode == 0, said(run)
    for name, logs, queues in ((ONE, 8793, [ONE]), (TWO, 9793, ["a", "b"])):
        noted = hosts.noted(name)
        asked = [json.loads(line)[0][0] for line in noted.pop("asked")]
        assert "begin" in asked
        assert "start" not in asked
        assert noted == {
            "main": f"{hosts.home('one')}/releases/next",
            "gateway": "192.0.2.1",
            "logs": logs,
            "queues": queues,
            "slots": 3,
        }
    assert "does not have the next release" not in said(run)


@pytest.mark.parametrize("how", ["away", "full", "lost"])
def test_worker_host_that_cannot_be_prepared_is_a_warning(tmp_path: Path, how: str) -> None:
    """It ends no operation, and keeps no other worker host from being prepared."""
    name = LOST if how == "lost" else ONE
    hosts = Operation(tmp_path, {name: {"here": how != "away", "fails": how == "full"}, TWO: {}})
    run = hosts.play(**UPGRADE)
    assert run.returncode == 0, said(run)
    assert hosts.operation("one")["state"] == "succeeded"
    assert {"refuse", "abandon"} & set(hosts.commands("one")) == set()
    assert f"WARNING: {name} does not have the next release: " in said(run)
    assert how == "away" or "no space left. Rollback goes on." in said(run)
    assert "at the end of this run or with: ansible-playbook site.yml" in said(run)
    assert hosts.noted(name) is None
    assert hosts.noted(TWO) is not None


def test_operation_that_goes_on_prepares_nobody(tmp_path: Path) -> None:
    """Its switch may be over."""
    hosts = Operation(tmp_path, {ONE: {}})
    command = UPGRADE["upgrade_command"]
    hosts.journal("one", command=command, kind="rollback", state="unconfirmed")
    run = hosts.play(**UPGRADE)
    assert run.returncode == 0, said(run)
    assert hosts.noted(ONE) is None


# --- What is laid out

SYSTEMCTL = """#!{python}
import json, sys
from pathlib import Path
home = Path({home!r})
state = home / "unit.json"
unit = json.loads(state.read_text()) if state.exists() else {{"ActiveState": "inactive", "enabled": False}}
verb = next(word for word in sys.argv[1:] if not word.startswith("-"))
if verb == "show":
    # One that was told to stop takes a while.
    print("LoadState=loaded", "UnitFileState=x", "ActiveState=" + unit["ActiveState"], sep="\\n")
    if unit["ActiveState"] == "deactivating":
        unit["ActiveState"] = "inactive"
elif verb == "is-enabled":
    print("enabled" if unit["enabled"] else "disabled")
    sys.exit(0 if unit["enabled"] else 1)
else:
    laid_out = sorted(path.parent.name for path in (home / "platform/releases").glob("*/release.json"))
    with (home / "systemctl.jsonl").open("a") as calls:
        print(json.dumps([verb, laid_out]), file=calls)
    unit["enabled"] = {{"enable": True, "disable": False}}.get(verb, unit["enabled"])
    if verb == "start" or (verb == "stop" and unit["ActiveState"] == "active"):
        unit["ActiveState"] = {{"start": "active", "stop": "deactivating"}}[verb]
state.write_text(json.dumps(unit))
"""
ANNOTATE = "annotate:1"
NAME = "1-a"


class Prepared(Hosts):
    """One worker host, whose systemd is a program that remembers what it was told."""

    def __init__(self, folder: Path, files: Rendered) -> None:
        """Have the main host's next files where it would have them."""
        super().__init__(
            folder, {ONE: {name: image for name, image in IMAGES.items() if name != "webhook:1"}}
        )
        self.folder, self.main, self.platform = folder, folder / "next", folder / "platform"
        settings = dict(
            zip(
                ("AIRFLOW_IMAGE", "HAPROXY_IMAGE", "DOCKER_POLICY_IMAGE", "WEATHER_IMAGE", "WEBHOOK_IMAGE"),
                IMAGES,
                strict=False,
            )
        )
        for path, text in files.items():
            if path.startswith(f"{MAIN}/") and "/trees/" not in path:
                target = self.main / path.removeprefix(f"{MAIN}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        env = variables((self.main / ".env").read_text()) | settings | {"WORKER_RELEASE": NAME}
        (self.main / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        compose = yaml.safe_load((self.main / "docker-compose.yaml").read_text())
        compose["services"]["airflow-worker"]["environment"]["AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE"] = ANNOTATE
        (self.main / "docker-compose.yaml").write_text(yaml.safe_dump(compose))
        self.platform.mkdir()
        (folder / "bin").mkdir()
        program = folder / "bin/systemctl"
        program.write_text(SYSTEMCTL.format(python=sys.executable, home=str(folder)))
        program.chmod(0o755)
        (folder / "group_vars").symlink_to(ROOT / "playbooks/group_vars")

    def run(self, tasks: str) -> subprocess.CompletedProcess[str]:
        """Run a file of tasks as the main host's play does, for the worker host."""
        play = {
            "name": "Prepare",
            "hosts": "main",
            "gather_facts": False,
            "any_errors_fatal": True,
            "vars": {"docker_engine_available": False, "upgrade_kind": "upgrade", "prepare_worker": ONE},
            "tasks": [{"name": "Do it", "ansible.builtin.include_tasks": tasks}],
        }
        given = {
            "project_root": str(ROOT),
            "airflow_directory": str(self.platform),
            "worker_main_directory": str(self.main),
            "worker_database_password": "password",
            "dag_repository": "a repository",
            # These would be this machine's.
            "__worker_switch_files": [],
            "__worker_unit_files": [],
            "__worker_unit_directories": [],
            "__worker_main_unit": str(self.folder / "airflow.service"),
            "__worker_unfinished": str(self.folder / "unfinished"),
        }
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(self.inventory))
        return ansible(
            "ansible-playbook",
            f"--inventory={self.folder}/hosts.yml",
            f"--extra-vars={json.dumps(given)}",
            str(self.folder / "play.yml"),
            environment={
                "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            },
        )

    def told(self) -> list[tuple[str, list[str]]]:
        """Return what systemd was told since the last question, each with what was laid out then."""
        path = self.folder / "systemctl.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [(verb, laid_out) for verb, laid_out in map(json.loads, lines)]


@needs(root=True)
def test_next_release_is_laid_out_beside_what_runs(tmp_path: Path, rendered: dict[str, Rendered]) -> None:
    """With its images. The unit begins when all is there, and what was laid out earlier is gone then."""
    files = rendered[REPOSITORY]
    hosts = Prepared(tmp_path, files)
    (hosts.platform / "docker-compose.yaml").write_text("of the old release")
    tasks = str(ROOT / "playbooks/tasks/prepare_worker.yml")
    run = hosts.run(tasks)
    assert run.returncode == 0, said(run)
    assert "WARNING" not in said(run)
    assert hosts.has(ONE, "loaded") == ["webhook:1"]
    assert hosts.told() == [("daemon-reload", [NAME]), ("enable", [NAME]), ("start", [NAME])]
    laid_out = hosts.platform / "releases" / NAME
    expected = {path.removeprefix(f"{WORKER}/") for path in files if path.startswith(f"{WORKER}/")} | {
        "env/onepassword.env",
        "env/slack.env",
        "docker-socket-proxy/policy.json",
    }
    found = {str(path.relative_to(laid_out)) for path in laid_out.rglob("*") if path.is_file()}
    assert found == expected
    named = json.loads((laid_out / "release.json").read_text())
    assert named == {"name": NAME, "address": "main", "port": 8443}
    assert f"postgres-{NAME}.workers.airflow.internal" in (laid_out / "tunnel/haproxy.cfg").read_text()
    assert [(laid_out / path).stat().st_mode & 0o777 for path in ("", "../", "env", "env/worker.env")] == [
        *(0o700, 0o700, 0o700, 0o600)
    ]
    assert (hosts.platform / "docker-compose.yaml").read_text() == "of the old release"

    (hosts.platform / "releases/earlier").mkdir()
    (hosts.platform / "releases/earlier/release.json").touch()
    assert hosts.run(tasks).returncode == 0
    before = [NAME, "earlier"]
    assert hosts.told() == [
        # Ansible asks a unit that is still stopping to stop once more.
        *(("disable", before), ("stop", before), ("stop", before)),
        *(("daemon-reload", [NAME]), ("enable", [NAME]), ("start", [NAME])),
    ]


def test_host_that_is_no_worker_yet_follows_at_the_end(tmp_path: Path, rendered: dict[str, Rendered]) -> None:
    hosts = Prepared(tmp_path, rendered[REPOSITORY])
    run = hosts.run(str(ROOT / "playbooks/tasks/prepare_worker.yml"))
    assert run.returncode == 0, said(run)
    assert f"WARNING: {ONE} does not have the next release: there is no worker on {ONE} yet. Upgrade" in said(
        run
    )
    assert list(hosts.platform.iterdir()) == []


# --- What a run puts there itself

FOLLOW = [
    {"ansible.builtin.include_role": {"name": "worker", "tasks_from": part}, "name": f"Run {part}"}
    | {"vars": {"docker_engine_available": True}}
    for part in ("main_host", "files")
]
DOCKER = """#!/bin/sh
case "$*" in
  ps*) echo the-old-worker ;;
  stop*|rm*) echo "$* with $(cat {platform}/tunnel/haproxy.cfg)" >>{folder}/docker-calls ;;
esac
"""


@needs(root=True)
@pytest.mark.parametrize("was", [NAME, "0-of-before", None])
def test_worker_of_another_release_goes_before_the_tunnel_is_the_new_one(
    tmp_path: Path, rendered: dict[str, Rendered], was: str | None
) -> None:
    """By the new tunnel the gateway would let it in. One of the same release goes on.

    Its tasks have no way to the main host any more, so nobody waits for them for long.
    """
    hosts = Prepared(tmp_path, rendered[REPOSITORY])
    program = tmp_path / "bin/docker"
    program.write_text(DOCKER.format(platform=hosts.platform, folder=tmp_path))
    program.chmod(0o755)
    (hosts.platform / "tunnel").mkdir()
    (hosts.platform / "tunnel/worker.pem").touch()
    (hosts.platform / "tunnel/haproxy.cfg").write_text("the old tunnel")
    if was:
        (hosts.platform / "release.json").write_text(json.dumps({"name": was}))
    (tmp_path / "follow.yml").write_text(yaml.safe_dump(FOLLOW))
    run = hosts.run(str(tmp_path / "follow.yml"))
    assert run.returncode == 0, said(run)
    assert f"postgres-{NAME}." in (hosts.platform / "tunnel/haproxy.cfg").read_text()
    calls, goes = tmp_path / "docker-calls", was != NAME
    found = calls.read_text().splitlines() if calls.exists() else []
    assert found == [f"{verb} the-old-worker with the old tunnel" for verb in ("stop -t 30", "rm") if goes]


@needs(root=True)
@pytest.mark.parametrize("part", ["prepare", "main"])
def test_machine_with_a_platform_becomes_no_worker(
    tmp_path: Path, rendered: dict[str, Rendered], part: str
) -> None:
    """Two names may mean one machine: it would lose its services, and what it knows of its releases."""
    hosts = Prepared(tmp_path, rendered[REPOSITORY])
    (tmp_path / "airflow.service").touch()
    (hosts.platform / "docker-compose.yaml").write_text("of the main host")
    (hosts.platform / "tunnel").mkdir()
    (hosts.platform / "tunnel/worker.pem").touch()
    (hosts.platform / "releases").mkdir()
    (hosts.platform / "releases/operation.json").write_text(json.dumps({"state": "succeeded"}))
    tasks = ROOT / "playbooks/tasks/prepare_worker.yml"
    if part == "main":
        tasks = tmp_path / "tasks.yml"
        role = {"name": "Make it a worker", "ansible.builtin.include_role": {"name": "worker"}}
        tasks.write_text(yaml.safe_dump([role]))
    run = hosts.run(str(tasks))
    assert "so that machine is a main host, and becomes no worker" in said(run)
    assert (run.returncode != 0) == (part == "main")
    assert (hosts.platform / "releases/operation.json").exists()
    assert (hosts.platform / "docker-compose.yaml").read_text() == "of the main host"
    assert hosts.told() == []
