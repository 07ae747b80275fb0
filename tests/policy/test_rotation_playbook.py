"""`rotate.yml`: what it may name, in which order it goes, and that those who look at the values find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow_release.core.host import read_environment

from tests.policy.conftest import CASES, ROOT, Rendered, Task, ansible, flat, load, module

PREFLIGHT = load(ROOT / "roles/preflight/vars/main.yml")
VARIABLES: dict[str, str] = PREFLIGHT["__preflight_secrets"]
PLAY, _ = load(ROOT / "playbooks/rotate.yml")


def included(task: Task) -> str:
    """Return what a task includes, as `role`, `role/file` or a path; "" when it includes nothing."""
    name, arguments = module(task)
    if name == "ansible.builtin.include_role":
        return "/".join(filter(None, (arguments["name"], arguments.get("tasks_from"))))
    return arguments if name == "ansible.builtin.include_tasks" else ""


def test_rotates_what_preflight_looks_at_and_the_vault_can_generate() -> None:
    items = load(ROOT / "roles/secrets/defaults/main.yml")["secrets_items"]
    generated = {item["name"] for item in items if "generate" in item}
    assert PLAY["vars"]["__rotate_known"] == list(VARIABLES)
    assert set(VARIABLES) <= generated


@pytest.mark.parametrize("case", CASES)
def test_host_has_the_values_where_they_are_looked_for(
    rendered: dict[str, Rendered], secrets: dict[str, str], case: str
) -> None:
    """Under these names in these files, as the switch reads them, too."""
    found: dict[str, str] = {}
    for name in PREFLIGHT["__preflight_env_files"]:
        found |= read_environment(rendered[case][f"srv/airflow/{name}"])
    assert {name: found[variable] for name, variable in VARIABLES.items()} == {
        name: secrets[name] for name in VARIABLES
    }
    assert "AIRFLOW_VERSION" in found


def test_vault_changes_only_for_a_host_that_can_follow() -> None:
    """And with the values that the host has when nothing changes them any more."""
    steps = [step for step in map(included, flat(PLAY["tasks"])) if step]
    assert steps == [
        *("tasks/guard.yml", "preflight", "airflow_release", "upgrade/assess"),
        *("preflight/live", "secrets", "worker_certificates", "tasks/operate.yml"),
    ]


def test_check_mode_leaves_the_host_alone() -> None:
    """What is not made for a check does not run in one."""

    def guarded(task: Task) -> bool:
        return "not ansible_check_mode" in str(task.get("when", ""))

    free = [task for task in PLAY["tasks"] if not guarded(task)]
    # The guard only asks.
    asking = {"tasks/guard.yml", "preflight", "preflight/live", "secrets", "worker_certificates"}
    assert {step for step in map(included, flat(free)) if step} == asking


@pytest.mark.parametrize("names", ["nonsense", "fernet_key,deploy_key", "flower_password"])
def test_unknown_name_is_refused_before_anything(tmp_path: Path, names: str) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("airflow:\n  hosts:\n    nowhere: {ansible_host: host.invalid}\n")
    run = ansible(
        "ansible-playbook", f"--inventory={inventory}", "rotate.yml", "--extra-vars", f"rotate={names}"
    )
    assert run.returncode != 0
    assert f"These cannot be rotated: {names.split(',')[-1]}." in " ".join(run.stdout.split())
    assert "UNREACHABLE" not in run.stdout


@pytest.mark.parametrize("playbook", ["site", "upgrade"])
def test_others_do_not_rotate_by_accident(playbook: str) -> None:
    """Their plays leave it at the role's default, which refuses values that differ."""
    defaults: dict[str, Any] = load(ROOT / "roles/secrets/defaults/main.yml")
    assert defaults["secrets_change_allowed"] is False
    assert defaults["secrets_renew"] == []
    plays = load(ROOT / f"playbooks/{playbook}.yml")
    assert not [play for play in plays if "secrets_change_allowed" in play.get("vars", {})]
    main_host = [play for play in plays if "roles" in play]
    assert main_host
    for play in main_host:
        # Before any role of the tasks, too.
        roles = [*play["roles"], "of the tasks"]
        assert (
            roles.index("preflight")
            < roles.index("secrets")
            < roles.index(next(role for role in roles if role in ("airflow_release", "of the tasks")))
        )
