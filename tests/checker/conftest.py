"""A host that is well: facts, and doubles of what is asked for them."""

from __future__ import annotations

import dataclasses
from typing import Any

from airflow_checker import roles
from airflow_checker.facts import Connect, Container, Database, Disk, Facts, Service, Unit
from airflow_checker.judge import DAY

NOW = 1_800_000_000.0
SERVICES = {"postgres": "pg:1", "redis": "redis:1", "airflow-scheduler": "airflow:1"}
SERVICES.update({"airflow-triggerer": "airflow:1", "airflow-worker": "airflow:1", "weather": "nginx:1"})
SERVICES.update({"haproxy": "haproxy:1", "webhook": "webhook:1"})


def container(service: str, **changes: Any) -> Container:
    """A healthy container of a service."""
    worker = service == "airflow-worker"
    values: dict[str, Any] = {
        "service": service,
        "id": f"id-of-{service}",
        "image": SERVICES.get(service, ""),
        "started": NOW - DAY,
        "command": ("airflow", "celery", "worker") if worker else ("run",),
        "depends_on": ("postgres", "redis") if service.startswith("airflow-") else (),
        "environment": {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "4"} if worker else {},
    }
    return Container(**{**values, **changes})


def containers(**changes: dict[str, Any]) -> dict[str, Container]:
    """All services' containers; what is other for one, by its name with underscores."""
    return {name: container(name, **changes.get(name.replace("-", "_"), {})) for name in SERVICES}


def wanted(name: str, image: str, labels: dict[str, str] | None = None) -> Service:
    """A service of the project."""
    return Service(image, roles.role(name, labels or {}))


def well(**changes: Any) -> Facts:
    """What is observed on a host where nothing is wrong."""
    facts = Facts(
        now=NOW,
        services={name: wanted(name, image) for name, image in SERVICES.items()},
        containers=containers(),
        units=[Unit("docker.service"), Unit("airflow-backup.timer", sub="waiting", next=NOW + 60)],
        database=Database(size=10**8, scheduler_age=3, triggerer_age=3, parsed_age=20),
        queues={"default": 0},
        disks=[Disk("/", 10**11, 5 * 10**10, 10**6, 9 * 10**5)],
        certificate_ends=NOW + 90 * DAY,
        connect=Connect(status=200, clock=0.2, token_ends=NOW + 60 * DAY),
        clock_synchronised=True,
        backup={"last_good": {"at": NOW - 3600, "off_host": True}},
        version="2.11.2",
        recorded_version="2.11.2",
    )
    return dataclasses.replace(facts, **changes)


def database_of(**changes: Any) -> Database:
    """What the tables of a healthy Airflow say, but for the changes."""
    known = well().database
    assert known is not None
    return dataclasses.replace(known, **changes)
