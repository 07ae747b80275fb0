"""What every Airflow process does at its forks (images/airflow/config/airflow_local_settings.py)."""

import gc
import os
import runpy
import sys
from typing import Any

import pytest
from airflow import settings
from celery.signals import worker_init
from conftest import ROOT
from sqlalchemy import Column, Integer
from sqlalchemy.orm import declarative_base

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


def test_child_collects_no_garbage_of_its_parent() -> None:
    """The parent itself, which lives for long, goes on to collect all of its own."""
    assert in_child("gc.get_freeze_count() > 10_000") == "True"
    assert gc.get_freeze_count() == 0


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
