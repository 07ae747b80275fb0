"""The tables of files that roles give to host_files: complete, and secret where they have to be."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from airflow_release.backup.backups import CONFIGURATION
from airflow_release.switch.release_files import MANAGED

from tests.plugins.conftest import write
from tests.policy.conftest import ROLES, ROOT, TEMPLATES, ansible, load
from tests.policy.test_roles import EXPRESSION
from tests.policy.test_tasks import SECRET

Entry = dict[str, Any]

OF_A_RELEASE = ("stack", "haproxy")
"""Roles whose relative paths are those of a release, and their templates are in templates/srv/airflow."""

WORKER = "worker"
"""The role of other hosts, whose templates are in templates/worker. destroy.yml is for the main host."""

ELSEWHERE = {
    "srv/airflow/build/docker-bake.json.j2": "roles/stack/tasks/build.yml",
    "srv/airflow/releases/report.html.j2": "roles/upgrade/tasks/publish.yml",
}
"""Templates that are rendered when they are needed, by a task of their own."""


def tables() -> list[tuple[str, Entry]]:
    """Return every entry of a table, with its role."""
    found = []
    for role in ROLES:
        path = ROOT / f"roles/{role}/vars/main.yml"
        variables = load(path) if path.exists() else {}
        for name, table in variables.items():
            if name.endswith(("_files", "_credentials")) and isinstance(table[0], dict):
                found += [(role, {**entry, "path": plain(entry["path"], variables)}) for entry in table]
    return found


def plain(path: str, variables: dict[str, Any]) -> str:
    """Return a path with the role's own variables in it, as far as they are plain text."""
    return re.sub(r"{{ (\w+) }}", lambda found: str(variables.get(found[1], found[0])), path)


def template(role: str, entry: Entry) -> str:
    """Return an entry's template, "" for one with a content of its own."""
    if "content" in entry:
        return ""
    if "src" in entry:
        return str(entry["src"]).split("}}/", 1)[1]
    path = str(entry["path"])
    if role == WORKER:
        return ("worker" if path.startswith("/") else "worker/srv/airflow/") + path + ".j2"
    return ("srv/airflow/" if role in OF_A_RELEASE else "") + path.lstrip("/") + ".j2"


ENTRIES = tables()
RELEASE = {entry["path"]: entry for role, entry in ENTRIES if role in OF_A_RELEASE}


def test_every_template_lands_on_the_host_once() -> None:
    """What templates/ has is what the host gets."""
    rendered = [template(role, entry) for role, entry in ENTRIES if "content" not in entry]
    assert sorted([*rendered, *ELSEWHERE]) == TEMPLATES
    for path, tasks in ELSEWHERE.items():
        assert path in (ROOT / tasks).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("role", "entry"), ENTRIES, ids=[f"{role}: {entry['path']}" for role, entry in ENTRIES]
)
def test_file_with_a_secret_is_neither_shown_nor_readable(role: str, entry: Entry) -> None:
    """A task names its table as a whole, so the table says it. Whether a secret is there may be known."""
    path = template(role, entry)
    text = (ROOT / "templates" / path).read_text(encoding="utf-8") if path else entry["content"]
    shown = [found for found in EXPRESSION.findall(text) if re.match(r"{{|{%-? for ", found)]
    if any(SECRET.search(expression) for expression in shown):
        assert entry["secret"] is True
        assert entry["mode"] in ("0400", "0440", "0600")


def test_release_command_replaces_all_files_of_a_release() -> None:
    tops = {path: [top for top in MANAGED if PurePosixPath(path).is_relative_to(top)] for path in RELEASE}
    assert [path for path, found in tops.items() if not found] == []
    assert {top for found in tops.values() for top in found} == set(MANAGED)


def test_backup_has_the_configuration_without_secrets() -> None:
    """`.env` is not shown because of a hash in it; the maintenance page says nothing of a host."""
    copied = {
        path for path in RELEASE if any(PurePosixPath(path).is_relative_to(top) for top in CONFIGURATION)
    }
    public = {path for path, entry in RELEASE.items() if not entry.get("secret")}
    assert copied == public - {"haproxy/maintenance.html"} | {".env"}


