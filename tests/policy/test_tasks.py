"""Every task of every role and playbook: what it may not do, and what it has to say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ROOT, TASK_IDS, TASKS, Task, flat, load, module
from tests.policy.test_roles import EXPRESSION

every_task = pytest.mark.parametrize(("file", "task"), TASKS, ids=TASK_IDS)

SECRET = re.compile(
    r"\b(stack_secrets|smoke_secrets|stack_onepassword|haproxy_certificate|secrets_connect_token|sandbox_token|"
    r"sandbox_task_token|secrets_task_token|stack_task_onepassword|"
    r"dag_delivery_secrets|dag_delivery_onepassword|__dag_delivery_deploy_key|"
    r"backup_remote_config|airflow_release_remote_config|airflow_checker_secrets|secrets_live|"
    r"worker_certificate|worker_certificates_pem|worker_database_password|__worker_main_files\['env|__worker_main_secrets|"
    r"__secrets_to_keep|__secrets_kept|preflight_live_secrets|smee_relay_token|smee_relay_channel|"
    r"monitoring_secrets)\b"
)
"""What carries a secret. A task names a table of files as a whole: test_tables_of_files.py looks into it."""
MASKED = {"url_username", "url_password"}
"""Options of uri, http_endpoints and airflow_dag_run that the modules themselves keep out of every log."""


def unmasked(value: Any) -> Any:
    """Return the value without MASKED options, at any depth."""
    if isinstance(value, dict):
        return {name: unmasked(child) for name, child in value.items() if name not in MASKED}
    return [unmasked(child) for child in value] if isinstance(value, list) else value


def modes(value: Any) -> list[Any]:
    """Return every value that is called `mode`, at any depth."""
    if isinstance(value, dict):
        own = [value["mode"]] if "mode" in value else []
        return own + [mode for child in value.values() for mode in modes(child)]
    return [mode for child in value for mode in modes(child)] if isinstance(value, list) else []


@every_task
def test_failure_is_never_ignored(file: str, task: Task) -> None:
    """A task that may fail says when with `failed_when`, by what the failure looks like."""
    assert "ignore_errors" not in task
    # A question may go unanswered, when what follows looks at the answer; a change may not go undone.
    asks = task.get("changed_when") is False and "register" in task
    assert not task.get("ignore_unreachable") or asks
    assert task.get("failed_when") is not False or asks


@every_task
def test_modes_are_quoted(file: str, task: Task) -> None:
    """YAML reads 0644 without quotes as the number 420, and Ansible takes that for a mode."""
    assert [mode for mode in modes(task) if not isinstance(mode, str)] == []


@every_task
def test_secret_is_not_logged(file: str, task: Task) -> None:
    """Ansible prints the arguments of a task that fails, and the host's journal keeps them anyway."""
    _, arguments = module(task)
    text = json.dumps([unmasked(arguments), task.get("loop", ""), task.get("environment", "")])
    carried = [found for expression in EXPRESSION.findall(text) for found in SECRET.findall(expression)]
    assert not carried or task.get("no_log") is True, f"{carried} would be printed"


@every_task
def test_no_log_is_only_on_what_carries_a_secret(file: str, task: Task) -> None:
    """Silence costs whoever has to find out what went wrong."""
    if task.get("no_log"):
        text = json.dumps(task)
        assert re.search(
            r"secret|credential|password|token|cookie|certificate|fingerprint|0600",
            text,
        )


COMMANDS = [
    (file, task)
    for file, task in TASKS
    if module(task)[0] in ("ansible.builtin.command", "ansible.builtin.shell")
]


@pytest.mark.parametrize(
    ("file", "task"), COMMANDS, ids=[f"{file}: {task['name']}" for file, task in COMMANDS]
)
def test_command_says_why_no_module_does_it(file: str, task: Task) -> None:
    """In a comment of its own, or in the one above its name."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    start = next(
        index
        for index, line in enumerate(lines)
        if re.sub(r"^\s*- name: ", "", line).strip("\"'") == task["name"]
    )
    end = next(
        (index for index in range(start + 1, len(lines)) if re.match(r"\s*- name: ", lines[index])),
        len(lines),
    )
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    assert any(line.lstrip().startswith("#") for line in lines[start:end])


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("roles/*/tasks/*.yml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_task_names_carry_their_file(path: Path) -> None:
    """Ansible's output then says where to look."""
    names = [task["name"] for task in flat(load(path))]
    prefix = "" if path.stem == "main" else f"{path.stem} | "
    assert [name for name in names if not name.startswith(prefix)] == []
    assert [name for name in names if path.stem == "main" and " | " in name] == []


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("roles/*/tasks/*.yml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_file_of_tasks_is_used(path: Path) -> None:
    """A file that no other file and no playbook includes is never run."""
    role = "".join(other.read_text(encoding="utf-8") for other in path.parent.glob("*.yml") if other != path)
    chosen = rf"(?:{path.stem}|\"{{{{ .*'{path.stem}'.* }}}}\")"
    entry = rf"name: {path.parents[1].name}\n +tasks_from: {chosen}\n"
    playbooks = "".join(play.read_text(encoding="utf-8") for play in ROOT.glob("playbooks/**/*.yml"))
    assert (
        path.stem == "main"
        or re.search(rf"(?:include|import)_tasks: {path.name}\n", role)
        or re.search(entry, playbooks)
    )


APT = sorted(
    path
    for path in ROOT.glob("roles/*/tasks/*.yml")
    if "ansible.builtin.apt:" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", APT, ids=lambda path: str(path.relative_to(ROOT)))
def test_package_lists_are_read_before_a_package_is_wanted(path: Path) -> None:
    """A new host has none, and then apt knows no package, in a check either."""
    tasks = [task for task in flat(load(path)) if "ansible.builtin.apt" in task]
    first = tasks[0]
    assert first["ansible.builtin.apt"].get("update_cache") is True
    assert "name" not in first["ansible.builtin.apt"]
    assert first["check_mode"] is False
    assert first["changed_when"] is False


def test_sudo_may_ask_for_a_password() -> None:
    """rsync starts sudo itself and cannot answer it."""
    assert not {file for file, task in TASKS if module(task)[0] == "ansible.posix.synchronize"}
