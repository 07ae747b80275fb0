"""The packages in .venv are compiled: else each start of Ansible in these tests would do it, for seconds."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.skipif(not sys.dont_write_bytecode, reason="Python keeps the bytecode of what it imports")
def test_packages_are_compiled() -> None:
    spec = find_spec("ansible.cli")
    assert spec is not None
    assert spec.cached is not None
    assert Path(spec.cached).is_file(), "run bin/setup"
