"""What git runs with in the sandbox, whoever starts it."""

from __future__ import annotations

import os


def git_environment() -> dict[str, str]:
    """Return what git gets: nobody's own configuration, and repositories that may belong to whomever."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
