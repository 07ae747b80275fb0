"""What a worker host asks, which has no database: may its worker take tasks, and does it run any."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from airflow_checker.gather.redis import ask, session

DRAINED = "airflow-platform.drained."
"""Before a worker's name: the key of when it was told to take no more (images/airflow/bin/drain-worker)."""
TASKS = (
    *("sh", "-c"),
    "cat /proc/[0-9]*/cmdline 2>/dev/null | grep --text --only-matching 'airflow task superviso[r]' || true",
)
"""Prints a line for each task that runs in a worker's container: the name of the process that runs it.

The brackets keep the command from finding itself.
"""


def drained(address: str, broker: str, worker: str, *, port: int = 6379, timeout: float = 5) -> float:
    """Return when a worker was last told to take no more tasks, in seconds since the epoch; 0 for never.

    `address` is that of the tunnel, which carries the connection to Redis; `broker` has its password.

    Raises:
        RedisError: the main host does not let this host connect to Redis, or Redis refuses.
    """
    password = unquote(urlsplit(broker).password or "")
    with session(address, password, port=port, timeout=timeout) as stream:
        return float(ask(stream, "GET", DRAINED + worker) or 0)


def parse_tasks(text: str) -> int:
    """Return how many tasks run, from what the command has printed."""
    return len(text.splitlines())
