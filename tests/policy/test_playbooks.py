"""The commands that operators type: they parse, and the sandbox is nowhere in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.conftest import PLAYBOOKS, ROOT, ansible, load

SHIPPED = [
    path
    for folder in (
        "playbooks",
        "roles",
        "templates",
        "plugins",
        "inventories/production",
        "inventories/example",
    )
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]


def test_documented_command_parses_with_the_production_inventory() -> None:
    """`ansible-playbook site.yml -l atd-data03 --syntax-check`, from the root."""
    run = ansible("ansible-playbook", "site.yml", "-l", "atd-data03", "--syntax-check")
    assert run.returncode == 0, run.stderr
    assert "ERROR" not in run.stderr
    assert "WARNING" not in run.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.parametrize("inventory", ["example"])
def test_every_verb_parses(playbook: str, inventory: str) -> None:
    """With an inventory that somebody copied from the example."""
    run = ansible("ansible-playbook", f"--inventory=inventories/{inventory}", playbook, "--syntax-check")
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr


def test_production_is_the_default_and_pins_what_runs() -> None:
    """Whoever types the documented command reaches atd-data03, and never upgrades it by accident."""
    run = ansible("ansible-inventory", "--host", "atd-data03")
    assert run.returncode == 0, run.stderr
    values = load(ROOT / "inventories/production/group_vars/airflow/main.yml")
    assert values["environment_name"] == "production"
    assert values["airflow_version"] == "2.5.3"
    assert '"airflow_version": "2.5.3"' in run.stdout


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_shipped_knows_of_the_tests(path: Path) -> None:
    """One code path: what only a test takes would prove nothing about production."""
    lines = path.read_text(encoding="utf-8", errors="replace").lower().splitlines()  # a comment may name one
    text = "\n".join(line for line in lines if not line.startswith("#"))
    assert [word for word in ("sandbox", "molecule", "testinfra") if word in text] == []


def test_verbs_that_change_a_host_become_root() -> None:
    """Each play says it itself, whatever the inventory says."""
    entries = [entry for playbook in PLAYBOOKS for entry in load(ROOT / playbook)]
    plays = [entry for entry in entries if "import_playbook" not in entry]
    assert [play["name"] for play in plays if play.get("become") is not True] == []


def test_destruction_asks_for_the_hosts_name() -> None:
    """The one command without a way back must not be answered by habit."""
    play, *_ = load(ROOT / "playbooks/destroy.yml")
    [prompt] = play["vars_prompt"]
    first = play["tasks"][0]["ansible.builtin.assert"]
    assert first["that"] == f"{prompt['name']} == inventory_hostname"
    assert "default" not in prompt
