"""Needs Airflow and pytest, nothing else; see pytest.ini for how to run it."""

import importlib.util
import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.missing import missing

LOCKS = Path(__file__).resolve().parents[2] / "images/airflow/locks"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[4]))

if importlib.util.find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            "tests/image: not run, Airflow is not installed here. `bin/test --fast` installs it; "
            "then run .cache/airflow-<version>/bin/python -m pytest tests/image"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs Celery and no Airflow once for each Celery: with the first Airflow that has it."""
    of_celery = [item for item in items if item.get_closest_marker("celery")]
    if of_celery and (first := first_with_this_celery()) != metadata.version("apache-airflow"):
        skip = pytest.mark.skip(reason=f"Airflow {first}, with which this runs, has the same Celery")
        for item in of_celery:
            item.add_marker(skip)


def first_with_this_celery() -> str:
    """Return the first tested Airflow whose lock has this Celery; this Airflow's version if none has."""
    own = {name: metadata.version(name) for name in ("celery", "kombu", "redis")}
    for lock in sorted(LOCKS.glob("*.txt")):
        pins = dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
        if own.items() <= pins.items():
            return lock.stem
    return metadata.version("apache-airflow")


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, str]]:
    """The environment in which programs find a Postgres that has the tables of this Airflow in `empty`.

    Airflow's own database there is `airflow`, which a test makes.
    """
    if not PROGRAMS:
        missing("there is no Postgres on this machine")
    programs = PROGRAMS[-1]
    # Postgres refuses to be root's.
    user = pwd.getpwnam("postgres").pw_name if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        environment = {
            **os.environ,
            "PATH": f"{folder}:{programs}:{os.environ['PATH']}",
            "HOME": folder,
            "PGHOST": folder,
            "PGUSER": "airflow",
            "AIRFLOW_HOME": f"{folder}/airflow",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        }

        def run(*command: str, owner: str | None = user, database: str = "airflow") -> None:
            address = f"postgresql+psycopg2://airflow@/{database}?host={folder}"
            done = subprocess.run(
                command,
                user=owner,
                cwd=folder,
                env={**environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr

        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = (
            f"postgresql+psycopg2://airflow@/airflow?host={folder}"
        )
        data = f"{folder}/data"
        run(f"{programs}/initdb", f"--pgdata={data}", "--username=airflow", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        start = [f"{programs}/pg_ctl", f"--pgdata={data}", "--wait", f"--log={folder}/log"]
        run(*start, f"--options={options}", "start")
        try:
            run("createdb", "empty")
            run(
                sys.executable,
                "-c",
                "from airflow.utils.db import upgradedb; upgradedb()",
                owner=None,
                database="empty",
            )
            yield environment
        finally:
            run(f"{programs}/pg_ctl", f"--pgdata={data}", "--wait", "--mode=immediate", "stop")
