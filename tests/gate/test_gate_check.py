"""The gate on a real Airflow: what it refuses and why, how fast it is once warm, what it survives."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gate.gate_server import DAG, PROGRAM, Server, Tree, problems


def test_good_tree_passes(server: Server, tree: Tree) -> None:
    report = server.check(tree)
    assert report["problems"] == []
    assert {name: parsed["dag_ids"] for name, parsed in report["files"].items()} == {
        f"dags/dag_{number}.py": [f"dag-{number}"] for number in range(3)
    }
    reads = [name for name in report["files"]["dags/dag_0.py"]["reads"] if "__pycache__" not in name]
    assert reads == ["dags/dag_0.py", "dags/utils/__init__.py", "dags/utils/common.py"]
    assert report["airflow_version"].startswith("2.")


def test_import_error_says_where_without_this_hosts_paths(server: Server, tree: Tree) -> None:
    tree.write("dags/broken.py", "# airflow dag\n\nimport surely_not_there\n")
    (problem,) = server.check(tree)["problems"]
    assert 'File "dags/broken.py", line 3' in problem["message"]
    assert "No module named 'surely_not_there'" in problem["message"]
    assert str(tree.path) not in problem["message"]


def test_syntax_error_in_a_helper_that_nobody_imports(server: Server, tree: Tree) -> None:
    tree.write("dags/utils/unused.py", "x = (\n")
    assert problems(server.check(tree)) == [("syntax", "dags/utils/unused.py")]


def test_airflowignore_is_honoured(server: Server, tree: Tree) -> None:
    tree.write("dags/junk/old.py", "def broken(:\n")
    tree.write("dags/.airflowignore", "junk\n")
    assert server.check(tree)["problems"] == []


def test_duplicate_of_an_unchanged_file(server: Server, tree: Tree) -> None:
    assert server.check(tree)["problems"] == []
    tree.write("dags/z.py", DAG.format("dag-1"))
    report = server.check(tree)
    assert problems(report) == [("duplicate", "dags/z.py")]
    assert "dags/dag_1.py" in report["problems"][0]["message"]


def test_duplicate_within_a_file(server: Server, tree: Tree) -> None:
    first = DAG.format("twice").replace("):\n", ") as first:\n")
    second = "with DAG(" + first.split("with DAG(")[1].replace("first", "second").replace("'true'", "'false'")
    tree.write("dags/twice.py", first + second.replace("2024", "2025"))
    assert problems(server.check(tree)) == [("duplicate", "dags/twice.py")]


def test_nothing_is_imported_from_the_live_tree(server: Server, tree: Tree) -> None:
    """Otherwise a commit that removes a helper would pass, and break once it is live."""
    tree.write("dags/dag_0.py", "# airflow dag\nimport utils.only_in_live\n")
    assert problems(server.check(tree)) == [("import", "dags/dag_0.py")]


def test_variable_with_a_default_parses_without_a_database(server: Server, tree: Tree) -> None:
    tree.write(
        "dags/v.py",
        "# dag\nfrom airflow.models import Variable\nassert Variable.get('x', default_var='d') == 'd'\n",
    )
    assert server.check(tree)["problems"] == []


def test_environment_is_the_schedulers(server: Server, tree: Tree) -> None:
    tree.write(
        "dags/environment.py",
        "# airflow dag\nimport os, pathlib\nfrom airflow.configuration import conf\n"
        "assert os.environ['TEAM_SETTING'] == 'of the team'\n"
        "assert os.path.isdir(os.environ['AIRFLOW_HOME'] + '/plugins')\n"
        "assert not [name for name in os.environ if name.startswith('GATE_SETS_')]\n"
        "assert conf.get('core', 'executor') == 'CeleryExecutor'\n"
        "folder = str(pathlib.Path(__file__).parent)\n"
        "assert conf.get('core', 'dags_folder') == os.environ['AIRFLOW__CORE__DAGS_FOLDER'] == folder\n",
    )
    assert server.check(tree)["problems"] == []


TIMETABLE = """
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.interval import CronDataIntervalTimetable

