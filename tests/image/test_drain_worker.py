"""A worker that is to leave takes no more messages: on the real Celery of each Airflow, with a real Redis."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.image.test_check_health import NAME, broker, environment, run, wait_for, worker
from tests.missing import needs

__all__ = ["broker", "environment", "worker"]
PROGRAM = Path(__file__).resolve().parents[2] / "images/airflow/bin/drain-worker"

pytestmark = [
    pytest.mark.celery,
    needs("redis-server"),
]


def drain(environment: dict[str, str]) -> dict[str, Any]:
    """Run the program as the release command does."""
    asked = subprocess.run(
        [sys.executable, "-B", str(PROGRAM), NAME.removeprefix("celery@")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    found: dict[str, Any] = json.loads(asked.stdout)
    return found


@pytest.mark.usefixtures("worker")
def test_worker_ends_what_it_has_and_takes_nothing_more(environment: dict[str, str], tmp_path: Path) -> None:
    from redis import Redis

    run(environment, tmp_path, "call", "tasks.wait", "--args=[8]")
    wait_for(lambda: "tasks.wait" in (tmp_path / "worker.log").read_text().partition(" ready.")[2])
    assert drain(environment) == {"answers": True, "messages": 1}
    run(environment, tmp_path, "call", "tasks.wait", "--args=[0]")
    wait_for(lambda: drain(environment) == {"answers": True, "messages": 0})
    assert Redis.from_url(environment["AIRFLOW__CELERY__BROKER_URL"]).llen("default") == 1


def test_worker_that_does_not_run_gives_no_answer(environment: dict[str, str]) -> None:
    assert drain(environment) == {"answers": False}
