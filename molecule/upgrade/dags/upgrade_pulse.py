"""The DAG `upgrade-pulse`: released and scheduled all the time, so that a switch always meets a schedule."""

from __future__ import annotations

import datetime

import pendulum
from airflow.decorators import dag, task


@dag(
    dag_id="upgrade-pulse",
    schedule=datetime.timedelta(seconds=10),
    start_date=pendulum.datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 0},
    tags=["upgrade"],
)
def upgrade_pulse() -> None:
    """Beat once."""

    @task
    def beat() -> None:
        """Do nothing: that it ran is all there is to it."""

    beat()


upgrade_pulse()
