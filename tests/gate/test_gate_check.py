"""The gate on a real Airflow: what it refuses and why, how fast it is once warm, what it survives."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "webhook/src/webhook/gate_check.py"
SECONDS = 10

DAG = """
from datetime import datetime
from airflow import DAG
from airflow.operators.bash import BashOperator
from utils.common import COMMAND

with DAG("{}", start_date=datetime(2024, 1, 1)):
    BashOperator(task_id="task", bash_command=COMMAND)
"""

BROKEN = {
    "syntax": "def broken(:  # airflow dag\n",
    "import": "import surely_not_there  # airflow dag\n",
    "slow": "import time  # airflow dag\ntime.sleep(600)\n",
    "memory": "# airflow dag\nkept = bytearray(2 * 2**30)\n",
    "crash": "# airflow dag\nimport os\nos.kill(os.getpid(), 11)\n",
}


class Tree:
    """A worktree below the folder that the server watches."""

    def __init__(self, path: Path, dags: int = 3) -> None:
        self.path = path
        self.write("dags/utils/__init__.py", "")
        self.write("dags/utils/common.py", "COMMAND = 'true'\n")
        for number in range(dags):
            self.write(f"dags/dag_{number}.py", DAG.format(f"dag-{number}"))

    def write(self, name: str, content: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def copy(self, name: str) -> Tree:
        copy = object.__new__(Tree)
        copy.path = self.path.with_name(name)
        shutil.copytree(self.path, copy.path)
        return copy


class Server:
    """A gate that runs as in its container: the live tree is on Airflow's own path."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "trees"
        self.address = folder / "gate.sock"
        live = Tree(self.root / "worktrees/live")
        live.write("dags/utils/only_in_live.py", "")
        (self.root / "current").symlink_to("worktrees/live")
        dags = str(self.root / "current/dags")
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(PROGRAM), "serve", str(self.address)),
                *("--root", str(self.root), "--seconds", str(SECONDS)),
            ],
            env={**os.environ, "PYTHONPATH": dags, "AIRFLOW__CORE__DAGS_FOLDER": dags},
            stdout=(folder / "log").open("w"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 300
        while not self.address.exists():
            assert self.process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ask(self, request: Any) -> dict[str, Any]:
        line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(400)
            client.connect(str(self.address))
            client.sendall(line)
            return dict(json.loads(client.makefile("rb").readline()))

    def check(self, tree: Tree) -> dict[str, Any]:
        name = str(tree.path.relative_to(self.root))
        return self.ask({"tree": name, "dags": "dags", "requirements": "images/airflow/requirements.txt"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("gate"))
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0


@pytest.fixture
def tree(server: Server, request: pytest.FixtureRequest) -> Iterator[Tree]:
    name = re.sub(r"\W", "-", request.node.name)
    tree = Tree(server.root / "worktrees" / name)
    yield tree
    for path in server.root.glob(f"worktrees/{name}*"):
        shutil.rmtree(path)


def problems(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem["kind"], problem["path"]) for problem in report["problems"]]


def test_good_tree_passes(server: Server, tree: Tree) -> None:
    report = server.check(tree)
    assert report["problems"] == []
    assert {name: parsed["dag_ids"] for name, parsed in report["files"].items()} == {
        f"dags/dag_{number}.py": [f"dag-{number}"] for number in range(3)
    }
    assert report["files"]["dags/dag_0.py"]["reads"] == [
        "dags/dag_0.py",
        "dags/utils/__init__.py",
        "dags/utils/common.py",
    ]
    assert report["airflow_version"].startswith("2.")


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_is_refused_and_the_server_goes_on(server: Server, tree: Tree, kind: str) -> None:
    tree.write("dags/broken.py", BROKEN[kind])
    started = time.monotonic()
    report = server.check(tree)
    assert time.monotonic() - started < 300, "the slow one, which takes 600 s, was not cut off"
    assert problems(report) == [(kind, "dags/broken.py")]
    (tree.path / "dags/broken.py").unlink()
    assert server.check(tree)["problems"] == []


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
    tree.write("dags/junk/old.py", BROKEN["syntax"])
    tree.write("dags/.airflowignore", "junk\n")
    assert server.check(tree)["problems"] == []


def test_break_in_a_helper_is_found_in_files_that_did_not_change(server: Server, tree: Tree) -> None:
    tree.write(
        "dags/independent.py", DAG.replace("from utils.common import COMMAND", "COMMAND = 'x'").format("own")
    )
    assert server.check(tree)["problems"] == []
    tree.write("dags/utils/common.py", "RENAMED = 'true'\n")
    report = server.check(tree)
    assert problems(report) == [("import", f"dags/dag_{number}.py") for number in range(3)]
    assert report["files"]["dags/independent.py"]["cached"]


def test_data_file_counts_as_read(server: Server, tree: Tree) -> None:
    """A DAG made from a file beside it, or from the files of a folder, as factories do."""
    tree.write("dags/conf/a.json", '{"command": "true"}')
    tree.write(
        "dags/factory.py",
        "# airflow dag\nimport json, pathlib\n"
        "for path in (pathlib.Path(__file__).parent / 'conf').iterdir():\n"
        "    assert json.loads(path.read_text())['command']\n",
    )
    assert server.check(tree)["problems"] == []
    assert server.check(tree)["files"]["dags/factory.py"]["cached"]
    tree.write("dags/conf/b.json", "{}")
    assert problems(server.check(tree)) == [("import", "dags/factory.py")]


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


def test_requirements_are_compared_with_the_image(server: Server, tree: Tree) -> None:
    tree.write(
        "images/airflow/requirements.txt",
        "# the team's\n--prefer-binary\n\nsurely-not-there==1.0  # new\nJinja2>=2\npackaging==0.1\n"
        "only-there; python_version < '3'\nwhat is this\n",
    )
    report = server.check(tree)
    assert problems(report) == [("requirement", "images/airflow/requirements.txt")] * 3
    text = "\n".join(problem["message"] for problem in report["problems"])
    for part in ("lacks surely-not-there==1.0", "not packaging==0.1", "'what is this' is not a requirement"):
        assert part in text


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


def test_what_a_file_prints_and_starts_disturbs_nobody(server: Server, tree: Tree) -> None:
    tree.write(
        "dags/noisy.py",
        "# airflow dag\nimport os, subprocess, sys\nprint('{' * 100_000)\nsys.stderr.write('x')\n"
        "subprocess.Popen(['sleep', '314'])\n",
    )
    assert server.check(tree)["problems"] == []
    deadline = time.monotonic() + 120
    while subprocess.run(["pgrep", "-f", "^sleep 314$"], stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline, "what the file started is still running"
        time.sleep(0.05)


def test_of_81_files_only_the_new_one_is_parsed(server: Server) -> None:
    """No other part of a push to live grows with the number of DAGs; bench/push_to_live has the seconds."""
    tree = Tree(server.root / "worktrees/eighty", dags=80)
    server.check(tree)
    new = tree.copy("eighty-one")
    new.write("dags/new.py", DAG.format("new"))
    report = server.check(new)
    assert report["problems"] == []
    assert len(report["files"]) == 81
    assert [name for name, parsed in report["files"].items() if not parsed["cached"]] == ["dags/new.py"]
    for path in (tree.path, new.path):
        shutil.rmtree(path)


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
    tree.write("dags/broken.py", BROKEN["import"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, problems(json.loads(done.stdout))) == (3, [("import", "dags/broken.py")])
