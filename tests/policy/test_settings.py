"""Every setting that an operator may change: in defaults.yml, explained there, and used."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from jinja2 import Environment
from jinja2.nodes import Name

from tests import endpoints
from tests.policy.conftest import PLAYBOOKS, ROLES, ROOT, load
from tests.releases import RELEASES, TABLE

FILE = ROOT / "playbooks/group_vars/all/defaults.yml"
SETTINGS: dict[str, Any] = load(FILE)
WIRING: dict[str, Any] = load(ROOT / "playbooks/group_vars/all/wiring.yml")
LIMITS: dict[str, dict[str, Any]] = WIRING["preflight_limits"]

ANSIBLES = {
    "lookup",
    "query",
    "omit",
    "inventory_hostname",
    "playbook_dir",
    "hostvars",
    "groups",
    "ansible_facts",
    "ansible_check_mode",
    "dict",
}
"""What expressions have besides variables of this project."""


def comment(name: str) -> str:
    """Return the lines right above a setting."""
    text = FILE.read_text(encoding="utf-8")
    found = re.search(rf"((?:^#.*\n)+){name}:", text, flags=re.MULTILINE)
    assert found, f"{name} has no comment"
    return found[1]


def example(name: str) -> Any:
    """Return the value that the comment's last line gives for an example."""
    found = re.search(r"^# Example: (.+)\n\Z", comment(name), flags=re.MULTILINE)
    assert found, f"the comment of {name} ends without an example"
    return yaml.safe_load(found[1])


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_explained(name: str) -> None:
    """A purpose and a form above it, and an example that is none of the default."""
    purpose = comment(name).partition("# Example:")[0]
    assert re.search(r"# [A-Z][^\n]+", purpose), purpose
    assert example(name) != SETTINGS[name], (
        f"the example of {name} is its default: give another value, so that the reader learns the form"
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_example_has_the_form_of_the_setting(name: str) -> None:
    given = example(name)
    if name in LIMITS:
        assert isinstance(given, int)
        assert LIMITS[name]["least"] <= given <= LIMITS[name]["most"]
    elif name == "airflow_version":
        assert given in RELEASES
    else:
        assert isinstance(given, type(SETTINGS[name]))


@pytest.mark.parametrize("name", LIMITS)
def test_comment_names_the_least_value(name: str) -> None:
    """Preflight refuses less. Where the least is worth a word, the comment has it."""
    least = LIMITS[name]["least"]
    assert re.search(rf"\b(?:at least|from|or|,) {least}\b", comment(name).replace("\n# ", " ")), comment(
        name
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_used(name: str) -> None:
    """Handed on to a role, or read by a playbook."""
    texts = [str(WIRING), *((ROOT / file).read_text(encoding="utf-8") for file in PLAYBOOKS)]
    assert any(re.search(rf"\b{name}\b", text) for text in texts)


def test_no_setting_is_left_out() -> None:
    """What wiring.yml hands on is of a role, of the project, or stands in defaults.yml."""
    text = (ROOT / "playbooks/group_vars/all/wiring.yml").read_text(encoding="utf-8")
    handed_on = {found.name for found in Environment().parse(text).find_all(Name)}
    others = {name for name in handed_on if not name.startswith(tuple(f"{role}_" for role in ROLES))}
    assert others - {*WIRING, *TABLE, *endpoints.TABLE, *ANSIBLES, "secrets"} <= set(SETTINGS)


def _defaults_of_roles() -> list[tuple[str, Any, str]]:
    """Return option, its default in the role, and the setting that wiring.yml gives it as it is."""
    defaults: dict[str, Any] = {}
    for role in ROLES:
        defaults |= load(ROOT / "roles" / role / "defaults/main.yml") or {}
    handed_on = [
        (option, found[1])
        for option, value in WIRING.items()
        if (found := re.fullmatch(r"{{ (\w+) }}", str(value)))
    ]
    return [
        (option, defaults[option], setting)
        for option, setting in handed_on
        if setting in SETTINGS and option in defaults
    ]


@pytest.mark.parametrize(("option", "default", "setting"), _defaults_of_roles())
def test_role_has_the_default_of_the_setting(option: str, default: Any, setting: str) -> None:
    """What a role does alone is what it does here. An empty default is none."""
    assert not default or default == SETTINGS[setting], f"{option} and {setting} differ"


def test_defaults_of_roles_were_found() -> None:
    found = {option for option, default, _ in _defaults_of_roles() if default}
    assert {"airflow_release_history_days", "dag_delivery_keep_days", "stack_dag_cpus"} <= found
