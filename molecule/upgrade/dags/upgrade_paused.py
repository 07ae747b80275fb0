"""The DAG `upgrade-paused`: stays paused whatever is switched, although its schedule would have it run."""

from __future__ import annotations

import pendulum
from airflow.decorators import dag, task


@dag(
    dag_id="upgrade-paused",
    schedule="* * * * *",
    start_date=pendulum.datetime(2024, 1, 1),
    catchup=False,
    tags=["upgrade"],
)
def upgrade_paused() -> None:
    """Must never run."""

    @task
    def run() -> None:
        """Say so, where it will be seen."""
        raise AssertionError("a paused DAG has run")

    run()


upgrade_paused()
