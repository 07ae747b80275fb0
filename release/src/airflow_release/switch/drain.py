"""Lets running tasks end before the workers are stopped, so that no task fails because of a switch."""

from __future__ import annotations

import time

from airflow_release.core.database import LIVE, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.services import GATEWAY, SCHEDULER, TRIGGERER, WORKER, Services
from airflow_release.switch import stack

UNDER_WAY = """
SELECT ti.dag_id || '.' || ti.task_id || ' (' || ti.run_id || '), ' || ti.state
FROM task_instance ti LEFT JOIN job ON job.id = ti.job_id
WHERE ti.state IN ('running', 'restarting') AND job.latest_heartbeat > now() - interval '5 minutes'
{more}
ORDER BY 1
"""
"""Tasks that a worker has or will get. A running one without a heartbeat has no process any more: Airflow
calls it a zombie after five minutes, and it must not hold up a switch for ever."""


def drain(database: Database, services: Services, seconds: float, *, terminate: bool, replaced: bool) -> str:
    """Stop scheduling, wait for the tasks under way, stop or shut out the workers; return what happened.

    With `terminate`, tasks that are left after `seconds` are ended, and retried as their DAGs say.
    With `replaced` the database is about to be replaced by another one, perhaps because it is damaged: what
    waits in its queue is not waited for, and neither is anything when it cannot say what runs.

    Raises:
        ReleaseError: tasks were left, and may not be ended.
    """
    host = database.host
    schedulers, workers = services.of_role(SCHEDULER), services.of_role(WORKER)
    started = time.monotonic()
    notes: list[str] = []
    while True:
        # Each time: somebody may have started it again, by `docker compose up` on the host.
        running = set(host.running())
        stack.stop(host, *(name for name in schedulers if name in running))
        try:
            # Without its worker a queue would never be empty. The next release queues its tasks again.
            queued = bool(workers) and running.issuperset(workers) and not replaced
            tasks = under_way(database, queued=queued)
        except ReleaseError as error:
            if not replaced:
                raise
            notes.append(f"the database does not say which tasks run ({error})")
            tasks = []
        if not tasks:
            break
        if time.monotonic() - started > seconds:
            if not terminate:
                raise ReleaseError(
                    f"{len(tasks)} tasks were still under way after {seconds:.0f} s: "
                    f"{'; '.join(tasks[:10])}. Give them more time with upgrade_drain_timeout (seconds), or "
                    "have them ended and retried with upgrade_on_drain_timeout=terminate."
                )
            break
        time.sleep(0.5)  # tasks end when they end; Postgres cannot call us
    # A worker that is asked to stop takes nothing more and finishes what it has.
    stack.stop(host, *workers, *services.of_role(TRIGGERER), seconds=30)
    # Those of other hosts are shut out. HAProxy's own way to end waits for their connections, which stay.
    stack.stop(host, *services.of_role(GATEWAY), seconds=0)
    notes.append(f"ended {len(tasks)} tasks: {'; '.join(tasks[:10])}" if tasks else "every task finished")
    return "; ".join(notes)


def under_way(database: Database, *, queued: bool = False, of_worker: str = "") -> list[str]:
    """Return the tasks that run, all or those of a worker; with `queued` also those that wait in a queue."""
    more = "OR ti.state = 'queued'" if queued else f"AND ti.hostname = '{of_worker}'" if of_worker else ""
    # It reads by index what is under way. What takes longer waits for a lock, or for an ill disk.
    limits = "SET statement_timeout = '60s'; SET lock_timeout = '30s';"
    return database.sql(limits + UNDER_WAY.format(more=more), LIVE, timeout=120).splitlines()
