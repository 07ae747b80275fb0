"""A worker that was killed starts again: its pidfile does not outlive the container's processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMPOSE = Path(__file__).resolve().parents[2] / "templates/srv/airflow/docker-compose.yaml.j2"
EMPTY_AT_EVERY_START = Path("/run/airflow")
"""The tmpfs of the Airflow containers."""

# `airflow` where no database answers: no task is run here, and a worker asks it nothing else.
AIRFLOW = """
from airflow.utils import db
db.check_and_run_migrations = db.synchronize_log_template = lambda *arguments, **options: None
from airflow.__main__ import main
main()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a worker needs to start: a broker in its own memory, and settings of nobody else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:9/airflow",
        "AIRFLOW__CELERY__BROKER_URL": "memory://",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+sqlite:///{tmp_path}/results.db",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def command(tmpfs: Path) -> list[str]:
    """Return the service's command, with its tmpfs elsewhere."""
    [text] = re.findall(r"^    command: \[(airflow, celery, worker.*)\]$", COMPOSE.read_text(), re.MULTILINE)
    words = [word.replace(str(EMPTY_AT_EVERY_START), str(tmpfs)) for word in text.split(", ")[1:]]
    return [sys.executable, "-c", AIRFLOW, *words, "--skip-serve-logs"]


@contextmanager
def started(environment: dict[str, str], tmpfs: Path) -> Iterator[tuple[bool, str]]:
    """Start a worker, tell whether it came to take tasks, and kill it as a power cut does."""
    worker = subprocess.Popen(
        command(tmpfs),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert worker.stdout is not None
    output, ready = "", False
    try:
        for line in worker.stdout:
            output += line
            if ready := re.search(r"celery@\S+ ready\.$", line) is not None:
                break
        yield ready, output
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()


def test_killed_worker_starts_again(environment: dict[str, str], tmp_path: Path) -> None:
    """Its processes have the numbers of those before, so what a pidfile names is alive."""
    home, tmpfs = tmp_path / "home", tmp_path / "run"
    tmpfs.mkdir()
    with started(environment, tmpfs) as (ready, output):
        assert ready, output
    # What a container's next start finds: the tmpfs is empty, the rest is as it was.
    shutil.rmtree(tmpfs)
    tmpfs.mkdir()
    for pidfile in home.rglob("*.pid"):
        pidfile.write_text(f"{os.getpid()}\n")
    with started(environment, tmpfs) as (ready, output):
        assert ready, output
