"""The module that runs `airflow-release`, by the real Ansible: which ends are failures, and what it tells."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ansible

PROGRAM = """#!{python}
import sys
print("airflow-worker does not run")
print("looked at 12 services", file=sys.stderr)
sys.exit({code})
"""


def result(folder: Path, code: int, *, may_fail: bool) -> dict[str, Any]:
    """Return what a task that uses the module registers, where the command ends with `code`."""
    program = folder / "airflow-release"
    program.write_text(PROGRAM.format(python=sys.executable, code=code))
    program.chmod(0o755)
    ask = {
        "airflow_release": {"arguments": ["health"], "changes": False, "may_fail": may_fail},
        "register": "answer",
        "ignore_errors": True,
    }
    keep = {
        "copy": {"content": "{{ answer | to_json }}", "dest": str(folder / "answer.json"), "mode": "0600"}
    }
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [ask, keep]}]
    (folder / "play.yml").write_text(json.dumps(play))
    run = ansible(
        "ansible-playbook",
        "--inventory=localhost,",
        str(folder / "play.yml"),
        environment={"PATH": f"{folder}:{os.environ['PATH']}", "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


@pytest.mark.parametrize(
    ("code", "may_fail", "failed"),
    [(0, False, False), (0, True, False), (1, False, True), (1, True, False), (2, True, True)],
)
def test_negative_answer_is_a_failure_unless_it_may_be(
    tmp_path: Path, code: int, may_fail: bool, failed: bool
) -> None:
    answer = result(tmp_path, code, may_fail=may_fail)
    assert answer["failed"] is failed
    assert answer["exit_code"] == code
    assert answer["said"] == "airflow-worker does not run"
    if failed:
        assert "looked at 12 services" in answer["msg"]
        assert "airflow-worker does not run" in answer["log"]
