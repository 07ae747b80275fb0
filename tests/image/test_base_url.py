"""The address for links in messages, and pages that go on working by whatever name they are asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Through the webserver's own WSGI application, as HAProxy calls it for a browser that came by another name.
ASK = """
import json
from airflow.models import DagRun, TaskInstance
from airflow.models.dag import DAG
from airflow.utils.db import initdb
from airflow.www.app import create_app
from pendulum import datetime
from werkzeug.test import Client
try:
    from airflow.operators.empty import EmptyOperator
except ImportError:
    from airflow.providers.standard.operators.empty import EmptyOperator

initdb()
with DAG("nightly", start_date=datetime(2026, 1, 1), schedule=None):
    task = EmptyOperator(task_id="load")
ti = TaskInstance(task, run_id="one")
ti.dag_run = DagRun("nightly", run_id="one", execution_date=datetime(2026, 7, 1))
answers = {"log": ti.log_url}
client = Client(create_app())
for path in ("/health", "/", "/login/"):
    headers = {"Host": "other.example.org:8080", "X-Forwarded-Proto": "http"}
    response = client.get(path, headers=headers)
    cookies = response.headers.getlist("Set-Cookie")
    answers[path] = [response.status_code, response.headers.get("Location", ""), cookies]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the webserver says with an address of its own."""
    home: Path = tmp_path_factory.mktemp("airflow")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__WEBSERVER__SECRET_KEY": "a test's",
        "AIRFLOW__WEBSERVER__ENABLE_PROXY_FIX": "true",
        "AIRFLOW__WEBSERVER__BASE_URL": "http://atd-data03:8080",
    }
    asked = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert asked.returncode == 0, asked.stderr[-4000:]
    told: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return told


def test_log_link_begins_with_the_address(answers: dict[str, Any]) -> None:
    assert answers["log"].startswith("http://atd-data03:8080/")


def test_pages_keep_to_the_name_that_they_were_asked_by(answers: dict[str, Any]) -> None:
    assert answers["/health"][0] == 200
    status, location, _ = answers["/"]
    assert status == 302
    assert location.startswith(("/", "http://other.example.org:8080/"))
    status, _, cookies = answers["/login/"]
    assert status == 200
    assert cookies
    assert all("Domain" not in cookie and "Path=/;" in f"{cookie};" for cookie in cookies)
