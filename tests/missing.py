"""What a test needs and this machine lacks: a developer's machine skips the test, and CI fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test that runs, and say why; in CI it fails, because nobody reads what CI skipped."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Return a mark for tests that start these programs; in CI they run, and fail for want of them.

    What needs root is skipped without it, there too: CI may have none.
    """
    lacking = [name for name in programs if not shutil.which(name) and not Path("/usr/sbin", name).exists()]
    if root and os.geteuid() != 0:
        return pytest.mark.skipif(True, reason="this needs root")
    return pytest.mark.skipif(
        bool(lacking) and not os.environ.get("CI"),
        reason=f"no {', '.join(lacking)} on this machine: run bin/setup --tests",
    )
