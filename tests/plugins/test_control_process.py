"""The lookup that tells one run of Ansible from another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.lookup.control_process import describe, state

ROOT = Path(__file__).resolve().parents[2]
FORKS_AND_ASKS = """
import os, sys
from plugins.lookup.control_process import playbook
if os.fork():
    os.wait()
else:
    print(os.getppid(), playbook())
"""


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


@pytest.mark.parametrize("zone", ["UTC", "America/Chicago", "Asia/Kathmandu"])
def test_running_process_is_alive_whatever_the_time_zone_of_who_asks(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """Two operators share a machine: the second would take over what the first is at."""
    monkeypatch.setenv("TZ", "Europe/Vienna")
    described = describe(os.getpid())
    monkeypatch.setenv("TZ", zone)
    assert state(described) == "alive"


def test_running_process_is_alive_once_the_clock_was_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ps counts from the boot, whose time the kernel then gives as another one."""
    (tmp_path / "ps").write_text("#!/bin/sh\ndate +%N\n")
    (tmp_path / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    described = describe(os.getpid())
    assert state(described) == "alive"


def test_nobody_was_noted() -> None:
    assert state({}) == "gone"


@pytest.mark.parametrize("started_by", ["bin/test", "ansible-runner", "/srv/ansible-airflow/bin/molecule"])
def test_a_worker_speaks_for_its_own_playbook_whoever_started_that(started_by: str) -> None:
    """What started it outlives a playbook that was killed, which would look alive for ever."""
    command = [sys.executable, "-c", FORKS_AND_ASKS, "ansible-playbook", "upgrade.yml"]
    through = f"subprocess.run({command!r}, check=True)"
    asked = subprocess.run(
        [sys.executable, "-c", f"import subprocess; {through}", started_by],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    parent, found = asked.stdout.split()
    assert found == parent
