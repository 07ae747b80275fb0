"""Has each process of a task keep its connection to Airflow's database for the next query.

Airflow connects anew for each session of a task, about twenty times for a task that does nothing: else a task
could keep many connections open. A task's process keeps one, and closes more than one after use as before.
SQLAlchemy finds this class by the name that `airflow_local_settings.py` registers.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.pool import NullPool, QueuePool

ONE_KEPT: dict[str, Any] = {
    "poolclass": QueuePool,
    "pool_size": 1,
    "max_overflow": -1,
    # A connection that Postgres has closed meanwhile, as in a restart, is replaced before it is used.
    "pool_pre_ping": True,
}


class TaskConnection(CreateEnginePlugin):
    """Give an engine that would keep no connection one that it keeps; leave other engines as they are."""

    def __init__(self, url: Any, arguments: dict[str, Any]) -> None:
        """Change the arguments of `create_engine`, which SQLAlchemy gives to its plugins for that."""
        if arguments.get("poolclass") is NullPool:
            arguments.update(ONE_KEPT)

    def update_url(self, url: Any) -> Any:
        """Leave the address as it is."""
        return url
