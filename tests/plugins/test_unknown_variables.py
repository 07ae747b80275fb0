"""The lookup for mistyped variables: every name of this project passes, and what is nearly one does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from plugins.lookup.unknown_variables import operators, options, unknown

ROOT = Path(__file__).resolve().parents[2]
FACTS = yaml.safe_load((ROOT / "roles/preflight/vars/main.yml").read_text(encoding="utf-8"))[
    "__preflight_facts"
]


def sentences(names: set[str], typed: set[str]) -> list[str]:
    return list(unknown(names | typed, typed, options(ROOT), FACTS, operators(ROOT)))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("upgrade_start_timout", "upgrade_start_timeout"),
        ("upgrade_takeover", "upgrade_take_over"),
        ("airflow_release_keep_day", "airflow_release_keep_days"),
        ("stack_pyton_index", "stack_python_index"),
    ],
)
def test_name_of_a_role_has_to_be_its_option(name: str, meant: str) -> None:
    """In the inventory as after -e: otherwise the default would hold, and nobody would know."""
    assert sentences({name}, set()) == [f"{name} is no variable of this project; {meant} is"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("relase", "release"),
        ("backups", "backup"),
        ("rotates", "rotate"),
        ("confirm_hosts", "confirm_host"),
        ("airflow_versoin", "airflow_version"),
        ("upgade_start_timeout", "upgrade_start_timeout"),
    ],
)
def test_what_is_typed_may_not_be_nearly_a_name(name: str, meant: str) -> None:
    assert sentences(set(), {name}) == [f"{name} is no variable of this project; {meant} is"]


@pytest.mark.parametrize("name", ["hostname", "my_certificate", "ansible_user", "backups"])
def test_other_names_of_an_inventory_are_its_own_business(name: str) -> None:
    assert sentences({name}, set()) == []


FILES = [
    *ROOT.glob("inventories/*/group_vars/airflow/*.yml"),
    *ROOT.glob("playbooks/group_vars/all/*.yml"),
    *ROOT.glob("molecule/*/vars/*.yml"),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_this_project_pass(path: Path) -> None:
    names = set(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    assert sentences(names, names) == []
