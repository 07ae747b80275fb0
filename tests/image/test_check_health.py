"""A worker's health check asks for its work: on the real Celery of each Airflow, with a real Redis."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.missing import needs

CHECK = Path(__file__).resolve().parents[2] / "images/airflow/bin/check-health"
NAME = f"celery@{socket.gethostname()}"

pytestmark = [
    pytest.mark.celery,
    needs("redis-server"),
]

TASKS = """
import time
from celery import Celery
from celery.worker.control import control_command
app = Celery("tasks", broker={broker!r})
app.conf.update(task_default_queue="default", worker_prefetch_multiplier=1, task_acks_late=True)

@app.task
def wait(seconds):
    time.sleep(seconds)

@control_command()
def go_deaf(state):
    # What a connection that Redis lost leaves behind: the consumer is there, and no list is read.
    state.consumer.task_consumer.channel._queue_cycle.update([])
    return {{"ok": "deaf"}}
"""

# Process 1 of this machine is no worker.
ASK = """
import importlib.machinery, importlib.util, pathlib, sys
loader = importlib.machinery.SourceFileLoader("check_health", sys.argv[1])
check = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(check)
check.COMMAND = pathlib.Path(sys.argv[2])
sys.exit(check.worker() or 0)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis of this test's own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)])
    wait_for(lambda: answers(port))
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


@pytest.fixture
def environment(tmp_path: Path, broker: str) -> dict[str, str]:
    (tmp_path / "tasks.py").write_text(TASKS.format(broker=broker))
    return {
        **os.environ,
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "604800",
        "PYTHONPATH": str(tmp_path),
    }


@pytest.fixture
def worker(tmp_path: Path, environment: dict[str, str]) -> Iterator[None]:
    """A worker with one slot, which consumes `default`."""
    command = [*celery("worker"), "--loglevel=INFO", "--concurrency=1", f"--hostname={NAME}"]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    wait_for(lambda: " ready." in (tmp_path / "worker.log").read_text())
    yield
    # Its children go with it: they have its process group.
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def celery(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "--app=tasks", *arguments]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check(environment: dict[str, str], *command: str) -> tuple[int, str]:
    """Run the check as in a container with this command."""
    (folder := Path(environment["PYTHONPATH"])).joinpath("command").write_text("\0".join(command))
    asked = subprocess.run(
        [sys.executable, "-B", "-c", ASK, str(CHECK), str(folder / "command")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return asked.returncode, asked.stderr


def run(environment: dict[str, str], folder: Path, *arguments: str) -> None:
    subprocess.run(
        celery(*arguments), env=environment, cwd=folder, check=True, capture_output=True, timeout=60
    )


def test_idle_worker_is_healthy(environment: dict[str, str], worker: None) -> None:
    assert check(environment) == (0, "")


def test_busy_worker_is_healthy_whatever_waits(
    environment: dict[str, str], worker: None, tmp_path: Path
) -> None:
    """Its one slot is taken; what waits, waits rightly."""
    for _ in range(3):
        run(environment, tmp_path, "call", "tasks.wait", "--args=[60]")
    assert check(environment) == (0, "")


def test_worker_whose_consumer_was_cancelled_is_not(
    environment: dict[str, str], worker: None, tmp_path: Path
) -> None:
    """A ping is answered, and tasks pile up."""
    run(environment, tmp_path, "control", "cancel_consumer", "default")
    run(environment, tmp_path, "inspect", "ping")
    code, said = check(environment)
    assert code == 1
    assert "does not consume the queue default" in said
    run(environment, tmp_path, "control", "add_consumer", "default")
    assert check(environment) == (0, "")


@pytest.mark.parametrize("option", [["--queues", "large"], ["-q", "large"], ["--queues=large"]])
def test_queues_are_those_of_the_command(
    option: list[str], environment: dict[str, str], worker: None
) -> None:
    """A second worker may have a queue of its own, and none of the first one's."""
    code, said = check(environment, "airflow", "celery", "worker", *option)
    assert code == 1
    assert "does not consume the queue large" in said


def test_worker_with_a_queue_of_its_own_is_healthy(
    environment: dict[str, str], worker: None, tmp_path: Path
) -> None:
    run(environment, tmp_path, "control", "add_consumer", "large")
    run(environment, tmp_path, "control", "cancel_consumer", "default")
    assert check(environment, "airflow", "celery", "worker", "--queues", "large") == (0, "")
    assert check(environment)[0] == 1


def test_worker_that_takes_nothing_is_not(environment: dict[str, str], worker: None, tmp_path: Path) -> None:
    """It says that it consumes, and answers; but what is in the queue stays there."""
    # The image has both; the control node, which collects these tests, too, has neither.
    from celery import Celery
    from redis import Redis

    broker = environment["AIRFLOW__CELERY__BROKER_URL"]
    assert Celery(broker=broker).control.broadcast("go_deaf", reply=True, timeout=5, limit=1)

    def waits() -> bool:
        # A read that had begun still takes one.
        run(environment, tmp_path, "call", "tasks.wait", "--args=[0]")
        return bool(Redis.from_url(broker).llen("default"))

    wait_for(waits)
    code, said = check(environment)
    assert code == 1
    assert "has free slots and takes nothing from the queue default" in said


def test_silence_is_told(environment: dict[str, str]) -> None:
    code, said = check(environment)
    assert code == 1
    assert "gives no sign of life" in said
