"""What a suite takes from another one: two files called conftest cannot import each other by name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

MOLECULE = Path(__file__).resolve().parents[2]


def take_fixtures(config: pytest.Config, scenario: str) -> ModuleType:
    """Have pytest use the fixtures and hooks of a scenario's conftest; return that module."""
    name = f"{scenario}_fixtures"
    specification = importlib.util.spec_from_file_location(
        name, MOLECULE / scenario / "tests" / "conftest.py"
    )
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    config.pluginmanager.register(module)
    return module
