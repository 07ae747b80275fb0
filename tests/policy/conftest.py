"""The project as text and as YAML, and its templates rendered by Ansible for every supported combination."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endpoints import ENDPOINTS
from tests.releases import NEWEST, TESTED

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).parent
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
TEMPLATES = sorted(
    str(path.relative_to(ROOT / "templates")) for path in (ROOT / "templates").rglob("*.j2") if path.is_file()
)
PLAYBOOKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "playbooks").glob("*.yml"))

VERSIONS = TESTED
SOURCES = ("registry", "packages")
HOSTNAMES = {endpoint["name"]: f"{endpoint['name']}.example.org" for endpoint in ENDPOINTS}
CERTIFICATE = "the text of a certificate and its key"
DAEMON = '{"log-driver": "journald", "shutdown-timeout": 600, "dns": ["192.0.2.53"], "features": {"a": true}}'
"""What an operator and an earlier version of this project have in a host's daemon.json."""
PROXIES = {"https_proxy": "http://proxy.example.org:3128", "no_proxy": "connect.example.org"}
ACCOUNTS = [
    {
        "username": "jane",
        "first_name": "J'ane",
        "last_name": "D$oe",
        "email": "jane@example.org",
        "role": "Op",
    },
    {"username": "john.doe", "first_name": "J", "last_name": "D", "email": "j@example.org", "role": "Viewer"},
]
WORKERS: dict[str, dict[str, Any]] = {
    "atd-worker01": {"worker_address": "10.0.0.21", "worker_log_port": 8793, "worker_queues": ["default"]},
    "atd-worker02": {
        "worker_address": "worker02.example.org",
        "worker_log_port": 9793,
        "worker_queues": ["default", "large"],
    },
}
"""Worker hosts of an inventory, and what it says of them."""
CASES: dict[str, dict[str, Any]] = {
    f"{source} {version}": {"version": version, "source": source}
    for source in SOURCES
    for version in VERSIONS
} | {
    "host names": {"version": NEWEST, "source": "registry", "hostnames": HOSTNAMES},
    "TLS": {"version": NEWEST, "source": "registry", "hostnames": HOSTNAMES, "certificate": CERTIFICATE},
    "a host with Docker": {"version": NEWEST, "source": "registry", "daemon": DAEMON},
    "addresses": {
        "version": NEWEST,
        "source": "registry",
        "addresses": {
            "airflow_address": "https://airflow.test",
            "status_page_address": "https://status.test",
        },
    },
    "other limits": {
        "version": NEWEST,
        "source": "registry",
        "limits": {"airflow-worker": {"memory_mib_each": 3000}, "redis": {"memory_mib": 300}},
    },
    "Docker of systemd": {
        "version": NEWEST,
        "source": "registry",
        "docker": {"CgroupDriver": "systemd", "CgroupVersion": "2"},
    },
    "Docker of systemd, cgroup v1": {
        "version": NEWEST,
        "source": "registry",
        "docker": {"CgroupDriver": "systemd", "CgroupVersion": "1"},
    },
    "Docker without systemd": {
        "version": NEWEST,
        "source": "registry",
        "docker": {"CgroupDriver": "cgroupfs", "CgroupVersion": "2"},
    },
    "accounts": {"version": NEWEST, "source": "registry", "accounts": ACCOUNTS, "basic_auth": True},
    "a proxy": {"version": NEWEST, "source": "registry", "proxies": PROXIES},
    "one token": {"version": NEWEST, "source": "registry", "task_token": "", "task_vault_id": ""},
    "worker hosts": {"version": NEWEST, "source": "registry", "workers": list(WORKERS)},
    "a repository": {
        "version": NEWEST,
        "source": "registry",
        "repository": "https://git.example.org/dags.git",
    },
    "worker hosts and a repository": {
        "version": NEWEST,
        "source": "registry",
        "workers": list(WORKERS),
        "repository": "https://git.example.org/dags.git",
    },
    "one image missing": {"version": NEWEST, "source": "packages", "missing": ["airflow"]},
}

OWN_MODULES = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}

ALL_TEMPLATES = """#jinja2: keep_trailing_newline: True
{
{% for __path in __render_paths %}
{% set __text %}{% include "templates/" ~ __path ~ ".j2" %}{% endset %}
{{ __path | to_json }}: {{ __text | to_json }}{{ "" if loop.last else "," }}
{% endfor %}
}
"""
"""A template of the texts of all others. For each template that it looks up, Ansible copies all variables."""

