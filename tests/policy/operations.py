"""Hosts of this machine with a stand-in for `airflow-release`, and Ansible running playbooks/tasks there."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.policy.conftest import ROOT, ansible

GONE = {"host": socket.gethostname(), "pid": 4194304, "started": "Thu Jan  1 00:00:00 1970"}
"""A process of this machine that does not run (pid_max is 4194304 at most)."""
ELSEWHERE = {"host": "a-laptop", "pid": 1, "started": "Thu Jan  1 00:00:00 1970"}

PROGRAM = """#!{python}
import argparse, json, pathlib, sys
home = pathlib.Path("{home}")
journal = home / "releases/operation.json"
says = json.loads((home / "says.json").read_text())
name, *rest = sys.argv[1:]
given = sys.stdin.read() if "--reason-from-stdin" in rest else ""
with (home / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], given]) + "\\n")
operation = json.loads(journal.read_text()) if journal.exists() else None
def option(name):
    return rest[rest.index(name) + 1] if name in rest else ""
def save():
    journal.write_text(json.dumps(operation))
if name in says.get("failing", {{}}):
    print(says["failing"][name], file=sys.stderr)
    sys.exit(3)
if name == "status":
    print(json.dumps({{"running_version": "2.5.3", "operation": operation}}))
elif name == "examine" and "bundles" in says:
    # As if a timer took a newer backup after each question for `latest`.
    path = says["bundles"].pop(0) if rest[0] == "latest" else rest[0]
    (home / "says.json").write_text(json.dumps(says))
    print(json.dumps({{"database": "bundle:" + path, "created": says["created"], "replaced": []}}))
elif name in ("health", "space", "examine", "check-rotation"):
    code, text = says.get(name, [0, "fine"])
    print(text)
    sys.exit(code)
elif name == "begin":
    if operation and operation["id"] != option("--take-over") and operation["state"] == "prepared":
        print("another one is prepared", file=sys.stderr)
        sys.exit(3)
    operation = {{"id": "id-of-this", "kind": option("--kind"), "from_version": "2.5.3", "phases": [],
        "to_version": option("--to-version"), "command": json.loads(option("--command")), "touched": 0,
        "database": option("--database"), "control": json.loads(option("--control")), "failure": {{}},
        "options": json.loads(option("--options")), "warnings": says.get("warnings", []),
        "state": "prepared", "done": says.get("done", {{}})}}
    save()
    print(json.dumps({{"id": operation["id"]}}))
elif name == "start":
    operation["state"] = "unconfirmed"
    save()
elif name == "wait":
    asked = home / ("asked-" + rest[0])
    ended = operation["state"] in ("succeeded", "reverted", "abandoned")
    over = asked.exists() and (rest[0] != "end" or ended)
    asked.touch()
    failed = over and rest[0] == says.get("failed_phase")
    text = rest[0] + (" failed: no disk" if failed else ": 1 s")
    print(json.dumps({{"over": over, "failed": failed, "said": text}}))
elif name in ("confirm", "refuse", "abandon"):
    operation["state"] = {{"confirm": "succeeded", "refuse": "reverted", "abandon": "abandoned"}}[name]
    if given:
        operation["failure"] = {{"phase": "smoke", **json.loads(given)}}
    save()
"""

STUBS = {
    "roles/smoke/tasks/dag.yml": [
        {
            "name": "dag | Run it",
            "ansible.builtin.assert": {"that": "the_run_passes", "fail_msg": "the run failed"},
        }
    ],
    "roles/smoke/tasks/endpoints.yml": [
        {
            "name": "endpoints | Look",
            "ansible.builtin.debug": {"msg": "asked but of {{ smoke_ill_services }}"},
        }
    ],
}
_NOTHING = [{"name": "Do nothing", "ansible.builtin.debug": {"msg": "done"}}]
RESTORE_STUBS = {
    "roles/secrets/tasks/main.yml": [
        {
            "name": "Give secrets",
            "ansible.builtin.set_fact": {
                "secrets": {"fernet_key": "k", "airflow_admin_username": "a", "airflow_admin_password": "b"}
            },
        }
    ],
    **dict.fromkeys(
        (
            "roles/preflight/tasks/main.yml",
            "roles/preflight/tasks/control.yml",
            "roles/airflow_release/tasks/main.yml",
            "roles/airflow_release/tasks/files.yml",
            "roles/stack/tasks/files.yml",
            "roles/stack/tasks/images.yml",
            "roles/stack/tasks/built.yml",
            "roles/haproxy/tasks/configure.yml",
        ),
        _NOTHING,
    ),
}
"""The roles around an operation, as far as restore.yml uses them."""

FOOTER = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec=dict(url={}, username={}, password={"no_log": True})).exit_json(version="2.6.1")
"""


