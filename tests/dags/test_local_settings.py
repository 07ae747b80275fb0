"""What every Airflow process does at its forks (images/airflow/config/airflow_local_settings.py)."""

import os
import runpy

import pytest
from airflow import settings
from conftest import ROOT

SETTINGS = ROOT / "images/airflow/config/airflow_local_settings.py"


@pytest.fixture(scope="module", autouse=True)
def local_settings() -> None:
    runpy.run_path(str(SETTINGS))


def in_child(question: str) -> str:
    """Fork, evaluate an expression there, and return what it gave."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(eval(question)).encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    return os.read(reader, 1000).decode()


def test_child_has_none_of_its_parents_connections() -> None:
    """With one socket, the scheduler and its health server would read each other's answers."""
    pool = settings.engine.pool
    assert in_child("id(settings.engine.pool)") != str(id(pool))
    assert settings.engine.pool is pool
