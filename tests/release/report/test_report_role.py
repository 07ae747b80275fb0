"""The role's steps `begin` and `report`, run by Ansible against a host that is a folder of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_release.core.host import Host as ReleaseHost
from airflow_release.switch.journal import Journal, Operation

from tests.policy.conftest import ansible
from tests.release.report.conftest import ROOT, Host
from tests.release.report.example_dags import FILES
from tests.releases import ENDS, RELEASES, STOPS

PROGRAM = """#!{python}
import sys
sys.path.insert(0, "{root}/release/src")
from airflow_release.cli import main
sys.exit(main(["--directory={host}", *sys.argv[1:]]))
"""


def play(
    folder: Path, host: Path, step: str, *options: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Take a step of the role; `folder` gets the host's command and the fetched report."""
    program = folder / "airflow-release"
    program.write_text(PROGRAM.format(python=sys.executable, root=ROOT, host=host))
    program.chmod(0o755)
    given = {
        "step": step,
        "upgrade_image_source": "packages",
        "upgrade_directory": str(host),
        "upgrade_project": str(ROOT),
        "upgrade_releases": RELEASES,
        "upgrade_stops": STOPS,
        "upgrade_ends": ENDS,
        "upgrade_templates": str(ROOT / "templates"),
        "upgrade_report_directory": str(folder / "reports"),
        **variables,
    }
    (folder / "variables.json").write_text(json.dumps(given))
    return ansible(
        "ansible-playbook",
        "--inventory=localhost,",
        f"--extra-vars=@{folder}/variables.json",
        *options,
        "tests/release/report/report_phase.yml",
        environment={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_STDOUT_CALLBACK": "default",
        },
    )


def test_report_phase_stops_before_a_dag_breaks(make_host: Callable[..., Host], tmp_path: Path) -> None:
    """In check mode, too: the report is a part of it. What was fetched says the same as the message."""
    host = make_host("2.6.1", "2.11.2")
    for name, text in FILES.items():
        host.write(name, text)
    Journal(ReleaseHost(host.directory)).save(Operation("id", "upgrade", "2.6.1", "2.11.2"))
    run = play(
        tmp_path,
        host.directory,
        "report",
        "--check",
        upgrade_running_version="2.6.1",
        upgrade_target_version="2.11.2",
        upgrade_acknowledge=["sometimes"],
    )
    assert run.returncode == 2, run.stdout + run.stderr
    assert "1 file: ValueError: Invalid `auto_remove` value True" in run.stdout
    assert "dags/nightly_docker.py (nightly-docker)" in run.stdout
    assert '{"upgrade_acknowledge": ["sometimes", "nightly-docker"]}' in run.stdout.replace('\\"', '"')
    assert "changed=0" in run.stdout
    document = json.loads((tmp_path / "reports/report.json").read_text())
    [cause] = document["verdict"]["blocking"]
    assert [file["acknowledge"] for file in cause["files"]] == ["nightly-docker"]
    assert "fix.patch repairs 1 of 1 files." in run.stdout
    assert b"+++ b/dags/nightly_docker.py" in (tmp_path / "reports/fix.patch").read_bytes()
    page = (tmp_path / "reports/report.html").read_text()
    assert "1 DAG file in the way of the upgrade" in page
    assert "Airflow 2.11.2 has had no fixes since 2026-04-22" in page


@pytest.mark.parametrize(
    ("running", "target", "says"),
    [
        ("2.6.1", "2.5.3", "older than 2.6.1"),
        ("2.6.1", "2.6.9", "not among the releases"),
        ("2.5.3", "2.11.2", "ansible-playbook upgrade.yml -e airflow_version=2.6.1"),
        ("2.6.1", "2.8.4", "Make it: images/airflow/relock 2.8.4"),
    ],
)
def test_closed_way_is_refused_without_effect(tmp_path: Path, running: str, target: str, says: str) -> None:
    host = tmp_path / "airflow"
    host.mkdir()
    run = play(tmp_path, host, "begin", upgrade_running_version=running, upgrade_target_version=target)
    assert run.returncode == 2, run.stdout + run.stderr
    assert says in run.stdout
    assert "Nothing was changed." in run.stdout
    assert list(host.iterdir()) == []
    assert not (tmp_path / "reports").exists()
