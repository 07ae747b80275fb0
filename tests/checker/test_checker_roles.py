"""The services of the Compose template, with a second worker or without labels, as the checker sees them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from airflow_checker import judge, mend, report
from airflow_checker.facts import Container, Facts
from airflow_checker.gather import docker, host
from airflow_checker.judge import Trends
from airflow_checker.lights import Finding
from airflow_checker.memory import Memory
from airflow_checker.roles import SCHEDULER, TRIGGERER, WORKER
from airflow_checker.settings import Settings

from tests import compose_project
from tests.checker.conftest import NOW, database_of, well

FIRST, SECOND = "airflow-worker", compose_project.SECOND
TWO_WORKERS = compose_project.project(more=compose_project.SECOND_WORKER)
WORKERS = compose_project.workers(TWO_WORKERS)
"""Each of the template, and one more."""
PROJECTS = {"two workers": TWO_WORKERS, "no labels": compose_project.unlabelled_project()}


def container(name: str, definition: dict[str, Any], **changes: Any) -> Container:
    """The container that Compose makes of a service, as Docker shows it."""
    waits = ",".join(f"{other}:service_healthy:true" for other in definition.get("depends_on") or ())
    labels = {
        **(definition.get("labels") or {}),
        "com.docker.compose.service": name,
        "com.docker.compose.depends_on": waits,
    }
    command = definition.get("command")
    shown = {
        "Id": name,
        "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00Z", "Health": {"Status": "healthy"}},
        "Config": {"Image": definition["image"], "Cmd": command, "Labels": labels, "Env": SLOTS},
    }
    return dataclasses.replace(docker.parse(shown), **changes)


SLOTS = ["AIRFLOW__CELERY__WORKER_CONCURRENCY=4"]


def facts_of(project: compose_project.Project, **changes: dict[str, Any]) -> Facts:
    """A host on which this project runs and is well; what is other for one service, by its name."""
    enabled = compose_project.enabled(project)
    services = host.project(lambda command, timeout: json.dumps(enabled), Path("/srv/airflow"))
    containers = {
        name: container(name, definition, **changes.get(name, {}))
        for name, definition in enabled["services"].items()
    }
    return well(services=services, containers=containers)


def found(facts: Facts) -> list[Finding]:
    return judge.judge(facts, Trends())


@pytest.mark.parametrize("project", PROJECTS)
def test_platform_that_is_well(project: str) -> None:
    facts = facts_of(PROJECTS[project])
    assert found(facts) == []
    assert [facts.wanted(role) for role in (SCHEDULER, TRIGGERER)] == [
        ["airflow-scheduler"],
        ["airflow-triggerer"],
    ]
    assert facts.wanted(WORKER) == (sorted(WORKERS) if project == "two workers" else [FIRST])


@pytest.mark.parametrize("project", PROJECTS)
def test_scheduler_and_triggerer_are_judged(project: str) -> None:
    silent = database_of(scheduler_age=100.0, triggerer_age=100.0)
    findings = found(dataclasses.replace(facts_of(PROJECTS[project]), database=silent))
    assert [(one.light, one.mends) for one in findings] == [
        ("scheduler-silent", "airflow-scheduler"),
        ("triggerer-silent", "airflow-triggerer"),
    ]


@pytest.mark.parametrize("project", PROJECTS)
def test_what_follows_from_the_database_is_said(project: str) -> None:
    ill = {name: {"health": "unhealthy"} for name in ("airflow-scheduler", FIRST)}
    facts = dataclasses.replace(facts_of(PROJECTS[project], **ill), database=None)
    assert {one.key: one.follows for one in found(facts)} == {
        "database-silent": False,
        "service-unhealthy airflow-scheduler": True,
        f"service-unhealthy {FIRST}": True,
    }


def test_second_worker_is_shown_with_its_queue() -> None:
    facts = facts_of(TWO_WORKERS)
    shown = report.build(facts, [], Memory(), Settings())
    assert SECOND in [row["name"] for row in shown["services"]]
    assert WORKERS[SECOND] == [compose_project.SECOND_QUEUE]
    assert shown["figures"]["workers"] == [
        {"service": name, "queues": queues, "slots": 4} for name, queues in sorted(WORKERS.items())
    ]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"state": "exited"}, f"service-down {SECOND}"),
        ({"health": "unhealthy", "failing": 2}, f"service-unhealthy {SECOND}"),
        ({"image": "airflow:2.5.3"}, f"image-differs {SECOND}"),
    ],
)
def test_second_worker_is_judged(change: dict[str, Any], key: str) -> None:
    assert [one.key for one in found(facts_of(TWO_WORKERS, **{SECOND: change}))] == [key]


@pytest.mark.parametrize(("queue", "worker"), [("default", FIRST), (compose_project.SECOND_QUEUE, SECOND)])
def test_worker_is_restarted_for_the_tasks_of_its_own_queue(queue: str, worker: str) -> None:
    facts = dataclasses.replace(
        facts_of(TWO_WORKERS), database=database_of(oldest_queued={queue: 181.0}, running=4)
    )
    [finding] = found(facts)
    assert (finding.key, finding.mends) == (f"tasks-wait {queue}", worker)


@pytest.mark.parametrize(("running", "restarted"), [(0, [SECOND]), (1, [])])
def test_second_worker_has_time_for_its_tasks(running: int, restarted: list[str]) -> None:
    """While it stops it answers no check, and its tasks may take ten minutes."""
    facts = dataclasses.replace(
        facts_of(TWO_WORKERS, **{SECOND: {"health": "unhealthy", "failing": 2}}),
        database=database_of(running=running),
    )
    memory = Memory(now=NOW)
    findings = found(facts)
    memory.see(findings, blind=False)
    assert list(mend.wanted(facts, findings, memory, ("postgres",))) == restarted
