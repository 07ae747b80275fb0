"""Roles: documented, private where they should be, and knowing nothing of each other."""

from __future__ import annotations

import re

import pytest

from tests.policy.conftest import ROLES, ROOT, load

every_role = pytest.mark.parametrize("role", ROLES)

OPERATOR = set(load(ROOT / "playbooks/group_vars/all/defaults.yml"))
"""What an operator sets; only wiring.yml hands it on."""

HANDED_ON = {"secrets": {"secrets"}}
"""Facts without the role's prefix, which a role sets for the others."""

IDENTIFIER = re.compile(r"\b_{0,2}[a-z][a-z0-9_]*\b")
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
BARE_EXPRESSIONS = re.compile(
    r"^\s*(?:-\s+)?(?:when|until|that|failed_when|changed_when):(.*)$", re.MULTILINE
)
TEXT = re.compile(r"'[^']*'|\"[^\"]*\"")


def role_text(role: str) -> str:
    """Return all YAML that a role runs: tasks, handlers, variables."""
    folders = ("tasks", "handlers", "vars", "defaults")
    files = sorted(path for folder in folders for path in (ROOT / "roles" / role / folder).glob("*.yml"))
    lines = "\n".join(path.read_text(encoding="utf-8") for path in files).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def names_in_expressions(text: str) -> set[str]:
    """Return the names that Jinja expressions in the text mention, without what is quoted in them."""
    expressions = [found[2:-2] for found in EXPRESSION.findall(text)] + BARE_EXPRESSIONS.findall(text)
    # Names of host variables may be quoted, as in hostvars['…']; prose within quotes has blanks in it.
    return {name for expression in expressions for name in IDENTIFIER.findall(TEXT.sub(" ", expression))}


def of_other_roles(role: str, names: set[str]) -> set[str]:
    """Return the names that begin with another role's name, public or private."""
    own = tuple(f"{prefix}{role}" for prefix in ("", "__"))
    others = tuple(f"{prefix}{other}_" for other in ROLES if other != role for prefix in ("", "__"))
    return {name for name in names if name.startswith(others) and not name.startswith(own)}


@every_role
def test_result_has_a_name_of_its_own(role: str) -> None:
    """A result that is registered under the name of a variable would stand in for it from then on."""
    variables = {
        name
        for folder in ("vars", "defaults")
        for path in (ROOT / "roles" / role / folder).glob("*.yml")
        for name in load(path) or {}
    }
    registered = set(re.findall(r"^ *register: *(\w+)$", role_text(role), re.MULTILINE))
    assert registered & variables == set()


@every_role
def test_argument_spec_and_defaults_say_the_same(role: str) -> None:
    """Every option is either required or has a default, and the two files that say so agree."""
    options = load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(ROOT / f"roles/{role}/defaults/main.yml") or {}
    required = {name for name, option in options.items() if option.get("required")}
    assert set(defaults) == set(options) - required
    documented = {name: option["default"] for name, option in options.items() if "default" in option}
    assert documented == {name: defaults[name] for name in documented}


@every_role
def test_every_option_is_described(role: str) -> None:
    """With a type that Ansible checks and a sentence that a person understands."""
    spec = load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]
    assert spec["short_description"]
    assert spec["description"]
    assert [
        name for name, option in spec["options"].items() if not (option.get("type") and option["description"])
    ] == []


@every_role
def test_options_that_carry_secrets_are_not_logged(role: str) -> None:
    """A failing check of arguments prints them."""
    options = load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    carriers = {
        name for name in options if re.search(r"_(secrets|certificate|onepassword|token|password)$", name)
    }
    assert {name for name in carriers if not options[name].get("no_log")} == set()


@every_role
def test_public_variables_have_the_roles_name(role: str) -> None:
    """Two roles must not both mean `directory`."""
    defaults = load(ROOT / f"roles/{role}/defaults/main.yml") or {}
    assert [name for name in defaults if not name.startswith(f"{role}_")] == []


@every_role
def test_private_variables_say_so(role: str) -> None:
    """What begins with two underscores may change without notice."""
    path = ROOT / f"roles/{role}/vars/main.yml"
    assert [name for name in (load(path) if path.exists() else {}) if not name.startswith(f"__{role}_")] == []


@every_role
def test_role_reads_no_other_roles_variables(role: str) -> None:
    """`wiring.yml` is the only place where roles meet."""
    assert of_other_roles(role, names_in_expressions(role_text(role)) - HANDED_ON.get(role, set())) == set()


@every_role
def test_role_reads_nothing_of_the_operators(role: str) -> None:
    """The inventory's variables come through the wiring, under the role's own names."""
    assert names_in_expressions(role_text(role)) & OPERATOR == set()


@every_role
def test_role_depends_on_no_other_role(role: str) -> None:
    """The order of roles is written in the playbook, where one can read it."""
    assert load(ROOT / f"roles/{role}/meta/main.yml")["dependencies"] == []


def test_wiring_gives_every_required_option() -> None:
    """A role with an option that nobody sets fails on the host; this fails here."""
    wiring = set(load(ROOT / "playbooks/group_vars/all/wiring.yml"))
    required = {
        name
        for role in ROLES
        for name, option in load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"][
            "options"
        ].items()
        if option.get("required")
    }
    assert required - wiring == set()


def test_wiring_sets_only_what_roles_take() -> None:
    """A variable that no role reads was renamed there and forgotten here."""
    options = {
        name
        for role in ROLES
        for name in load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    }
    set_here = set(load(ROOT / "playbooks/group_vars/all/wiring.yml"))
    assert {name for name in set_here - options if not name.startswith("project_")} == set()
