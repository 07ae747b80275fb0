"""The stack's limits for waiting for Redis, in what each Airflow makes of them for Celery."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

SETTINGS = Path(__file__).resolve().parents[2] / "roles/stack/vars/main.yml"
SECTION = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__"

# The application of the executor and of the workers, which moved into the provider with Airflow 2.7.
ASK = """
try:
    from airflow.providers.celery.executors.celery_executor import app
except ImportError:
    from airflow.executors.celery_executor import app
with app.connection() as connection:
    connection.channel()
"""


def test_silent_redis_is_not_waited_for_without_an_end(tmp_path: Path) -> None:
    """Redis takes the connection and says nothing, as one does that is stopped, or whose host is gone."""
    stack = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["__stack_airflow_settings"]
    limits = [name for name in stack if name.startswith(SECTION)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment |= dict.fromkeys(limits, "0.5") | {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+sqlite:///{tmp_path}/results.db",
        }
        asked = subprocess.run(
            [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=300
        )
    assert asked.returncode == 1
    assert "Timeout reading from" in asked.stderr.splitlines()[-1], asked.stderr
