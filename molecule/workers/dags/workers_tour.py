"""The DAG `workers-tour`: what a task does on a worker host. A run is triggered with a text of its own."""

from __future__ import annotations

import socket

import pendulum
from airflow.decorators import dag, task
from airflow.providers.docker.operators.docker import DockerOperator

# Prints a line, and ends well when it is stopped.
PROGRAM = """\
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("in a container", flush=True)
signal.alarm(150)
signal.pause()
"""


@dag(
    dag_id="workers-tour",
    schedule=None,
    start_date=pendulum.datetime(2024, 1, 1),
    default_args={"retries": 0, "queue": "atd-worker01"},
    tags=["workers"],
)
def workers_tour() -> None:
    """Print the text, hand it on, map a task, and run a container."""

    @task
    def say(dag_run: object = None) -> dict[str, str]:
        """Return the text and the host's name."""
        text = dag_run.conf["text"]
        print(f"On {socket.gethostname()} a task says {text}", flush=True)
        return {"host": socket.gethostname(), "text": text}

    @task
    def double(number: int) -> int:
        """Return twice the number."""
        return 2 * number

    @task
    def conclude(numbers: list[int], said: dict[str, str]) -> dict[str, object]:
        """Return what came in."""
        return {"total": sum(numbers), "said": said["text"]}

    conclude(double.expand(number=[1, 2, 3]), say())
    DockerOperator(
        task_id="contain",
        image="{{ var.value.weather_annotate_image }}",
        container_name="workers-tour",
        entrypoint=["python3", "-c"],
        command=[PROGRAM],
        api_version="auto",
        auto_remove="success",
        mount_tmp_dir=False,
    )


workers_tour()
