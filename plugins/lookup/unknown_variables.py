"""Lookup: variables that nothing reads, and the names that were meant. A typing error must not go unseen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars

DOCUMENTATION = r"""
name: unknown_variables
author: The data platform team
short_description: Find mistyped variables
description:
  - Takes the names of a host's variables and returns a sentence for each that nothing reads.
  - A name that begins with a role's name has to be an option of that role (its C(meta/argument_specs.yml)),
    or one of C(facts).
  - A name after C(-e) that is nearly one of the operator's, such as C(airflow_versoin), is mistyped, too.
    Any other name is the inventory's own business.
options:
  _terms:
    description: The names.
    required: true
  project:
    description: The project's directory, whose roles and playbooks tell which names there are.
    type: path
    required: true
  facts:
    description: Names that plays set themselves.
    type: list
    elements: str
    default: []
"""

RETURN = r"""
_raw:
  description: Sentences for the person who typed it.
  type: list
  elements: str
"""

OF_PLAYBOOKS = ("backup", "confirm_host", "reason", "release", "remove_worker", "rotate")
"""What single playbooks take after -e."""

NEARLY = 0.8
"""How alike two names without a role's prefix have to be (difflib.SequenceMatcher.ratio); 1 is equality."""


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the sentences."""
        project = Path(kwargs["project"])
        typed = load_extra_vars(self._loader)
        names = {*map(str, terms), *typed}
        return list(unknown(names, typed, options(project), kwargs.get("facts", []), operators(project)))


def options(project: Path) -> dict[str, set[str]]:
    """Return the public names of each role."""
    found: dict[str, set[str]] = {}
    for spec in sorted(project.glob("roles/*/meta/argument_specs.yml")):
        entries = yaml.safe_load(spec.read_text(encoding="utf-8"))["argument_specs"].values()
        found[spec.parents[1].name] = {name for entry in entries for name in entry.get("options", {})}
    return found


def operators(project: Path) -> set[str]:
    """Return the names without a role's prefix that an operator may set."""
    defaults = project / "playbooks/group_vars/all/defaults.yml"
    return {*yaml.safe_load(defaults.read_text(encoding="utf-8")), *OF_PLAYBOOKS}


def unknown(
    names: Iterable[str],
    typed: Iterable[str],
    roles: dict[str, set[str]],
    facts: Iterable[str],
    others: set[str],
) -> Iterator[str]:
    """Yield a sentence for each name that nothing reads.

    Args:
        names: all names of the host's variables.
        typed: those after -e.
        roles: the public names by role.
        facts: what plays set themselves.
        others: the operator's names without a role's prefix.
    """
    known = {name for options in roles.values() for name in options} | set(facts) | others
    typed = set(typed)
    for name in sorted(set(names) - known):
        # A role may begin with another's name.
        owners = [role for role in roles if name.startswith(f"{role}_")]
        if owners:
            [meant] = difflib.get_close_matches(name, roles[max(owners, key=len)], n=1, cutoff=0) or [""]
            yield f"{name} is no variable of this project{f'; {meant} is' if meant else ''}"
        elif name in typed and (near := difflib.get_close_matches(name, known, n=1, cutoff=NEARLY)):
            yield f"{name} is no variable of this project; {near[0]} is"
