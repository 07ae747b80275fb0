"""1Password Connect goes away for a while: tasks and a converge go on with what it gave before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow_api import wait_for
from delivery import HOST, SERVICES, Delivery, docker
from long_tests import when_asked

from sandbox.connect import AWAY

ROOT = Path(__file__).resolve().parents[3]
HEALTH = "/usr/local/bin/airflow-release health"
FILE = f"/var/lib/sandbox/{AWAY}"
ASK = (
    # Airflow comes first: its configuration imports the backend, and the backend Airflow.
    "import airflow; from connect_secrets import ConnectBackend; "
    "print('the vault says', ConnectBackend().get_variable('no such variable'))"
)


@pytest.fixture
def connect_away(delivery: Delivery) -> Iterator[Any]:
    """Return a context in which Connect answers 503 to the host and to the control node."""
    heartbeat = f"{delivery.connect['OP_CONNECT'].rstrip('/')}/heartbeat"

    @contextmanager
    def away() -> Iterator[None]:
        docker("exec", SERVICES, "touch", FILE)
        try:
            assert delivery.http("GET", heartbeat).status_code == 503
            yield
        finally:
            docker("exec", SERVICES, "rm", FILE)
        assert delivery.http("GET", heartbeat).status_code == 200

    return away


def test_task_uses_what_connect_gave_to_its_worker(connect_away: Any, execute: Any) -> None:
    """Another process of the worker's container asks, as another task does. About 20 s."""
    before = execute("airflow-worker", "python -c %s", ASK)
    assert before.rc == 0, before.stderr
    assert "does not answer" not in before.stdout + before.stderr
    with connect_away():
        meanwhile = execute("airflow-worker", "python -c %s", ASK)
    assert meanwhile.rc == 0, meanwhile.stderr
    assert "the vault says None" in before.stdout
    assert "the vault says None" in meanwhile.stdout
    assert "does not answer: this task uses what it gave" in meanwhile.stdout + meanwhile.stderr


@when_asked
def test_host_comes_back_without_connect(
    connect_away: Any, delivery: Delivery, execute: Any, checker: Any
) -> None:
    """Its services need no Connect to start; a task's log says why it has no secret. About three minutes."""
    with connect_away():
        # Seconds for a clean shutdown.
        docker("restart", "-t", "120", HOST, seconds=180)
        wait_for("every service to be healthy", lambda: delivery.host.run(HEALTH).rc == 0, 180, pause=2)
        checker.look()
        [silent] = [one["what"] for one in checker.health["findings"] if one["id"] == "connect-silent"]
        task = execute("airflow-worker", "python -c %s", ASK)
    assert re.search(r"The vault gave the platform its secrets .+ ago\.", silent)
    assert task.rc != 0
    assert "or since its container started" in task.stdout + task.stderr
    again = execute("airflow-worker", "python -c %s", ASK)
    assert "the vault says None" in again.stdout, again.stderr


@when_asked
def test_converge_goes_on_with_what_the_vault_gave(connect_away: Any) -> None:
    """It gets to its end, and says twice how old the secrets are. About two minutes."""
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "--inventory=inventories/local",
        "--extra-vars=@molecule/delivery/vars/production.yml",
        "site.yml",
    ]
    # Molecule's own settings of Ansible are not an operator's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with connect_away():
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
    words = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr
    assert words.count("goes on with the secrets that the vault gave to this host") == 2
