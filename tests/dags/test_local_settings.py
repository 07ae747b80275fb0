"""What every Airflow process does at its forks (images/airflow/config/airflow_local_settings.py)."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow import settings
from celery.signals import worker_init
from conftest import ROOT
from sqlalchemy import Column, Integer, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.orm import declarative_base
from sqlalchemy.pool import NullPool, QueuePool

SETTINGS = ROOT / "images/airflow/config/airflow_local_settings.py"


@pytest.fixture(scope="module", autouse=True)
def hooks() -> dict[str, Any]:
    """The file's names, with its hooks in force as on a worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIN_TREE_PER_TASK", "1")
        return runpy.run_path(str(SETTINGS))


def in_child(question: str, **names: object) -> str:
    """Fork, evaluate an expression there, and return what it gave."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(eval(question, globals(), names)).encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    return os.read(reader, 1000).decode()


def test_child_has_none_of_its_parents_connections() -> None:
    """With one socket, the scheduler and its health server would read each other's answers."""
    pool = settings.engine.pool
    assert in_child("id(settings.engine.pool)") != str(id(pool))
    assert settings.engine.pool is pool


def test_worker_configures_models_before_it_forks() -> None:
    """A model that nothing has asked for yet is configured when the worker starts, and no task does it."""

    class Model(declarative_base()):
        __tablename__ = "model"
        id = Column(Integer, primary_key=True)

    assert not Model.__mapper__.configured
    worker_init.send(sender=None)
    assert in_child("model.__mapper__.configured", model=Model) == "True"


def test_worker_imports_what_every_task_needs_before_it_forks(hooks: dict[str, Any]) -> None:
    """Every tested Airflow has all of these modules: one that is missing costs each task its import."""
    worker_init.send(sender=None)
    assert [name for name in hooks["IMPORTED_BY_EVERY_TASK"] if name not in sys.modules] == []


@pytest.fixture
def task_engine(hooks: dict[str, Any], tmp_path: Path) -> Iterator[Engine]:
    """An engine as Airflow makes it in a task's process, with what the platform adds to its arguments."""
    arguments = hooks["DEFAULT_ENGINE_ARGS"]["postgresql"]
    engine = create_engine(f"sqlite:///{tmp_path}/database", poolclass=NullPool, plugins=arguments["plugins"])
    yield engine
    engine.dispose()


def connection_used(engine: Engine) -> object:
    """Ask something, and return the connection of the database's own module that was used."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        return connection.connection.dbapi_connection


def test_task_uses_one_connection_for_all_its_sessions(task_engine: Engine) -> None:
    """Airflow alone connects for each session, and each connection costs Postgres a process."""
    assert connection_used(task_engine) is connection_used(task_engine)


def test_task_never_waits_for_its_own_connection(task_engine: Engine) -> None:
    """A session inside another one gets a second connection, and that one is closed after use."""
    with task_engine.connect() as outer, task_engine.connect() as inner:
        assert outer.connection.dbapi_connection is not inner.connection.dbapi_connection
    assert task_engine.pool.checkedin() == 1


def test_task_keeps_no_connection_while_its_own_code_runs(
    hooks: dict[str, Any], task_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long tasks would otherwise use up what Postgres allows."""
    connection_used(task_engine)
    monkeypatch.setattr(settings, "engine", task_engine)
    assert hooks["get_airflow_context_vars"]({}) == {}
    assert task_engine.pool.checkedin() == 0


def test_services_pools_stay_as_they_are(hooks: dict[str, Any]) -> None:
    """Only an engine that would keep nothing is changed; all that Airflow sets for Postgres is still set."""
    changed, own = hooks["DEFAULT_ENGINE_ARGS"]["postgresql"], settings.DEFAULT_ENGINE_ARGS["postgresql"]
    assert {**own, "plugins": ["task_connection"]} == changed
    engine = create_engine("postgresql+psycopg2://nowhere/", plugins=changed["plugins"], pool_size=5)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.size() == 5


PARSE = """
import logging, os, runpy, sys
from airflow import settings
from airflow.cli.commands import scheduler_command
from airflow.dag_processing.processor import DagFileProcessor

hooks, file = runpy.run_path(sys.argv[1]), sys.argv[2]
if os.fork() == 0:
    inherited = set(sys.modules)
    settings.configure_orm()
    processor = DagFileProcessor(dag_ids=[], dag_directory=os.path.dirname(file), log=logging.getLogger())
    found, errors, *_ = processor.process_file(file, [])
    imported = sorted(name for name in set(sys.modules) - inherited if not name.startswith("unusual_prefix_"))
    print("found", found, errors, *imported)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""

FILE = """
from datetime import datetime
from airflow.decorators import dag, task

@dag(schedule=None, start_date=datetime(2024, 1, 1))
def parsed():
    @task
    def nothing(): pass
    nothing()

parsed()
"""


def test_scheduler_imports_what_a_dag_file_needs_before_it_forks(tmp_path: Path) -> None:
    """Else each file costs half a second of processor time on 2.5.3."""
    file = tmp_path / "dags/parsed.py"
    file.parent.mkdir()
    file.write_text(FILE)
    changed = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "PREPARE_FOR_DAG_FILES": "1",
    }

    def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-W", "ignore", "-c", *arguments]
        return subprocess.run(command, env=os.environ | changed, capture_output=True, text=True, check=False)

    made = python("from airflow.utils import db; db.initdb()")
    assert made.returncode == 0, made.stderr
    done = python(PARSE, str(SETTINGS), str(file))
    [said] = [line for line in done.stdout.splitlines() if line.startswith("found ")] or [done.stderr]
    _, found, errors, *imported = said.split()
    assert (found, errors) == ("1", "0"), done.stderr
    assert imported == []
