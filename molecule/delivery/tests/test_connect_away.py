"""1Password Connect goes away for a while: tasks and a converge go on with what it gave before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_api import wait_for
from delivery import SERVICES, Delivery, docker
from long_tests import when_asked
from test_relay_faults import answers

ROOT = Path(__file__).resolve().parents[3]
ASK = "from connect_secrets import _get; print(len(_get('items')), 'items')"


@contextmanager
def connect_away(delivery: Delivery) -> Iterator[None]:
    """Have all stand-ins stopped; Connect is one of them."""
    docker("stop", "--time", "10", SERVICES)
    try:
        yield
    finally:
        docker("start", SERVICES)
        heartbeat = f"{delivery.connect['OP_CONNECT'].rstrip('/')}/heartbeat"
        wait_for("Connect", lambda: answers(delivery, heartbeat), 30, pause=0.1)


def test_task_uses_what_connect_gave_to_its_worker(delivery: Delivery, execute: Any) -> None:
    """Another process of the worker's container asks, as another task does. About 20 s."""
    before = execute("airflow-worker", "python -c %s", ASK)
    assert before.rc == 0, before.stderr
    with connect_away(delivery):
        meanwhile = execute("airflow-worker", "python -c %s", ASK)
    assert meanwhile.rc == 0, meanwhile.stderr
    assert meanwhile.stdout.splitlines()[-1] == before.stdout.splitlines()[-1]
    assert "does not answer: this task uses what it gave" in meanwhile.stdout + meanwhile.stderr


@when_asked
def test_converge_goes_on_with_what_the_vault_gave(delivery: Delivery) -> None:
    """In check mode, and it says how old the secrets are. About two minutes."""
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "--inventory=inventories/local",
        "--extra-vars=@molecule/delivery/vars/production.yml",
        "--check",
        "site.yml",
    ]
    # Molecule's own settings of Ansible are not an operator's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    with connect_away(delivery):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    words = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr
    assert "with the secrets that the vault gave to this host" in words
