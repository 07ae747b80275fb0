"""Ansible's connection outlives a step that says nothing for hours, and notices a host that is gone.

A rehearsal, the examination of a backup and the trial of a rotation are one call each, and take as long as
the database is large.
"""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from tests.missing import needs
from tests.policy.conftest import ROOT, ansible

IDLE_SECONDS = 60
"""The shortest time after which a common firewall or NAT forgets a connection."""
GONE_SECONDS = 300
"""For so long at most an operator waits for a host that is gone."""


@pytest.fixture(scope="module")
def effective() -> dict[str, str]:
    """What OpenSSH makes of the arguments that Ansible gives it at the root of this project."""
    dumped = ansible("ansible-config", "dump", "--type=connection", "--only-changed", "--format=json")
    assert dumped.returncode == 0, dumped.stderr
    [settings] = [plugin["ssh"] for plugin in json.loads(dumped.stdout) if "ssh" in plugin]
    [arguments] = [setting["value"] for setting in settings if setting["name"] == "ssh_args"]
    command = ["ssh", "-F", "none", "-G", *shlex.split(arguments), "host.invalid"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)


@needs("ssh")
def test_connection_is_never_silent(effective: dict[str, str]) -> None:
    interval, count = int(effective["serveraliveinterval"]), int(effective["serveralivecountmax"])
    assert 0 < interval < IDLE_SECONDS
    assert interval * count <= GONE_SECONDS


@needs("ssh")
def test_what_ansible_sets_by_default_stays(effective: dict[str, str]) -> None:
    """The line of ansible.cfg replaces it: without one connection for all tasks, each would log in again."""
    assert effective["controlmaster"] == "auto"
    assert int(effective["controlpersist"]) == 60
    assert effective["compression"] == "yes"


def test_no_inventory_replaces_these_arguments() -> None:
    files = [path for path in (ROOT / "inventories").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if "ansible_ssh_args" in path.read_text(encoding="utf-8")]
