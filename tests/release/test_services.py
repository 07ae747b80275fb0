"""What the release command reads of a Compose project, with and without the label of roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow_release.core import services
from airflow_release.core.errors import ReleaseError
from airflow_release.core.services import POSTGRES, REDIS, SCHEDULER, TRIGGERER, WORKER, Services
from airflow_release.switch import stack

from tests import compose_project
from tests.release.platform_model import PlatformModel, World
from tests.releases import NEWEST


def read(project: compose_project.Project) -> Services:
    return services.parse(json.dumps(compose_project.enabled(project, ["switch"])))


def test_second_worker_has_the_first_ones_label_and_needs() -> None:
    """Three lines in the template are enough."""
    found = read(compose_project.project(more=compose_project.SECOND_WORKER))
    template = compose_project.workers(compose_project.project())
    assert found.of_role(WORKER) == [*template, compose_project.SECOND]
    assert compose_project.SECOND in found.users(POSTGRES, optional=False)
    assert compose_project.SECOND in found.wanted


@pytest.mark.parametrize(
    ("project", "dispensable"),
    [
        (compose_project.project(), ["flower", "gate", "webhook"]),
        (compose_project.unlabelled_project(), ["flower", "gate", "webhook"]),
    ],
    ids=["the template", "a release from before the label"],
)
def test_services_that_airflow_works_without_are_known(
    project: compose_project.Project, dispensable: list[str]
) -> None:
    """All others are needed. A restore goes on where one of these is ill, also on an earlier release."""
    assert read(project).dispensable == dispensable


def test_label_counts_where_there_are_labels() -> None:
    """What was dispensable in earlier releases may be needed in this one."""
    project = compose_project.project()
    before = read(project).dispensable
    del project["services"]["webhook"]["labels"]
    assert read(project).dispensable == [name for name in before if name != "webhook"] != before


def test_release_from_before_the_label_is_read_by_its_names() -> None:
    """Such a host has to be upgraded, and such a release is what a rollback goes to."""
    found = read(compose_project.unlabelled_project())
    assert not any("airflow-platform" in label for label in labels(compose_project.unlabelled_project()))
    assert found.of_role(SCHEDULER, WORKER, TRIGGERER) == [
        "airflow-scheduler",
        "airflow-worker",
        "airflow-triggerer",
    ]
    database = {"airflow-scheduler", "airflow-worker", "airflow-triggerer", "airflow-webserver"}
    assert set(found.users(POSTGRES, optional=False)) == database
    assert set(found.users(POSTGRES, REDIS, optional=True)) == database | {
        "airflow-webserver-standby",
        "airflow-init-next",
        "flower",
    }
    assert set(found.of_image(f"airflow:{NEWEST}")) == database | {"flower", "gate"}
    assert set(found.wanted) == found.names - {"airflow-webserver-standby", "airflow-init-next"}


def labels(project: compose_project.Project) -> set[str]:
    return {label for service in project["services"].values() for label in service.get("labels") or {}}


@pytest.mark.parametrize("answer", ["", "[]", '{"name": "secret"}', '{"services": ["secret"]}'])
def test_other_answer_is_an_error_that_shows_nothing_of_it(answer: str) -> None:
    with pytest.raises(ReleaseError) as refused:
        services.parse(answer)
    assert "secret" not in str(refused.value) + refused.value.log


def test_stopping_none_stops_none(tmp_path: Path) -> None:
    """To Compose no name means all of them."""
    host = PlatformModel(tmp_path)
    host.world_of(World())
    stack.stop(host)
    assert host.world.commands == []


def test_image_of_another_form_is_named() -> None:
    """Whoever writes an image's name into the template learns what the other files expect."""
    with pytest.raises(
        AssertionError, match=r"the image of handbook is 'handbook:1': write \$\{<NAME>_IMAGE\}"
    ):
        compose_project.project(more="\n  handbook:\n    image: handbook:1\n")