def destroys(folder: Path, name: str) -> dict[str, list[str]]:
    """Return what a play of destroy.yml removes outside the platform's directory, and what it stops."""
    [play] = [play for play in load(ROOT / "playbooks/destroy.yml") if play["name"] == name]
    [removal] = load(ROOT / "playbooks/tasks/destroy_host.yml")
    found = "{'removed': __destroy_elsewhere, 'stopped': __destroy_units_in_order}"
    play = {
        "name": "Say it",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {**removal["vars"], **play["vars"], "airflow_directory": "/srv/airflow"},
        "vars_files": [str(ROOT / "playbooks" / path) for path in play["vars_files"]],
        "tasks": [write(found, f"'{folder}/found.json'", folder)],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    (folder / "group_vars").symlink_to(ROOT / "playbooks/group_vars")
    run = ansible("ansible-playbook", "--inventory=localhost,", str(folder / "play.yml"))
    assert run.returncode == 0, run.stdout + run.stderr
    lists: dict[str, list[str]] = json.loads((folder / "found.json").read_text())
    return lists


@pytest.fixture(scope="module")
def destroyed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What destroy.yml removes from the main host, by Ansible itself."""
    return destroys(tmp_path_factory.mktemp("destroy"), "Destroy the platform")


def test_destroy_removes_what_is_outside_the_platforms_directory(destroyed: dict[str, list[str]]) -> None:
    """Docker and its settings stay, and go on without what is the platform's."""
    docker = [
        entry["path"] for entry in load(ROOT / "roles/docker_engine/vars/main.yml")["__docker_engine_files"]
    ]
    outside = [
        entry["path"]
        for role, entry in ENTRIES
        if role != WORKER and entry["path"].startswith("/") and entry["path"] not in docker
    ]
    assert outside
    removed = destroyed["removed"]
    assert [
        path for path in outside if not any(PurePosixPath(path).is_relative_to(top) for top in removed)
    ] == []
    assert [path for path in docker if any(PurePosixPath(path).is_relative_to(top) for top in removed)] == []
    assert [path for path in removed if "{{" in path or not path.startswith("/")] == []


def test_destruction_leaves_no_unit(destroyed: dict[str, list[str]]) -> None:
    """What is left would start, at the next boot, what is gone. Docker stays, with what is its own."""
    units = {f"/{path.removesuffix('.j2')}" for path in TEMPLATES if path.startswith("etc/systemd/")}
    assert units - set(destroyed["removed"]) == {"/etc/systemd/system/docker.service.d/restart.conf"}
    whole = {PurePosixPath(unit).name for unit in units if "@" not in unit and ".d/" not in unit}
    assert set(destroyed["stopped"]) == whole


def test_destruction_leaves_nothing_of_a_worker(tmp_path: Path) -> None:
    """Beside the platform's directory: its units, its checker, and the limits of DAGs' containers."""
    found = destroys(tmp_path, "Remove the workers")
    checker = {
        entry["path"]
        for role, entry in ENTRIES
        if role == "airflow_checker" and entry["path"].startswith("/")
    }
    own = {entry["path"] for role, entry in ENTRIES if role == WORKER and entry["path"].startswith("/")}
    dags = {
        entry["path"]
        for entry in load(ROOT / "roles/docker_engine/vars/main.yml")["__docker_engine_dags_files"]
    }
    assert own | dags <= set(found["removed"])
    assert [
        path
        for path in checker
        if not any(PurePosixPath(path).is_relative_to(top) for top in found["removed"])
    ] == []
    assert set(found["stopped"]) == {
        "airflow-checker.service",
        "airflow-checker.timer",
        "airflow-worker.service",
        "airflow-worker-switch.service",
        "airflow-dags.slice",
        "airflow-firewall.service",
    }


def test_nothing_starts_again_what_destroy_has_stopped(destroyed: dict[str, list[str]]) -> None:
    """A timer or a path would; the checker or an operation would start a container that was stopped."""
    timers = [unit.endswith((".timer", ".path")) for unit in destroyed["stopped"]]
    assert timers == sorted(timers, reverse=True)
    of_the_stack = destroyed["stopped"].index("airflow.service")
    assert {"airflow-checker.service", "airflow-release.service", "airflow-backup.service"} <= set(
        destroyed["stopped"][:of_the_stack]
    )
