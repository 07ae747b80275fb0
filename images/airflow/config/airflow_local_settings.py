"""Keeps a running task in the tree of DAGs in which it began, while the link `current` moves on.

Airflow reads this file at its start. On a worker every task begins with a fork; in the child the folder of
the DAGs, which leads over the link, becomes the worktree that the link names at that moment.
"""

import os
import sys

from airflow import settings
from airflow.configuration import conf


def pin_tree() -> None:
    """Resolve the DAGs' folder for this process, from the configured path: a parent's tree may be older."""
    configured = conf.get("core", "DAGS_FOLDER")
    tree = os.path.realpath(configured)
    sys.path[:] = [tree if entry in (configured, settings.DAGS_FOLDER) else entry for entry in sys.path]
    settings.DAGS_FOLDER = tree


if os.environ.get("PIN_TREE_PER_TASK"):
    os.register_at_fork(after_in_child=pin_tree)