class Hosts:
    """One or more hosts, each a folder of this machine, and an inventory for them."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names = folder, names
        for path, tasks in STUBS.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(yaml.safe_dump(tasks))
        (folder / "library").mkdir()
        (folder / "library/airflow_footer.py").write_text(FOOTER)
        (folder / "playbooks").mkdir()
        (folder / "playbooks/group_vars").symlink_to(ROOT / "playbooks/group_vars")
        (folder / "inventory").mkdir()
        for name in names:
            (self.home(name) / "releases/next").mkdir(parents=True)
            (self.home(name) / "bin").mkdir()
            (self.home(name) / "status").mkdir()
            self.says(name)
            program = self.home(name) / "bin/airflow-release"
            program.write_text(PROGRAM.format(python=sys.executable, home=self.home(name)))
            program.chmod(0o755)
        self.inventory()

    def home(self, name: str) -> Path:
        return self.folder / "hosts" / name

    def says(self, name: str, **answers: Any) -> None:
        """Let the host's command answer so."""
        (self.home(name) / "says.json").write_text(json.dumps(answers))

    def inventory(self, **variables: Any) -> None:
        hosts = {
            name: {
                "ansible_connection": "local",
                "airflow_directory": str(self.home(name)),
                "the_run_passes": True,
                **variables.get(name, {}),
            }
            for name in self.names
        }
        text = yaml.safe_dump({"airflow": {"hosts": hosts}})
        (self.folder / "inventory/hosts.yml").write_text(text)

    def journal(self, name: str, **operation: Any) -> dict[str, Any]:
        """Put an operation under way on the host."""
        found = {
            "id": "20261122T203952Z-upgrade-2.6.1",
            "kind": "upgrade",
            "from_version": "2.5.3",
            "to_version": "2.6.1",
            "command": {"kind": "upgrade", "airflow_version": "2.6.1"},
            "state": "switching",
            "phases": [{"name": "drain", "state": "running", "started": 1795552872.0}],
            "done": {"begun": True},
            "control": GONE,
            "database": "copy",
            "failure": {},
            "touched": 1795552880.0,
            **operation,
        }
        (self.home(name) / "releases/operation.json").write_text(json.dumps(found))
        return found

    def operation(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home(name) / "releases/operation.json").read_text())
        return found

    def note(self, name: str, control: dict[str, Any], *, age: float = 0) -> Path:
        """Have a playbook of that process change the host."""
        path = self.home(name) / f"releases/playbook-{control['host']}-{control['pid']}.json"
        since = "2026-11-26T09:00:05Z"
        text = {"playbook": "Bring it up", "control": control, "counts_for": 14400, "since": since}
        path.write_text(json.dumps(text))
        os.utime(path, (time.time() - age,) * 2)
        return path

    def notes(self, name: str) -> list[Path]:
        """Return what playbooks have noted down on the host."""
        return list((self.home(name) / "releases").glob("playbook-*.json"))

    def calls(self, name: str) -> list[tuple[list[str], str]]:
        """Return the commands that the host was given, each with its standard input."""
        path = self.home(name) / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(arguments, given) for arguments, given in map(json.loads, lines)]

    def commands(self, name: str) -> list[str]:
        return [arguments[0] for arguments, _ in self.calls(name)]

    def playbook(self, name: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook itself on the only host, whose programs come before those of this machine."""
        [host] = self.names
        text = (ROOT / "playbooks" / name).read_text(encoding="utf-8")
        (self.folder / "playbooks" / name).write_text(text)
        for part in ("tasks", "workers.yml"):
            (self.folder / "playbooks" / part).symlink_to(ROOT / "playbooks" / part)
        path = f"{self.home(host)}/bin:{os.environ['PATH']}"
        return self._ansible(name, *options, PATH=path, **environment)

    def program(self, name: str, text: str) -> None:
        """Give the only host a program."""
        [host] = self.names
        path = self.home(host) / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def restore(self, *options: str, confirmed: bool = True) -> subprocess.CompletedProcess[str]:
        """Run playbooks/restore.yml itself on the only host; what is not the operation is a stub."""
        [name] = self.names
        (self.folder / "playbooks/site.yml").write_text(
            yaml.safe_dump([{"name": "Bring it up", "hosts": "airflow"}])
        )
        for path, tasks in RESTORE_STUBS.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(yaml.safe_dump(tasks))
        for step in ("examine", "upload", "remove_upload"):
            path = f"roles/airflow_release/tasks/{step}.yml"
            (self.folder / path).symlink_to(ROOT / path)
        (self.home(name) / "docker-compose.yaml").touch()
        self.inventory(
            **{
                name: {
                    "airflow_release_backup_directory": str(self.folder / "backups"),
                    "ansible_become": False,
                    "upgrade_report_directory": "{{ airflow_directory }}/reports",
                }
            }
        )
        (self.folder / "backups").mkdir(exist_ok=True)
        options += ("--extra-vars=airflow_version=2.6.1",)
        if confirmed:
            options += (f"--extra-vars=confirm_host={name}",)
        return self.playbook("restore.yml", *options)

    def play(
        self, *options: str, tasks: list[str] | None = None, role: str = "", **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the files of playbooks/tasks on all hosts, or one file of the role `upgrade`."""
        play = {
            "name": "Operate",
            "hosts": "airflow",
            "gather_facts": False,
            "serial": 1,
            "any_errors_fatal": True,
            "environment": {"PATH": "{{ airflow_directory }}/bin:" + os.environ["PATH"]},
            "vars": {"secrets": {"airflow_admin_username": "a", "airflow_admin_password": "b"}, **variables},
            "tasks": [
                {
                    "name": role,
                    "ansible.builtin.include_role": {"name": "upgrade", "tasks_from": role},
                }
            ]
            if role
            else [
                {"name": name, "ansible.builtin.include_tasks": str(ROOT / f"playbooks/tasks/{name}.yml")}
                for name in tasks or ["guard", "operate"]
            ],
        }
        path = self.folder / "playbooks/play.yml"
        path.write_text(yaml.safe_dump([play]))
        return self._ansible("play.yml", *options)

    def _ansible(self, playbook: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ansible(
            "ansible-playbook",
            f"--inventory={self.folder}/inventory",
            f"--extra-vars=project_root={ROOT}",
            *options,
            str(self.folder / "playbooks" / playbook),
            environment={
                "ANSIBLE_ROLES_PATH": f"{self.folder}/roles:{ROOT}/roles",
                "ANSIBLE_LIBRARY": f"{self.folder}/library:{ROOT}/plugins/modules",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                **environment,
            },
        )


def said(run: subprocess.CompletedProcess[str]) -> str:
    """Return the output without the wrapping of long messages."""
    return re.sub(r"\s+", " ", run.stdout + run.stderr)
