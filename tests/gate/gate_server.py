"""A gate that runs as in its container, and trees for it to check."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parents[2] / "webhook/src/gate_check"
SECONDS = 15  # for each file; on a busy machine a fine one needs some

DAG = """
from datetime import datetime
from airflow import DAG
from airflow.operators.bash import BashOperator
from utils.common import COMMAND

with DAG("{}", start_date=datetime(2024, 1, 1)):
    BashOperator(task_id="task", bash_command=COMMAND)
"""


class Tree:
    """A worktree below the folder that the server watches."""

    def __init__(self, path: Path, dags: int = 3) -> None:
        self.path = path
        self.write("dags/utils/__init__.py", "")
        self.write("dags/utils/common.py", "COMMAND = 'true'\n")
        for number in range(dags):
            self.write(f"dags/dag_{number}.py", DAG.format(f"dag-{number}"))

    def write(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, name: str, target: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def copy(self, name: str) -> Tree:
        copy = object.__new__(Tree)
        copy.path = self.path.with_name(name)
        shutil.copytree(self.path, copy.path)
        return copy


class Server:
    """A gate: the live tree is on Airflow's own path, and the scheduler has a variable and plugins."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "trees"
        self.address = folder / "gate.sock"
        self.plugins = folder / "airflow/plugins"
        self.plugins.mkdir(parents=True)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        live = Tree(self.root / "worktrees/live")
        live.write("dags/utils/only_in_live.py", "")
        (self.root / "current").symlink_to("worktrees/live")
        dags = str(self.root / "current/dags")
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(PROGRAM), "serve", str(self.address)),
                *("--root", str(self.root), "--seconds", str(SECONDS), "--scratch", str(self.scratch)),
            ],
            env={
                **os.environ,
                "TMPDIR": str(self.scratch),
                "PYTHONPATH": dags,
                "AIRFLOW__CORE__DAGS_FOLDER": dags,
                "GATE_SETS_AIRFLOW_HOME": str(folder / "airflow"),
                "GATE_SETS_AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "GATE_SETS_TEAM_SETTING": "of the team",
            },
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

    def check(self, tree: Tree, **more: Any) -> dict[str, Any]:
        name = str(tree.path.relative_to(self.root))
        requirements = "images/airflow/requirements.txt"
        return self.ask({"tree": name, "dags": "dags", "requirements": requirements, **more})

    def most_memory(self) -> int:
        """Return the most memory that the server itself has had, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


def problems(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem["kind"], problem["path"]) for problem in report["problems"]]
