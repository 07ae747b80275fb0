"""Lookup: what this machine lacks to run the playbooks to their end."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.lookup import LookupBase
from ansible.release import __version__ as core
from packaging.version import Version

DOCUMENTATION = r"""
name: control_node
author: The data platform team
short_description: Say what the control node lacks
description:
  - Looks at the versions of ansible-core and Python, at the collections of requirements.yml and at the
    Python packages that the plugins import.
  - Returns a sentence for each that is missing or too old.
options:
  _terms:
    description: The path of requirements.yml.
    required: true
"""

RETURN = r"""
_raw:
  description: Sentences.
  type: list
  elements: str
"""

OLDEST_CORE = "2.19"
"""Templates need its evaluation, loops `break_when` of 2.18: an older one would fail in mid-operation."""

OLDEST_PYTHON = (3, 11)
"""What ansible-core 2.19 asks for on the control node."""

PACKAGES = ("httpx_retries", "onepasswordconnectsdk", "requests")
"""What plugins/ and community.docker import here."""


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the sentences."""
        required = yaml.safe_load(Path(terms[0]).read_text(encoding="utf-8"))["collections"]
        names = [collection["name"] for collection in required]
        return list(lacking(core, sys.version_info[:2], names, found))


def found(module: str) -> bool:
    """Tell whether Python could import it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def lacking(
    core_version: str,
    python: tuple[int, ...],
    collections: list[str],
    is_there: Callable[[str], bool],
) -> Iterator[str]:
    """Yield what is missing or too old, in words."""
    if Version(core_version) < Version(OLDEST_CORE):
        yield f"ansible-core is {core_version}; {OLDEST_CORE} or newer is needed"
    if python < OLDEST_PYTHON:
        versions = [".".join(map(str, version)) for version in (python, OLDEST_PYTHON)]
        yield f"Python is {versions[0]}; {versions[1]} or newer is needed"
    for name in collections:
        if not is_there(f"ansible_collections.{name}"):
            yield f"the collection {name} is missing"
    for package in PACKAGES:
        if not is_there(package):
            yield f"the Python package {package} is missing"
