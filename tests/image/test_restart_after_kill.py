"""What was killed starts again: its pidfile does not outlive the container's processes."""

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

# `airflow` where no database answers: neither program asks it anything before it is ready.
AIRFLOW = """
from airflow.utils import db
db.check_and_run_migrations = db.synchronize_log_template = lambda *arguments, **options: None
from airflow.__main__ import main
main()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What they need to start: a broker in the worker's own memory, and settings of nobody else."""
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
        "AIRFLOW__WEBSERVER__SECRET_KEY": "a key",
        "PYTHONUNBUFFERED": "1",
    }


READY = {"celery, worker": r"celery@\S+ ready\.$", "webserver": r"Running the Gunicorn Server with:$"}
"""What each says once no pidfile is in its way."""


def command(program: str, tmpfs: Path) -> list[str]:
    """Return the service's command, as it is without worker hosts, with its tmpfs elsewhere."""
    compose = COMPOSE.read_text().replace("{{ __stack_queue_options }}", "")
    [text] = re.findall(rf"^    command: \[airflow, ({program}, .*)\]$", compose, re.MULTILINE)
    return [word.replace(str(EMPTY_AT_EVERY_START), str(tmpfs)) for word in text.split(", ")]


@contextmanager
def started(environment: dict[str, str], program: str, words: list[str]) -> Iterator[tuple[bool, str]]:
    """Start it, tell whether it came past the pidfile, and kill it as a power cut does."""
    running = subprocess.Popen(
        [sys.executable, "-c", AIRFLOW, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    output, ready = "", False
    try:
        for line in running.stdout:
            output += line
            if ready := re.search(READY[program], line) is not None:
                break
        yield ready, output
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        running.stdout.close()


def test_killed_worker_starts_again(environment: dict[str, str], tmp_path: Path) -> None:
    """Its processes have the numbers of those before, so what a pidfile names is alive."""
    home, tmpfs = tmp_path / "home", tmp_path / "run"
    words = [*command("celery, worker", tmpfs), "--skip-serve-logs"]
    tmpfs.mkdir()
    with started(environment, "celery, worker", words) as (ready, output):
        assert ready, output
    # What a container's next start finds: the tmpfs is empty, the rest is as it was.
    shutil.rmtree(tmpfs)
    tmpfs.mkdir()
    for pidfile in home.rglob("*.pid"):
        pidfile.write_text(f"{os.getpid()}\n")
    with started(environment, "celery, worker", words) as (ready, output):
        assert ready, output


def test_killed_webserver_starts_again(environment: dict[str, str], tmp_path: Path) -> None:
    """Where its command names no pidfile, Airflow 2.5.3 puts one where it stays, and refuses to start."""
    home, tmpfs = tmp_path / "home", tmp_path / "run"
    words = command("webserver", tmpfs)
    for folder in (home, tmpfs):
        folder.mkdir()
    (home / "airflow-webserver.pid").write_text(f"{os.getpid()}\n")
    with started(environment, "webserver", words) as (ready, output):
        assert ready, output
