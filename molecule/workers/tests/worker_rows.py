"""What the status page says of worker hosts."""

from __future__ import annotations

from typing import Any

from airflow_api import wait_for
from delivery import PATIENCE, Delivery


def row(delivery: Delivery, name: str) -> dict[str, Any]:
    """Return what the status page says of a worker."""
    return next(row for row in delivery.page()["workers"] if row["name"] == name)


def wait_for_state(delivery: Delivery, name: str, state: str) -> None:
    """Wait until the status page says so of a worker."""
    wait_for(f"{name} to be {state}", lambda: row(delivery, name)["state"] == state, PATIENCE, pause=0.25)
