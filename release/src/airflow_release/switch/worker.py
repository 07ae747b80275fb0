"""Lets the tasks of one worker on another host end before it is removed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from airflow_release.core import services
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import SCHEDULER
from airflow_release.switch import drain

POLL_SECONDS = 2


@dataclass(frozen=True)
class Standing:
    """Whether a worker has nothing left to do, and that in words."""

    over: bool
    said: str

    def json(self) -> str:
        """Return it as `airflow-release drain-worker --json` prints it."""
        return json.dumps(asdict(self))


def drain_worker(host: Host, name: str, seconds: float) -> Standing:
    """Have a worker take no more tasks, and wait at most `seconds` for those that it has.

    One that gives no answer in all of that time takes no tasks any more; it is then over as soon as none of
    its tasks has a heartbeat.

    Raises:
        ReleaseError: neither the broker nor the database can be asked.
    """
    asker = _asker(host)
    deadline = time.monotonic() + seconds
    answered = False
    while True:
        answers, messages = _ask(host, asker, name)
        answered = answered or answers
        tasks = drain.under_way(Database(host), of_worker=name)
        if answers and not messages and not tasks:
            return Standing(True, f"{name} takes no more tasks, and has ended all that it had")
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)  # tasks end when they end; neither Celery nor Postgres can call us
    listed = f": {'; '.join(tasks[:10])}" if tasks else ""
    if answered:
        count = max(messages, len(tasks))
        return Standing(False, f"{name} takes no more tasks, and still has {count}{listed}")
    silence = f"{name} has not answered for {seconds:.0f} s"
    if tasks:
        return Standing(False, f"{silence}, and {len(tasks)} tasks of it have a heartbeat{listed}")
    return Standing(True, f"{silence}, and no task of it has a heartbeat")


def _asker(host: Host) -> str:
    """Return a running service that has the broker and Airflow's image."""
    running = host.running()
    for name in services.read(host).of_role(SCHEDULER):
        if name in running:
            return name
    raise ReleaseError(
        "No scheduler runs, through which a worker is told. Start the platform: airflow-release up"
    )


def _ask(host: Host, asker: str, name: str) -> tuple[bool, int]:
    """Return whether the worker answers, and how many messages it has."""
    doing = f"telling the worker {name} to take no more tasks"
    answer = host.compose("exec", "--no-TTY", asker, "drain-worker", name, timeout=60, doing=doing)
    try:
        found = json.loads(answer.strip().splitlines()[-1])
        return bool(found["answers"]), int(found.get("messages", 0))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ReleaseError(f"{doing} gave no answer that can be read: {error}", answer) from None
