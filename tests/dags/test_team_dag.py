"""A DAG written like the team's in production, with the old import paths and the utilities, still works."""

import pytest

TEAM_DAG = """
import os

from airflow.decorators import task
from airflow.models import DAG
from airflow.operators.docker_operator import DockerOperator
from pendulum import datetime, duration, now, parse

from utils.onepassword import (
    get_client, get_env_vars_task, get_item_by_title, get_item_last_update_date, load_dict
)
from utils.slack_operator import (
    task_fail_slack_alert, task_fail_slack_alert_critical, task_success_slack_alert
)

DEPLOYMENT_ENVIRONMENT = os.getenv("ENVIRONMENT", "development")
DEFAULT_ARGS = {
    "owner": "airflow",
    "depends_on_past": False,
    "start_date": datetime(2015, 1, 1, tz="America/Chicago"),
    "retries": 0,
    "on_failure_callback": task_fail_slack_alert_critical,
    "on_success_callback": task_success_slack_alert,
}
REQUIRED_SECRETS = {
    "SECRET": {
        "opitem": "Diagnostic ETL (Weather)",
        "opfield": f"{DEPLOYMENT_ENVIRONMENT}.demonstration secret",
    },
}

with DAG(
    dag_id="team_dag",
    default_args=DEFAULT_ARGS,
    schedule_interval=None,
    dagrun_timeout=duration(minutes=5),
    tags=["repo:team"],
    catchup=False,
    on_failure_callback=task_fail_slack_alert,
) as dag:
    env_vars = get_env_vars_task(REQUIRED_SECRETS)
    updated_at = get_item_last_update_date("Diagnostic ETL (Weather)")

    @task
    def compare(updated_at):
        if isinstance(updated_at, str):  # Airflow 2.5
            updated_at = parse(updated_at)
        assert now() - duration(minutes=5) < updated_at <= now()

    @task
    def use(env_vars):
        assert env_vars == load_dict(REQUIRED_SECRETS)
        assert get_item_by_title("Diagnostic ETL (Weather)").title == "Diagnostic ETL (Weather)"
        assert get_client().get_vaults()

    docker_task = DockerOperator(
        task_id="docker",
        image="some/image:production",
        docker_conn_id="docker_default",
        api_version="auto",
        auto_remove="success",
        command="python publish.py",
        network_mode="bridge",
        environment=env_vars,
        tty=True,
        force_pull=True,
        mount_tmp_dir=False,
    )
    compare(updated_at["updated_at"])
    use(env_vars)
"""


@pytest.fixture
def team_dag(tmp_path):
    from airflow.models import DagBag

    (tmp_path / "team_dag.py").write_text(TEAM_DAG, encoding="utf-8")
    bag = DagBag(dag_folder=str(tmp_path), include_examples=False)
    assert bag.import_errors == {}
    return bag.dags["team_dag"]


def test_imports_and_parses_without_the_network(team_dag):
    assert set(team_dag.task_ids) == {
        "get_env_vars",
        "get_item_last_update_date",
        "docker",
        "compare",
        "use",
    }
    assert team_dag.get_task("docker").upstream_task_ids == {"get_env_vars"}


def test_runs_with_secrets_and_alerts(team_dag, database, connect, site, monkeypatch, caplog):
    """All but the container, which needs Docker, and an image that nobody has here."""
    from airflow.models import DagRun

    from sandbox.seed import phrase

    site.answers["/services/T0/B0/x"] = (200, b"ok")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK", f"{site.url}/services/T0/B0/x")
    dag = team_dag.partial_subset("get_.*|compare|use", include_upstream=False, include_downstream=False)
    dag.test()
    assert DagRun.find(dag_id="team_dag")[-1].state == "success"
    assert len(site.requests) == 4, "one alert of success for each task"
    assert phrase("development") not in caplog.text
