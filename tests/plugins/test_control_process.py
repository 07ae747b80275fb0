"""The lookup that tells one run of Ansible from another."""

from __future__ import annotations

import os
import subprocess

import pytest

from plugins.lookup.control_process import describe, state


def test_running_process_is_alive_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        described = describe(process.pid)
        assert state(described) == "alive"
        process.kill()
    assert state(described) == "gone"


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"host": "elsewhere"}, "elsewhere"), ({"started": "Thu Jan  1 00:00:00 1970"}, "gone"), ({}, "alive")],
    ids=["another machine's", "a later process of that number", "this one"],
)
def test_what_became_of_it(change: dict[str, str], expected: str) -> None:
    assert state({**describe(os.getpid()), **change}) == expected


def test_nobody_was_noted() -> None:
    assert state({}) == "gone"
