"""`dag-sync` on the host: what it prints, and exit codes that a timer and a person can act on."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.webhook.doubles import GateDouble, Remote

Start = Callable[..., subprocess.Popen[str]]
PROBLEM = {"kind": "import", "path": "dags/two.py", "message": "No module named 'nope'"}


def run(start: Start, *arguments: str, **more: str) -> tuple[int, str]:
    process = start("webhook.cli", *arguments, **more)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_a_day_on_the_command_line(start: Start, remote: Remote, gate: GateDouble) -> None:
    first = remote.head
    code, output = run(start, "status")
    assert (code, "nothing yet" in output) == (1, True)
    assert run(start, "once") == (0, f"switched: {first[:12]} is live\n")
    assert run(start, "once") == (0, f"unchanged: {first[:12]} is live\n")

    second = remote.commit({"dags/two.py": "import nope\n"}, "Import what is not there")
    gate.problems = lambda tree: [PROBLEM]
    code, output = run(start, "once")
    assert code == 3
    assert "import: dags/two.py: No module named 'nope'" in output
    code, output = run(start, "status")
    assert code == 3
    assert first[:12] in output
    assert f"refused    {second[:12]} Ann Example: Import what is not there" in output

    gate.problems = lambda tree: []
    assert run(start, "once")[0] == 0
    assert run(start, "pin", first[:7]) == (0, f"switched: {first[:12]} is live\n")
    code, output = run(start, "status")
    assert code == 0
    assert f"pinned     {first}" in output
    assert run(start, "unpin") == (0, f"switched: {second[:12]} is live\n")


def test_tree_that_is_removed_is_named(start: Start, remote: Remote) -> None:
    """The timer's syncs are such ones, and their journal is where an operator looks."""
    keep = {"DAG_KEEP_TREES_SECONDS": "0", "DAG_KEEP_TREES_COUNT": "0"}
    first = remote.head
    assert run(start, "once", **keep)[0] == 0
    remote.commit({"dags/two.py": "x = 1\n"}, "Add another")
    said = [run(start, "once", **keep)[1] for _ in range(2)]
    assert f"removed the worktree {first}" in "".join(said)


def test_json(start: Start, remote: Remote) -> None:
    code, output = run(start, "once", "--json")
    assert code == 0
    assert json.loads(output) == {
        "outcome": "switched",
        "detail": f"{remote.head[:12]} is live",
        "commit": remote.head,
        "reasons": [],
    }
    code, output = run(start, "status", "--json")
    assert json.loads(output)["current"] == remote.head


def test_failure(start: Start, remote: Remote) -> None:
    remote.path.rename(remote.path.with_name("away"))
    code, output = run(start, "once")
    assert code == 1
    assert "failed: production could not be fetched" in output


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DAG_STATE_DIR", "", "DAG_STATE_DIR is not set"),
        ("ENVIRONMENT", "", "ENVIRONMENT is not set"),
        ("DAG_REPOSITORY", "", "DAG_REPOSITORY is not set"),
        ("DAG_KEEP_TREES_SECONDS", "a day", "DAG_KEEP_TREES_SECONDS must be a number"),
        ("DAG_KEEP_TREES_SECONDS", "-1", "DAG_KEEP_TREES_SECONDS must be zero or more"),
    ],
)
def test_settings_are_named(start: Start, variable: str, value: str, message: str) -> None:
    code, output = run(start, "once", **{variable: value})
    assert code == 2
    assert message in output


def test_env_file(start: Start, remote: Remote, environment: dict[str, str], tmp_path: Path) -> None:
    names = [name for name in environment if name.startswith(("DAG_", "GATE_"))]
    path = tmp_path / "sync.env"
    path.write_text("# settings\n\n" + "".join(f"{name}={environment[name]}\n" for name in names))
    code, output = run(start, "--env-file", str(path), "once", **dict.fromkeys(names, ""))
    assert (code, output) == (0, f"switched: {remote.head[:12]} is live\n")
    path.write_text("nonsense\n")
    code, output = run(start, "--env-file", str(path), "once")
    assert code == 2
    assert "line 1: not of the form NAME=value" in output


def test_help_names_the_exit_codes(start: Start) -> None:
    for arguments in (["--help"], ["pin", "--help"]):
        code, output = run(start, *arguments)
        assert code == 0
        assert "3  the commit was refused" in output
