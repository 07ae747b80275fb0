"""`status.yml`: its exit code is the checker's verdict, and what it shows is the checker's one screen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ROOT
from tests.policy.operations import Hosts, said
from tests.webhook.health_document import SERVICES, document, finding

CHECKER = """#!{python}
import sys
sys.path.insert(0, "{root}/checker/src")
from airflow_checker.cli import main
sys.exit(main(["--settings", "{settings}", *sys.argv[1:]]))
"""
"""The host's own command, as its wrapper starts it."""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """A host with the real checker, whose last look found that all is well."""
    made = Hosts(tmp_path, "one")
    made.inventory(one={"ansible_become": False, "airflow_version": "2.11.2"})
    settings = tmp_path / "settings.json"
    values: dict[str, Any] = {
        "directory": str(made.home("one")),
        "backups": str(tmp_path),
        "environment": "production",
    }
    values |= {"host": "one", "status_page": "", "backup_remote": False, "never_restart": []}
    settings.write_text(json.dumps(values))
    made.program("airflow-checker", CHECKER.format(python=sys.executable, root=ROOT, settings=settings))
    found(made)
    return made


def found(hosts: Hosts, **changes: object) -> None:
    """Let this be what the host's checker found last."""
    (hosts.home("one") / "status/health.json").write_text(json.dumps(document(**changes)))  # type: ignore[arg-type]


def test_exit_code_is_0_when_all_is_well(hosts: Hosts) -> None:
    run = hosts.playbook("status.yml")
    assert run.returncode == 0, said(run)
    assert "changed=0" in said(run)


@pytest.mark.parametrize("overall", ["warning", "critical"])
def test_exit_code_is_2_when_something_needs_a_look(hosts: Hosts, overall: str) -> None:
    """The screen is shown all the same, with what to do; the last words name the host."""
    light = finding("disk-low", "/", "The disk of / has 7% free.")
    found(hosts, overall=overall, findings=[light])
    run = hosts.playbook("status.yml")
    assert run.returncode == 2, said(run)
    for words in ("The disk of / has 7% free.", "Free some space", "light-disk-low"):
        assert words in said(run)
    assert "one needs a look: " in said(run)


@pytest.mark.parametrize("changes", [{"state": "stopped"}, {"age": 600}])
def test_exit_code_is_2_when_nothing_runs_or_nobody_looks(hosts: Hosts, changes: dict[str, object]) -> None:
    """Nothing is wrong then, and no task runs, or nobody knows whether one does."""
    found(hosts, **changes)
    run = hosts.playbook("status.yml")
    assert run.returncode == 2, said(run)
    assert "one needs a look: " in said(run)


def test_exit_code_is_2_when_the_inventory_asks_for_another_version(hosts: Hosts) -> None:
    found(hosts, airflow_version="2.6.1")
    run = hosts.playbook("status.yml")
    assert run.returncode == 2, said(run)
    assert "one runs Airflow 2.6.1, and the inventory asks for 2.11.2" in said(run)


def test_host_without_a_checker_is_not_well(hosts: Hosts) -> None:
    """2 is also what a shell says of a program that does not start."""
    hosts.program("airflow-checker", "#!/bin/sh\nexit 2\n")
    run = hosts.playbook("status.yml")
    assert run.returncode == 2, said(run)
    assert "The checker on one does not answer" in said(run)


def test_it_is_one_screen(hosts: Hosts) -> None:
    """All services on it take 50 lines at most; the command on the host prints the same."""
    run = hosts.playbook("status.yml")
    text = run.stdout.partition("Show what it found")[2].partition("=> ")[2]
    shown, _ = json.JSONDecoder().raw_decode(text)
    screen = shown["msg"]
    assert 15 < len(screen) <= 50
    assert screen[0] == "ok: the platform is running"
    for service in SERVICES:
        assert len([line for line in screen if line.startswith(f"{service} ")]) == 1