Task = dict[str, Any]
Rendered = dict[str, str]


def load(path: Path) -> Any:
    """Return a YAML file's document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def flat(tasks: list[Task]) -> Iterator[Task]:
    """Yield the tasks, and those within blocks."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from flat(task.get(part, []))


def task_files() -> Iterator[tuple[str, list[Task]]]:
    """Yield every file with tasks or handlers, by its path, and all tasks in it."""
    for kind in ("tasks", "handlers"):
        for path in sorted(ROOT.glob(f"roles/*/{kind}/*.yml")):
            yield str(path.relative_to(ROOT)), list(flat(load(path)))
    for path in [*sorted(ROOT.glob("playbooks/*.yml")), *sorted(ROOT.glob("sandbox/playbooks/*.yml"))]:
        document = load(path)
        if isinstance(document, list) and "hosts" in document[0]:
            plays = [play.get(part, []) for play in document for part in ("pre_tasks", "tasks", "post_tasks")]
            yield str(path.relative_to(ROOT)), [task for tasks in plays for task in flat(tasks)]


TASKS = [(file, task) for file, tasks in task_files() for task in tasks]
TASK_IDS = [f"{file}: {task.get('name', 'without a name')}" for file, task in TASKS]


def module(task: Task) -> tuple[str, Any]:
    """Return the task's module and its arguments; a block has none."""
    keywords = {name for name in task if "." in name or name in OWN_MODULES}
    for name in keywords:
        return name, task[name]
    return "block", {}


def ansible(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs at the root of the project, as an operator does, without colours."""
    program, *arguments = command
    # Molecule, where it was imported, has asked for colours.
    plain = {"ANSIBLE_FORCE_COLOR": "false", "PATH": f"{ANSIBLE}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(ANSIBLE / program), *arguments],
        cwd=ROOT,
        env={**os.environ, **plain, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=1800,  # rendering every case takes minutes of processor time, and a test run gives it little
        check=False,
    )


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """Every secret that the `secrets` role hands on, each with a value that is found again."""
    items = load(ROOT / "roles/secrets/defaults/main.yml")["secrets_items"]
    names = [item["name"] for item in items] + [f"airflow_account_{one['username']}" for one in ACCOUNTS]
    names += [item["name"] for item in load(ROOT / "roles/secrets/vars/main.yml")["__secrets_of_workers"]]
    return {name: f"value-of-{name}" for name in names}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> dict[str, Rendered]:
    """The text of every file of the host, by case and by path, rendered once for all of pytest-xdist."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    directory /= "rendered"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "done").exists():
            render(directory, secrets)
            (directory / "done").touch()
    return {name: json.loads((directory / f"{name}.json").read_text()) for name in CASES}


def render(directory: Path, secrets: dict[str, str]) -> None:
    """Write the text of every file of the host, by path, into a file for each case."""
    # Those of worker hosts, too: a host that has none any more may keep them.
    hosts = {name: {"case": case, "secrets": secrets} for name, case in CASES.items()}
    inventory = {"all": {"hosts": hosts, "children": {"airflow_workers": {"hosts": WORKERS}}}}
    (directory / "inventory.json").write_text(json.dumps(inventory))
    (directory / "templates").symlink_to(ROOT / "templates")
    (directory / "all.json.j2").write_text(ALL_TEMPLATES)
    variables = {
        "render_paths": [path.removesuffix(".j2") for path in TEMPLATES],
        "render_directory": str(directory),
        "project_root": str(ROOT),
        "docker_engine_available": True,
        "stack_available": True,
        "op_connect": "http://connect.example.org",
        "op_api_token": "value-of-token",
        "op_vault_id": "value-of-vault",
    }
    (directory / "variables.json").write_text(json.dumps(variables))
    run = ansible(
        "ansible-playbook",
        f"--inventory={directory}/inventory.json",
        f"--extra-vars=@{directory}/variables.json",
        "tests/policy/render.yml",
        environment={"ANSIBLE_PYTHON_INTERPRETER": sys.executable},
    )
    assert run.returncode == 0, run.stdout + run.stderr
