"""The module that runs `airflow-release`, by the real Ansible: which ends are failures, and what it tells."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.conftest import write
from tests.policy.conftest import ansible

PROGRAM = """#!{python}
import sys
print({said!r})
print({errors!r}, file=sys.stderr)
sys.exit({code})
"""
ILL = "airflow-worker does not run"


def result(
    folder: Path, code: int, *, may_fail: bool, said: str = ILL, errors: str = "looked at 12 services"
) -> dict[str, Any]:
    """Return what a task that uses the module registers, where the command says that and ends with `code`."""
    return registered(
        folder,
        PROGRAM.format(python=sys.executable, code=code, said=said, errors=errors),
        {"arguments": ["health"], "changes": False, "may_fail": may_fail},
    )


def registered(folder: Path, text: str | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a task registers that uses the module. `text` is the command, None if there is none."""
    program = folder / "airflow-release"
    if text is not None:
        program.write_text(text)
        program.chmod(0o755)
    ask = {
        "airflow_release": arguments,
        "register": "answer",
        "ignore_errors": True,
    }
    keep = write("answer", f"'{folder}/answer.json'", folder)
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
    [
        (0, False, False),
        (0, True, False),
        (1, False, True),
        (1, True, False),
        (2, True, True),
        (3, True, True),
        (4, True, True),
    ],
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


@pytest.mark.parametrize(
    ("code", "errors", "reason"),
    [
        (3, "12:00:01 dump airflow\n12:00:02 restore it\nno space left\n\npg_dump: error", "no space left"),
        (3, "upgrade_a is 1; 2\nupgrade_b is 3; 4", "upgrade_a is 1; 2\nupgrade_b is 3; 4"),
        (2, "usage: airflow-release\n  [--wait]\nairflow-release: error: no such phase", "no such phase"),
        (
            4,
            "airflow-release wait: unexpected OSError: gone; details in crash.log",
            "unexpected OSError: gone",
        ),
        (3, "", "ended with code 3"),
    ],
)
def test_message_is_what_failed(tmp_path: Path, code: int, errors: str, reason: str) -> None:
    """Neither the progress before it nor the log after it, which is in `log`."""
    answer = result(tmp_path, code, may_fail=True, said="", errors=errors)
    assert reason in answer["msg"]
    assert len(answer["msg"].splitlines()) == len(reason.splitlines())
    assert answer["log"] == errors


@pytest.mark.parametrize("said", ["[PASS] all tests", "{cut off"])
def test_what_only_looks_like_json_is_text(tmp_path: Path, said: str) -> None:
    answer = result(tmp_path, 0, may_fail=False, said=said)
    assert answer["said"] == said
    assert "answer" not in answer


def test_log_goes_by_standard_input(tmp_path: Path) -> None:
    """More than the 128 KiB that Linux allows for an argument."""
    text = f"#!{sys.executable}\nimport json, sys\nread = sys.stdin.read().strip()\n"
    text += "print(json.dumps([len(read), sys.argv[1:]]))\n"
    log = "x" * 300_000
    answer = registered(tmp_path, text, {"arguments": ["abandon", "--reason-from-stdin"], "input": log})
    assert answer["answer"] == [len(log), ["abandon", "--reason-from-stdin"]]


def test_host_without_the_command_is_told_of(tmp_path: Path) -> None:
    """Such as one on which nobody has installed the platform."""
    answer = registered(tmp_path, None, {"arguments": ["health"]})
    assert answer["failed"]
    assert "has no airflow-release. To install the platform, run ansible-playbook site.yml" in answer["msg"]
