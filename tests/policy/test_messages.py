"""What a playbook or a command says when it ends early: what failed, on what, and what to run next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.policy.conftest import ROOT, ansible
from tests.policy.operations import said

HOST = "atd-data03"
REPOSITORY = "https://git.example.org/dags.git"
REASON = {
    "kind": "import",
    "path": "dags/one.py",
    "message": "Traceback\nModuleNotFoundError: No module named 'x'",
}


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def on_host(playbook: Path, folder: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook on a host that is this machine; a folder has its platform and its programs."""
    hosts = {HOST: {"ansible_connection": "local", "ansible_become": False, **variables}}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"airflow": {"hosts": hosts}}))
    return ansible(
        "ansible-playbook",
        f"--inventory={folder}/hosts.yml",
        f"--extra-vars=airflow_directory={folder}/srv",
        str(playbook),
        environment={
            "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
    )


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ({"outcome": "switched", "detail": "abc is live", "reasons": []}, 0, ""),
        (
            {"outcome": "refused", "detail": "abc would break", "reasons": [REASON]},
            3,
            "refused: abc would break; dags/one.py: ModuleNotFoundError: No module named 'x'. For all",
        ),
        (None, 1, 'service "webhook" is not running. For all of it'),
    ],
    ids=["live", "refused", "no answer"],
)
def test_commit_that_does_not_go_live(
    tmp_path: Path, answer: dict[str, Any] | None, code: int, says: str
) -> None:
    """Why, in the words of whoever pushed it; and what to type."""
    (tmp_path / "answer").write_text(json.dumps(answer) if answer else 'service "webhook" is not running')
    program(tmp_path / "bin/dag-sync", f"cat {tmp_path}/answer >&{1 if answer else 2}; exit {code}")
    role = {"name": "dag_delivery", "tasks_from": "sync"}
    play = {
        "name": "Sync",
        "hosts": "airflow",
        "gather_facts": False,
        "tasks": [{"name": "Sync", "ansible.builtin.include_role": role}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run = on_host(tmp_path / "play.yml", tmp_path, dag_delivery_repository=REPOSITORY)
    assert (run.returncode == 0) is (code == 0), run.stdout + run.stderr
    if code:
        assert (
            f"The newest commit of {REPOSITORY} is not live on {HOST}; what was live before stays. {says}"
            in said(run)
        )
        assert "Repair that, then run site.yml again" in said(run)


def test_status_of_a_host_without_the_platform(tmp_path: Path) -> None:
    run = on_host(ROOT / "playbooks/status.yml", tmp_path)
    assert run.returncode != 0
    assert f"The checker on {HOST} does not answer:" in said(run)
    assert f"ansible-playbook site.yml -l {HOST}" in said(run)


def test_stop_of_a_host_without_the_platform(tmp_path: Path) -> None:
    run = on_host(ROOT / "playbooks/stop.yml", tmp_path)
    assert run.returncode != 0
    assert f"{HOST} has no {tmp_path}/srv/docker-compose.yaml, so there is no platform to stop." in said(run)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project of which there are the programs in bin/ alone."""
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    return tmp_path


def run_in(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{checkout}/programs:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)


def test_failed_phase_is_the_last_line_of_bin_test(checkout: Path) -> None:
    """Below the output of all that ran beside it."""
    program(checkout / "bin/setup", "exit 0")
    program(checkout / ".venv/bin/python", "echo 1 failed; exit 1")
    done = run_in(checkout, "bin/test", "--fast")
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1]
        == "bin/test: failed in the phase: Unit tests, of which some watch a clock"
    )


def test_setup_names_what_pip_could_not_install(checkout: Path) -> None:
    """And what it needs for that."""
    for name in ("git", "mmdebstrap"):
        program(checkout / f"programs/{name}", "exit 0")
    environment = (
        "mkdir -p .venv/bin; printf '#!/bin/sh\\nexit 1\\n' >.venv/bin/python; chmod +x .venv/bin/python"
    )
    program(checkout / "programs/python3", f'case "$*" in "-m venv "*) {environment} ;; esac')
    done = run_in(checkout, "bin/setup")
    assert done.returncode == 1
    assert f"bin/setup: pip could not install uv into {checkout}/.venv." in done.stderr
    assert "Then run bin/setup again" in done.stderr
