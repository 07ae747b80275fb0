"""Restarts what stays unhealthy: three times an hour a service at most, never while an operation switches."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_checker import judge
from airflow_checker.facts import Facts
from airflow_checker.gather.host import Run
from airflow_checker.lights import Finding
from airflow_checker.memory import Memory
from airflow_checker.roles import POSTGRES, REDIS, TUNNEL

MOST = 3
"""Restarts of a service within an hour."""
SETTLE_SECONDS = 150.0
"""For so long after a restart the service is let be: it starts, and its check has to pass first."""


STOPPING_SECONDS = 660.0
"""A worker that was told to stop lets its tasks finish for ten minutes, and answers no check meanwhile."""


def wanted(
    facts: Facts, findings: Sequence[Finding], memory: Memory, never: Sequence[str]
) -> dict[str, list[Finding]]:
    """Return the services to restart now, each with the findings that ask for it."""
    if not facts.docker or facts.stopped or judge.switching(facts.operation):
        return {}
    asked: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.mends and _stands(finding, facts, memory):
            asked.setdefault(finding.mends, []).append(finding)
    return {
        service: asking
        for service, asking in asked.items()
        if service in facts.containers
        # Docker starts what ends by itself; the rest was stopped by somebody, who is told and not overruled.
        and facts.containers[service].state == "running"
        and service not in never
        and memory.restarts(service) < MOST
        and facts.now - max(memory.restarted.get(service) or [0.0]) >= SETTLE_SECONDS
        and _can_be_well(service, facts)
    }


def restart(service: str, run: Run) -> None:
    """Have a unit of the host restart it; nobody waits for that, since a worker may finish its tasks first.

    Raises:
        OSError: systemd refuses.
    """
    run(["systemctl", "start", "--no-block", f"airflow-restart@{service}.service"], 20)


def _stands(finding: Finding, facts: Facts, memory: Memory) -> bool:
    """Docker counts the failures of a health check; anything else has to be seen in two runs."""
    episode = memory.episodes.get(finding.key)
    container = facts.containers.get(finding.mends)
    if episode is None or container is None:
        return False
    if finding.light != "service-unhealthy":
        return episode.runs > 1
    if not judge.is_worker(container):
        return True
    if facts.database is None:
        # A worker host: its tasks are counted, and those that run are worth more than those that wait.
        return facts.tasks == 0
    return not facts.database.running or facts.now - episode.since >= STOPPING_SECONDS


def _can_be_well(service: str, facts: Facts) -> bool:
    """Say whether all that it depends on is well: without Redis no restart helps a worker."""
    needed = facts.containers[service].depends_on
    silent = {POSTGRES: facts.database is None, REDIS: facts.queues is None, TUNNEL: facts.drained is None}
    return all(
        name in facts.containers
        and facts.containers[name].state == "running"
        and facts.containers[name].health in ("healthy", "")
        and not silent.get(name)
        for name in needed
    )
