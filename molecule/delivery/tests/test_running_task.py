"""A task that runs while `current` moves goes on in the tree with which it began."""

from __future__ import annotations

from airflow_api import wait_for
from delivery import Delivery, new_name

SOURCE = '''\
import datetime
import pathlib
import time

from airflow import DAG
from airflow.models import Variable
from airflow.operators.python import PythonOperator


def watch():
    """Read a file that lies beside this one, wait until {name} is set, read it again, import another."""
    data = pathlib.Path(__file__).with_name("{name}.txt")
    Variable.set("{name}_before", data.read_text())
    deadline = time.monotonic() + 120
    while Variable.get("{name}", default_var=None) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody set {name}")
        time.sleep(0.5)
    import {name}_helper

    Variable.set("{name}_after", f"{{data.read_text()}} {{{name}_helper.VERSION}}")


with DAG("{name}", start_date=datetime.datetime(2024, 1, 1), schedule=None, description="{version}"):
    PythonOperator(task_id="watch", python_callable=watch)
'''


def test_running_task_keeps_its_tree(delivery: Delivery) -> None:
    """What it reads, and even what it imports, late; the next run has the new tree."""
    name, airflow = new_name("watcher"), delivery.airflow

    def push(version: str) -> None:
        files: dict[str, str | None] = {
            f"dags/{name}.py": SOURCE.format(name=name, version=version),
            f"dags/{name}.txt": version,
            f"dags/{name}_helper.py": f"VERSION = {version!r}\n",
        }
        delivery.announce(delivery.repository.push(files))
        delivery.wait_until_known(name, version)

    def result(key: str) -> object:
        variables = airflow.get("variables", order_by="-id")["variables"]
        return next((entry["value"] for entry in variables if entry["key"] == f"{name}_{key}"), None)

    def run_ended(run: str) -> bool:
        return str(airflow.get(f"dags/{name}/dagRuns/{run}")["state"]) in ("success", "failed")

    push("old")
    with airflow.released(name):
        run = airflow.call("POST", f"dags/{name}/dagRuns", json={})["dag_run_id"]
        try:
            assert wait_for("the task to have read", lambda: result("before"), 60) == "old"
            push("new")
        finally:
            airflow.call("POST", "variables", json={"key": name, "value": "go on"})
        wait_for("the run to end", lambda: run_ended(run), 60)
        assert result("after") == "old old"

        run = airflow.call("POST", f"dags/{name}/dagRuns", json={})["dag_run_id"]
        wait_for("the next run to end", lambda: run_ended(run), 60)
        assert result("after") == "new new"
    assert airflow.get(f"variables/{name}")["value"] == "go on"
