"""`dags test` and `tasks test` as operators type them: the scheduler does not run the same for real."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "dags": ["dags", "test", "nightly", "2026-07-01"],
    "tasks": ["tasks", "test", "nightly", "load", "2026-07-01"],
}

# Stays in its one task until the test has looked, and says what the task sees.
DAG = """
import os
from airflow.decorators import dag, task
from airflow.hooks.base import BaseHook
from airflow.models import Variable
from pendulum import datetime

@dag(start_date=datetime(2026, 1, 1), schedule=None)
def nightly():
    @task
    def load():
        found = BaseHook.get_connection("store").password + " " + Variable.get("place")
        with open(os.environ["AT_WORK"], "w") as at_work:
            at_work.write(found)
        with open(os.environ["GO_ON"]) as go_on:
            go_on.read()

    load()

nightly()
"""

PREPARE = """
from airflow.models import Connection, DagBag, DagModel, Variable
from airflow.utils.db import initdb
from airflow.utils.session import create_session
import os

initdb()
DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], include_examples=False).sync_to_db()
with create_session() as session:
    session.query(DagModel).filter_by(dag_id="nightly").one().is_paused = False
    session.add(Connection(conn_id="store", conn_type="http", password="secret"))
Variable.set("place", "here")
"""

# For each line of input: what the scheduler asks its database for in each round, and how many runs there are.
SCHEDULER = """
import json, sys
from airflow.models import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState

def names(session, state):
    return [run.dag_id for run in DagRun.next_dagruns_to_examine(state=state, session=session)]

for _ in sys.stdin:
    with create_session() as session:
        found = [*names(session, DagRunState.QUEUED), *names(session, DagRunState.RUNNING)]
        everything = session.query(DagRun).count()
    print(json.dumps({"seen": found, "runs": everything}), flush=True)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The platform's database, with a DAG that is not paused; SQLite in the place of Postgres."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags/nightly.py").write_text(DAG)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
        "AIRFLOW__CORE__FERNET_KEY": "cFNs8t5Yi3oLzOEGV1vTYmzzEG4s3oYGhwYoNKy2Gbw=",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    run(["-c", PREPARE], environment)
    return environment


@pytest.fixture
def environment(prepared: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A copy of that database for each test."""
    for name in ("at_work", "go_on"):
        os.mkfifo(tmp_path / name)
    shutil.copy(Path(prepared["AIRFLOW_HOME"], "airflow.db"), tmp_path)
    return {
        **prepared,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AT_WORK": str(tmp_path / "at_work"),
        "GO_ON": str(tmp_path / "go_on"),
    }


def run(arguments: list[str], environment: dict[str, str]) -> str:
    """Run this Airflow's Python, and return the last line of what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (done.stdout.splitlines() or [""])[-1]


def service_program() -> str:
    """Return the program of the service airflow-cli: one of the image's own, or `airflow`."""
    template = (ROOT / "templates/srv/airflow/docker-compose.yaml.j2").read_text(encoding="utf-8")
    service = template[template.index("\n  airflow-cli:\n") :]
    [name] = re.findall(r"^    entrypoint: \[/usr/bin/dumb-init, --, ([\w-]+)\]$", service, re.MULTILINE)
    own = ROOT / "images/airflow/bin" / name
    return str(own if own.exists() else Path(sys.executable).parent / name)


def scheduler_sees(program: str, kind: str, environment: dict[str, str]) -> tuple[list[str], str, int]:
    """Run a test; return the runs that the scheduler sees, what the task saw, and how many runs stay."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", SCHEDULER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as scheduler,
        subprocess.Popen(
            [sys.executable, program, *COMMANDS[kind]],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as testing,
    ):
        found = Path(environment["AT_WORK"]).read_text()
        seen = ask(scheduler)["seen"]
        Path(environment["GO_ON"]).write_text("")
        output, _ = testing.communicate(timeout=300)
        assert testing.returncode == 0, output
        left = ask(scheduler)["runs"]
    return seen, found, left


def ask(scheduler: subprocess.Popen[str]) -> dict[str, Any]:
    """Have the scheduler look at its database; Airflow may print lines of its own."""
    assert scheduler.stdin is not None
    assert scheduler.stdout is not None
    print("look", file=scheduler.stdin, flush=True)
    answer: dict[str, Any] = json.loads(next(line for line in scheduler.stdout if line.startswith('{"seen"')))
    return answer


@pytest.mark.parametrize("kind", COMMANDS)
def test_documented_command_is_the_tests_own_business(environment: dict[str, str], kind: str) -> None:
    """It has the platform's connections and variables, and the platform's database has no trace of it."""
    assert scheduler_sees(service_program(), kind, environment) == ([], "secret here", 0)


@pytest.mark.parametrize("kind", COMMANDS)
def test_plain_command_is_taken_up_by_the_scheduler(environment: dict[str, str], kind: str) -> None:
    """Why airflow-cli is not plain `airflow`: this is so on every version."""
    seen, found, left = scheduler_sees(str(Path(sys.executable).parent / "airflow"), kind, environment)
    assert seen == ["nightly"]
    assert found == "secret here"
    assert left == {"dags": 1, "tasks": 0}[kind]


def test_other_commands_have_the_platforms_database(environment: dict[str, str]) -> None:
    said = run([service_program(), "variables", "get", "place"], environment)
    assert said == "here"
