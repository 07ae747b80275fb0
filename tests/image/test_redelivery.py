"""When Redis delivers a task again: after the longest time that a task may run, and not before."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.missing import missing

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/stack"
OPTION = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"
MINUTE, DAY = 60, 86400

# A worker takes a message and works on it. Time passes: the clock of what is taken and not confirmed is the
# score in this sorted set. Then another worker looks for what has been forgotten, as each does all the time.
STORY = """
import json, sys
try:
    from airflow.providers.celery.executors.celery_executor import app
except ImportError:
    from airflow.executors.celery_executor import app
answers = []
for passed in json.loads(sys.argv[1]):
    with app.connection() as connection, connection.clone() as other:
        worker, colleague = connection.channel(), other.channel()
        worker.client.flushdb()
        queue = connection.SimpleQueue("default", channel=worker)
        queue.put("a task")
        assert queue.get(timeout=10).payload == "a task"
        assert worker.client.zcard(worker.unacked_index_key) == 1
        for tag in worker.client.zrange(worker.unacked_index_key, 0, -1):
            worker.client.zincrby(worker.unacked_index_key, -passed, tag)
        colleague.qos.restore_visible(interval=1)
        answers.append(worker.client.llen("default"))
print(json.dumps(answers))
"""


@pytest.fixture
def redis() -> Iterator[int]:
    """A real Redis; its port."""
    program = shutil.which("redis-server")
    if program is None:
        missing("no Redis server here: run bin/setup --tests")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert any("Ready to accept connections" in line for line in server.stdout)
            yield port
        finally:
            server.terminate()


def settings() -> dict[str, Any]:
    """Return the broker's limit as the role sets it, where an operator sets nothing else."""
    stack = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__stack_airflow_settings"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    set_to = stack.get(OPTION)
    return {OPTION: str(defaults[set_to.strip("{} ")])} if set_to else {}


def test_task_is_delivered_again_after_a_week_and_not_before(redis: int, tmp_path: Path) -> None:
    """Airflow's own limit is six hours on 2.5.3 and 2.6.1, and a day on 2.11.2."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= settings() | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+sqlite:///{tmp_path}/results.db",
    }
    after = {6 * 3600 + MINUTE: 0, 2 * DAY: 0, 7 * DAY - MINUTE: 0, 7 * DAY + MINUTE: 1}
    told = subprocess.run(
        [sys.executable, "-c", STORY, json.dumps(list(after))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout.splitlines()[-1]) == list(after.values())


# A task that a worker took two hours ago and still works on: the process ends without a word to Redis.
TAKE = """
import os, sys
from celery import Celery
with Celery(broker=sys.argv[1]).connection() as connection:
    worker = connection.channel()
    queue = connection.SimpleQueue("default", channel=worker)
    queue.put("a task")
    assert queue.get(timeout=10).payload == "a task"
    for tag in worker.client.zrange(worker.unacked_index_key, 0, -1):
        worker.client.zincrby(worker.unacked_index_key, -7200, tag)
    os._exit(0)
"""
WAITING = "import redis, sys; print(redis.Redis.from_url(sys.argv[1]).llen('default'))"


def flower_environment() -> dict[str, str]:
    """Return what the service gives Flower beside the broker's address."""
    template = (ROOT / "templates/srv/airflow/docker-compose.yaml.j2").read_text(encoding="utf-8")
    service = template[template.index("\n  flower:\n") :]
    block = service[service.index("    environment:\n") : service.index("    env_file:")]
    found = dict(re.findall(r"^      (\w+): \"?(.*?)\"?$", block, re.MULTILINE))
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    found = {name: str(defaults.get(value.strip("{} "), value)) for name, value in found.items()}
    if "PYTHONPATH" in found:
        found["PYTHONPATH"] = str(ROOT / "images/airflow/config")
    return found


@pytest.mark.celery
def test_question_of_flower_delivers_nothing_again(redis: int, tmp_path: Path) -> None:
    """It is Celery's own program with Celery's own settings, by which a task has an hour."""
    address = f"redis://127.0.0.1:{redis}/0"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {**flower_environment(), "CELERY_BROKER_URL": address, "HOME": str(tmp_path)}

    def python(program: str) -> str:
        return subprocess.check_output([sys.executable, "-c", program, address], text=True, timeout=120)

    python(TAKE)
    celery = str(Path(sys.executable).parent / "celery")
    asked = subprocess.run(
        [celery, "inspect", "ping", "--timeout=1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "No nodes replied" in asked.stdout + asked.stderr
    assert python(WAITING) == "0\n"


@pytest.mark.celery
def test_health_check_delivers_nothing_again(redis: int, tmp_path: Path) -> None:
    """It asks every 30 seconds, through Celery without Airflow."""
    address = f"redis://127.0.0.1:{redis}/0"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= settings() | {"AIRFLOW__CELERY__BROKER_URL": address, "HOME": str(tmp_path)}

    def python(program: str) -> str:
        return subprocess.check_output([sys.executable, "-c", program, address], text=True, timeout=120)

    python(TAKE)
    check = [sys.executable, str(ROOT / "images/airflow/bin/check-health"), "worker"]
    asked = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=120)
    assert "gives no sign of life" in asked.stderr
    assert python(WAITING) == "0\n"
