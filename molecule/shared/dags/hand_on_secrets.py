"""The DAG `hand-on-secrets`: secrets become the environment of a container, as in most DAGs of the team.

The container prints a hash of what it was given, and then the secret itself. So its log has it, and the XCom
that its task returns.
"""

from __future__ import annotations

import os

import pendulum
from airflow import DAG
from airflow.providers.docker.operators.docker import DockerOperator
from utils.onepassword import get_env_vars_task

ENVIRONMENT = os.environ.get("ENVIRONMENT", "development")
REQUIRED_SECRETS = {
    # A name by which Airflow would not know that it is a secret.
    "GREETING": {
        "opitem": "Diagnostic ETL (Weather)",
        "opfield": f"{ENVIRONMENT}.demonstration secret",
    },
}
PRINT = (
    "import hashlib, os; given = os.environ['GREETING']; "
    "print('given', hashlib.sha256(given.encode()).hexdigest()); print(given)"
)

with DAG(
    dag_id="hand-on-secrets",
    schedule=None,
    start_date=pendulum.datetime(2024, 1, 1),
    catchup=False,
    default_args={"retries": 0},
    tags=["secrets"],
):
    DockerOperator(
        task_id="use",
        image="{{ var.value.weather_annotate_image }}",
        entrypoint=["python3", "-c"],
        command=[PRINT],
        environment=get_env_vars_task(REQUIRED_SECRETS),
        network_mode="bridge",
        api_version="auto",
        auto_remove="force",
        tty=True,
        mount_tmp_dir=False,
    )
