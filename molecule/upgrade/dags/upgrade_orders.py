"""The DAG `upgrade-orders`: history of the good kind, with an XCom from one task to the next."""

from __future__ import annotations

import pendulum
from airflow.decorators import dag, task


@dag(
    dag_id="upgrade-orders",
    schedule=None,
    start_date=pendulum.datetime(2024, 1, 1),
    max_active_runs=16,
    tags=["upgrade"],
)
def upgrade_orders() -> None:
    """Count the orders that the run was triggered with, and keep the total."""

    @task
    def collect(dag_run: object = None) -> list[int]:
        """Return the amounts of the run's configuration."""
        return list(dag_run.conf["amounts"])

    @task
    def total(amounts: list[int]) -> dict[str, int]:
        """Return what was ordered."""
        return {"orders": len(amounts), "sum": sum(amounts)}

    total(collect())


upgrade_orders()
