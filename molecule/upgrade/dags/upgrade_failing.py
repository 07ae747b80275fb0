"""The DAG `upgrade-failing`: history of the bad kind, a task that fails and one that therefore never runs."""

from __future__ import annotations

import pendulum
from airflow.decorators import dag, task


@dag(
    dag_id="upgrade-failing",
    schedule=None,
    start_date=pendulum.datetime(2024, 1, 1),
    default_args={"retries": 0},
    tags=["upgrade"],
)
def upgrade_failing() -> None:
    """Fail at the first task."""

    @task
    def fetch() -> str:
        """Fail as a source does that is gone."""
        raise ConnectionError("the source is gone")

    @task
    def store(document: str) -> None:
        """Never get here."""

    store(fetch())


upgrade_failing()