class Hourly(CronDataIntervalTimetable):
    def __init__(self):
        super().__init__("@hourly", "UTC")
    def serialize(self):
        return {}
    @classmethod
    def deserialize(cls, data):
        return cls()

class Plugin(AirflowPlugin):
    name = "of the team"
    timetables = [Hourly]
"""


def test_plugins_are_the_schedulers(server: Server, tree: Tree) -> None:
    """They are imported as modules, and register what serialisation asks for."""
    (server.plugins / "team_timetable.py").write_text(TIMETABLE)
    tree.write(
        "dags/plugin.py",
        DAG.format("plugin")
        .replace("from utils", "from team_timetable import Hourly\nfrom utils")
        .replace("start_date=", "timetable=Hourly(), start_date="),
    )
    assert server.check(tree)["problems"] == []
    assert server.check(tree)["files"]["dags/plugin.py"]["cached"]
    (server.plugins / "team_timetable.py").write_text("")
    assert problems(server.check(tree)) == [("import", "dags/plugin.py")]


def test_module_may_have_the_name_of_this_program(server: Server, tree: Tree) -> None:
    tree.write("dags/gate_check/__init__.py", "OF_THE_TEAM = True\n")
    tree.write("dags/dag_0.py", "# airflow dag\nfrom gate_check import OF_THE_TEAM\n")
    assert server.check(tree)["problems"] == []


@pytest.mark.parametrize(
    "request_",
    [
        {"tree": "../outside"},
        {"tree": "worktrees/none"},
        {"tree": ""},
        {},
        [],
        b"nonsense\n",
        b"\xff\n",
        b"\n",
    ],
    ids=repr,
)
def test_bad_request_is_answered(server: Server, request_: Any) -> None:
    assert server.ask(request_)["error"]


def test_client_that_goes_away_disturbs_nobody(server: Server, tree: Tree) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.address))
        client.sendall(b'{"tree"')
    assert server.check(tree)["problems"] == []


def test_ping(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "ping"]
    assert subprocess.run([*command, str(server.address)], check=False).returncode == 0
    assert (
        subprocess.run([*command, str(tmp_path / "none")], check=False, stderr=subprocess.DEVNULL).returncode
        == 1
    )


def test_ping_of_a_gate_that_is_stuck(server: Server) -> None:
    """It takes the call, since the kernel does that, and never answers."""
    command = [sys.executable, str(PROGRAM), "ping", str(server.address)]
    server.process.send_signal(signal.SIGSTOP)
    try:
        done = subprocess.run([*command, "--seconds", "1"], check=False, stderr=subprocess.PIPE, text=True)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert done.returncode == 1
    assert "timed out" in done.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_warnings_are_told_by_file(server: Server, tree: Tree) -> None:
    """What a later Airflow removes is a warning now, and no reason to refuse."""
    tree.write(
        "dags/dag_0.py", DAG.format("dag-0").replace("start_date", "schedule_interval=None, start_date")
    )
    report = server.check(tree)
    assert report["problems"] == []
    told = {
        name: [warning for warning in file["warnings"] if "`schedule_interval` is deprecated" in warning]
        for name, file in report["files"].items()
    }
    assert [name for name, warnings in told.items() if warnings] == ["dags/dag_0.py"]
    assert told["dags/dag_0.py"][0].startswith("RemovedInAirflow3Warning: ")


def test_command_line(tmp_path: Path) -> None:
    """As an upgrade asks a new image about the DAGs."""
    tree = Tree(tmp_path / "tree")
    command = [sys.executable, str(PROGRAM), "check", str(tree.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["problems"]) == (0, [])
    tree.write("dags/broken.py", "import surely_not_there  # airflow dag\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, problems(json.loads(done.stdout))) == (3, [("import", "dags/broken.py")])
