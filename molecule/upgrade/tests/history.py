"""Gives a platform the history that an upgrade must keep, by the ways in which people make it."""

from __future__ import annotations

from pathlib import Path

from airflow_api import ACTIVE, wait_for
from platform_host import Platform
from snapshot import LONG, PULSE

DAGS = Path(__file__).resolve().parents[1] / "dags"
PAUSED = "upgrade-paused"
RELEASED = ("upgrade-orders", "upgrade-failing", PULSE, LONG)
ORDERS: tuple[list[int], ...] = ([], [10], [10, 20, 12])
CONNECTIONS = (
    {
        "connection_id": "warehouse",
        "conn_type": "postgres",
        "host": "warehouse.example.org",
        "login": "loader",
        "password": 's3cret\'s "quoted" päss%40word',
        "schema": "orders",
        "port": 5433,
        "extra": '{"sslmode": "require", "token": "abc"}',
    },
    {"connection_id": "plain", "conn_type": "http", "host": "https://api.example.org"},
)
VARIABLES = {"orders_api_key": "k-0123456789", "thresholds": '{"low": 1, "high": 99}', "greeting": "Grüße 👋"}


def make(platform: Platform) -> None:
    """Publish the DAGs, release all but one, run them, and make connections, variables and a pool."""
    airflow = platform.airflow
    platform.publish({path.name: path.read_text() for path in sorted(DAGS.glob("*.py"))}, "Bring history")
    for dag in (*RELEASED, PAUSED):
        wait_for(f"Airflow to know {dag}", lambda dag=dag: platform.knows(dag), 60)
    for connection in CONNECTIONS:
        airflow.call("POST", "connections", json=connection)
    for key, value in VARIABLES.items():
        airflow.call("POST", "variables", json={"key": key, "value": value})
    airflow.call("POST", "pools", json={"name": "warehouse", "slots": 3})
    for dag in RELEASED:
        airflow.pause(dag, False)
    for amounts in ORDERS:
        airflow.call("POST", "dags/upgrade-orders/dagRuns", json={"conf": {"amounts": amounts}})
    airflow.call("POST", "dags/upgrade-failing/dagRuns", json={})
    # A run of a paused DAG that waits: it must neither get lost nor start.
    airflow.call("POST", f"dags/{PAUSED}/dagRuns", json={"dag_run_id": "waits"})
    for dag in ("upgrade-orders", "upgrade-failing"):
        wait_for(f"the runs of {dag}", lambda dag=dag: not airflow.active_runs(dag), 180)
    states = platform.sql("SELECT dag_id, state, count(*) FROM dag_run GROUP BY 1, 2").splitlines()
    assert f"upgrade-orders|success|{len(ORDERS)}" in states
    assert "upgrade-failing|failed|1" in states
    assert ACTIVE[0] in {state.split("|")[1] for state in states if state.startswith(PAUSED)}
