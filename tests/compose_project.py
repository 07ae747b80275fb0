"""The Compose template as `docker compose config --format json` prints it, for tests that need its services.

It is rendered without Ansible, which the Pythons of `tests/release/on_other_pythons` do not have; what a host
sets is empty. `tests/policy` compares the services with those that Ansible renders.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jinja2
import yaml

from tests.endpoints import ENDPOINTS
from tests.releases import NEWEST

TEMPLATE = Path(__file__).parents[1] / "templates/srv/airflow/docker-compose.yaml.j2"
UNLABELLED = Path(__file__).parent / "release/unlabelled_project.json"
"""The services of a release from before the label `airflow-platform.role`, as Compose printed them."""

SECOND = "airflow-worker-of-tests"
"""A name that no worker of the template has."""

SECOND_QUEUE = "queue-of-tests"
SECOND_WORKER = f"""
  {SECOND}:
    <<: *airflow-worker
    command: [airflow, celery, worker, --pid, /run/airflow/worker.pid,
      --without-mingle, --without-gossip, --queues, {SECOND_QUEUE}]
"""
"""What somebody adds to the template for a worker with a queue of its own (docs/architecture.md)."""

FACTS = ("image", "command", "labels", "networks", "depends_on", "profiles")

Project = dict[str, Any]


WORKER_HOSTS = ("atd-worker01", "atd-worker02")
"""Names of worker hosts, for a project that has them."""


def project(version: str = NEWEST, more: str = "", hosts: tuple[str, ...] = ()) -> Project:
    """Return the project of an Airflow version, with more services at its end, and with worker hosts."""
    return _with_images(_rendered(more, hosts), version)


def unlabelled_project(version: str = NEWEST) -> Project:
    """Return the project that a release from before the label has."""
    return _with_images(json.loads(UNLABELLED.read_text(encoding="utf-8")), version)


def workers(project: Project) -> dict[str, list[str]]:
    """Return the queues of each worker, by its service: those that its command names, or the default one."""
    found = {}
    for name, service in project["services"].items():
        if service.get("labels", {}).get("airflow-platform.role") == "worker":
            command = service["command"]
            named = command[command.index("--queues") + 1] if "--queues" in command else "default"
            found[name] = named.split(",")
    return found


def enabled(project: Project, profiles: Collection[str] = ()) -> Project:
    """Return the project as Compose prints it when these profiles are on."""
    services = {
        name: service
        for name, service in project["services"].items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }
    return {**project, "services": services}


@functools.cache
def _rendered(more: str, hosts: tuple[str, ...]) -> Project:
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)
    environment.filters |= {
        "comment": lambda text: "#",
        "combine": lambda *parts: {},
        "to_json": json.dumps,
        "hash": lambda text, name: "hash",
    }
    environment.globals["lookup"] = lambda *names, **options: ""
    environment.globals["stack_limits"] = defaultdict(lambda: {"memory_mib": 0, "pids": 0})
    environment.globals["__stack_limited_each"] = {}
    environment.globals["stack_workers"] = [{"name": name} for name in hosts]
    environment.globals["__stack_copy_port"] = 0
    environment.globals["stack_edge_networks"] = [f"edge-{endpoint['name']}" for endpoint in ENDPOINTS]
    text, networks = TEMPLATE.read_text(encoding="utf-8"), "\nnetworks:\n"
    assert text.count(networks) == 1
    text = environment.from_string(text.replace(networks, more + networks)).render()
    services = yaml.safe_load(text)["services"]
    return {"services": {name: _facts(service) for name, service in services.items()}}


def _facts(service: dict[str, Any]) -> dict[str, Any]:
    """Return what programs read of a service."""
    return {name: service[name] for name in FACTS if name in service}


def _with_images(project: Project, version: str) -> Project:
    """Give each service the image that .env names: Airflow's by its version, the others by their name."""
    project = copy.deepcopy(project)
    for name, service in project["services"].items():
        found = re.fullmatch(r"\$\{(\w+)_IMAGE\}", service["image"])
        assert found, (
            f"the image of {name} is {service['image']!r}: write ${{<NAME>_IMAGE}} in {TEMPLATE.name}, "
            "and give that variable a line in templates/srv/airflow/.env.j2"
        )
        service["image"] = f"airflow:{version}" if found[1] == "AIRFLOW" else f"{found[1].lower()}:1"
    return project
