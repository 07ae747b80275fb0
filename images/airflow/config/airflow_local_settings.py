"""What Airflow's processes do at their forks: leave the parent's connections, and keep a task's DAGs.

Airflow reads this file at its start. On a worker every task begins with a fork; in the child the folder of
the DAGs, which leads over the link `current`, becomes the worktree that the link names at that moment. What
tasks would do again and again, the worker does once before its forks. The scheduler does the same for DAG
files: its DAG processor forks for each file that it parses.
"""

import contextlib
import functools
import importlib
import os
import socket
import sys
from typing import Any

from airflow import settings
from airflow.configuration import conf
from sqlalchemy.dialects import plugins as engine_plugins
from sqlalchemy.orm import configure_mappers


def leave_connections() -> None:
    """Forget the pooled connections of the parent, without closing them.

    Airflow forks the scheduler's health server with them. Whichever process then reads first gets the other's
    answer, and the scheduler waits for its own for ever. See SQLAlchemy, "Using Connection Pools with
    Multiprocessing or os.fork()".
    """
    if settings.engine is not None:
        settings.engine.dispose(close=False)


def get_airflow_context_vars(context: dict[str, Any]) -> dict[str, str]:
    """Have a task's Docker clients name DAG, task and worker in their requests, for the filter.

    Airflow calls this hook just before a task runs, in the task's own process. It adds no variable. The
    connection that the process has kept ends here: while the task's own code runs, it may need none.
    """
    settings.engine.dispose()
    client, task = sys.modules.get("docker.api.client"), context.get("ti")
    if client is not None and task is not None:
        # A header is ASCII, and a DAG's name need not be.
        name = f"{task.dag_id}/{task.task_id}".encode("ascii", "backslashreplace").decode()
        create = client.APIClient.__init__

        def create_named(self: Any, *arguments: Any, **options: Any) -> None:
            create(self, *arguments, **options)
            self.headers["Airflow-Task"] = name
            self.headers["Airflow-Worker"] = socket.gethostname()

        client.APIClient.__init__ = create_named
    return {}


def pin_tree() -> None:
    """Resolve the DAGs' folder for this process, from the configured path: a parent's tree may be older."""
    configured = conf.get("core", "DAGS_FOLDER")
    tree = os.path.realpath(configured)
    sys.path[:] = [tree if entry in (configured, settings.DAGS_FOLDER) else entry for entry in sys.path]
    settings.DAGS_FOLDER = tree


IMPORTED_BY_EVERY_TASK = (
    "airflow.cli.commands.task_command",
    "airflow.decorators",
    "airflow.sensors.base",
    "airflow.task.task_runner.standard_task_runner",
    "airflow.ti_deps.deps.ready_to_reschedule",
)
"""What Airflow itself does not import before the worker forks. A release without one of them works, too."""

IMPORTED_FOR_EVERY_FILE = (
    "airflow.decorators",
    "airflow.models.dagwarning",
    "airflow.models.errors",
    "airflow.models.serialized_dag",
    "airflow.operators.empty",
    "airflow.operators.subdag",
    "airflow.operators.trigger_dagrun",
    "airflow.sensors.external_task",
    "airflow.version",
    "jsonschema",
    "tenacity",
    # Who may see a DAG: to 2.7, from 2.8 on, and from 2.9 on.
    "airflow.www.security",
    "airflow.www.fab_security.sqla.models",
    "airflow.www.security_appless",
    "airflow.providers.fab.auth_manager.models",
    "airflow.providers.fab.auth_manager.security_manager.override",
)
"""What Airflow imports in the process that parses a DAG file and writes what it found to the database."""


def prepare(modules: tuple[str, ...]) -> None:
    """Import these modules, and have SQLAlchemy configure the models, which it does at the first query."""
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    configure_mappers()


def prepare_for_tasks(**_: Any) -> None:
    """Prepare the worker's parent process, at Celery's signal."""
    prepare(IMPORTED_BY_EVERY_TASK)


@functools.cache
def prepare_for_files() -> None:
    """Prepare the scheduler, once: at its first fork, which makes the DAG processor."""
    prepare(IMPORTED_FOR_EVERY_FILE)


os.register_at_fork(after_in_child=leave_connections)
if os.environ.get("PREPARE_FOR_DAG_FILES"):
    os.register_at_fork(before=prepare_for_files)
if os.environ.get("PIN_TREE_PER_TASK"):
    from celery.signals import worker_init  # other services need nothing of Celery at their start

    os.register_at_fork(after_in_child=pin_tree)
    engine_plugins.register("task_connection", "task_connection", "TaskConnection")
    DEFAULT_ENGINE_ARGS = {
        database: {**arguments, "plugins": ["task_connection"]}
        for database, arguments in settings.DEFAULT_ENGINE_ARGS.items()
    }
    worker_init.connect(prepare_for_tasks, weak=False)
