"""The Compose template as the catalogue of services: what programs on the host read of it is right."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from airflow_checker import roles as checker_roles
from airflow_release.core import services as release_services
from airflow_release.report import release_folder

from tests import compose_project
from tests.policy.conftest import CASES, ROOT, Rendered, flat, load

COMPOSE = "srv/airflow/docker-compose.yaml"
every_case = pytest.mark.parametrize("case", CASES)

Compose = dict[str, Any]


@pytest.fixture(scope="module")
def projects(rendered: dict[str, Rendered]) -> dict[str, Compose]:
    """The Compose project of each case."""
    return {case: yaml.safe_load(files[COMPOSE]) for case, files in rendered.items()}


ROLES_OF_COMMANDS = {
    ("start-scheduler",): "scheduler",
    ("airflow", "triggerer"): "triggerer",
    ("airflow", "celery", "worker"): "worker",
}


def role(definition: Compose) -> str | None:
    found: str | None = (definition.get("labels") or {}).get("airflow-platform.role")
    return found


@every_case
def test_role_is_that_of_the_command(projects: dict[str, Compose], case: str) -> None:
    """A service without its role is neither drained nor judged as what it is. The gateway has its name's."""
    services = projects[case]["services"]
    expected = {
        name: next((r for start, r in ROLES_OF_COMMANDS.items() if command[: len(start)] == start), None)
        for name, command in ((name, tuple(one.get("command") or ())) for name, one in services.items())
    }
    expected |= {name: name for name in services if name == "worker-gateway"}
    assert {name: role(definition) for name, definition in services.items()} == expected
    assert set(ROLES_OF_COMMANDS.values()) <= set(expected.values())


@every_case
@pytest.mark.parametrize(("network", "store"), [("database", "postgres"), ("broker", "redis")])
def test_service_waits_for_the_stores_that_it_can_reach(
    projects: dict[str, Compose], case: str, network: str, store: str
) -> None:
    """A switch stops the services that wait for a store before it replaces this, and no others."""
    services = projects[case]["services"]
    reach = {name for name, one in services.items() if network in (one.get("networks") or ())} - {store}
    assert {name for name in reach if store not in services[name]["depends_on"]} == set()


def test_service_that_the_template_has_no_more_goes() -> None:
    """A worker would go on taking tasks."""
    tasks = flat(load(ROOT / "roles/stack/tasks/start.yml"))
    [start] = [task for task in tasks if task["name"].endswith("Start everything")]
    assert start["community.docker.docker_compose_v2"]["remove_orphans"] is True


@every_case
def test_service_that_programs_speak_to_is_there(projects: dict[str, Compose], case: str) -> None:
    """Of these there is one each, and the release command and the checker know it by its name."""
    names = {release_services.POSTGRES, release_services.REDIS, release_services.HAPROXY}
    names |= {release_services.WEBSERVER, release_services.STANDBY}
    names |= {release_services.INIT, release_services.INIT_NEXT, release_folder.GATE}
    names |= {checker_roles.POSTGRES, checker_roles.REDIS, checker_roles.WEBHOOK}
    assert names - projects[case]["services"].keys() == set()
    assert release_services.ROLE == checker_roles.LABEL


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "workers" not in case])
def test_project_of_other_tests_is_this_one(projects: dict[str, Compose], case: str) -> None:
    """They render it without Ansible, and without the variables of a host."""
    facts = set(compose_project.FACTS) - {"image", "labels"}
    shown, rendered = (
        {
            name: {fact: one.get(fact) for fact in facts} | {"role": role(one)}
            for name, one in project["services"].items()
        }
        for project in (compose_project.project(), projects[case])
    )
    assert shown == rendered
