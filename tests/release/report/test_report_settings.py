"""Settings in use that a version removed, renamed or deprecated, by what real Airflows say of themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from airflow_release.report import settings_in_use

from tests.release.report.conftest import Json
from tests.releases import TESTED

AskImage = Callable[..., Json]
IN_USE = [
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY",
    "AIRFLOW__CELERY__STALLED_TASK_TIMEOUT",
    "AIRFLOW__CORE__SQL_ALCHEMY_CONN_CMD",
    "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE",
    "AIRFLOW__DASK__CLUSTER_ADDRESS",
    "AIRFLOW__ELASTICSEARCH__HOST",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED",
    "AIRFLOW__OUR_OWN__THING",
]


def changes(ask_image: AskImage, old: str, new: str) -> dict[str, Json]:
    in_use = {variable: ["airflow-worker"] for variable in IN_USE}
    found = settings_in_use.compare(in_use, ask_image(old), ask_image(new))
    return {change["variable"]: change for change in found}


def kinds(found: dict[str, Json]) -> dict[str, str]:
    return {variable: change["change"] for variable, change in found.items()}


def test_way_to_2_6(ask_image: AskImage) -> None:
    """A rename of 2.6.0, and one of 2.3.0 that was never followed."""
    found = changes(ask_image, "2.5.3", "2.6.1")
    assert {variable: (change["replacement"], change["since"]) for variable, change in found.items()} == {
        "AIRFLOW__CELERY__STALLED_TASK_TIMEOUT": ("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "2.6.0"),
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN_CMD": ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD", "2.3.0"),
    }


@pytest.mark.parametrize("old", ["2.5.3", "2.6.1"])
def test_way_to_2_11(ask_image: AskImage, old: str) -> None:
    """2.7 moved Celery's settings to its provider, where they are as good as ever, others to absent ones."""
    found = changes(ask_image, old, "2.11.2")
    assert kinds(found) == {
        "AIRFLOW__DASK__CLUSTER_ADDRESS": "removed",
        "AIRFLOW__ELASTICSEARCH__HOST": "provider",
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "provider",
        "AIRFLOW__CELERY__STALLED_TASK_TIMEOUT": "renamed",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN_CMD": "renamed",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "deprecated",
    }
    deprecated = found["AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS"]
    assert deprecated["since"] == "2.7.0"
    assert "airflow db init" in deprecated["reason"]


@pytest.mark.parametrize("version", TESTED)
def test_no_option_of_a_version_is_removed_by_itself(ask_image: AskImage, version: str) -> None:
    """The comparison finds what changed, not what it does not understand."""
    facts = ask_image(version)
    found = settings_in_use.compare({name: [] for name in facts["options"]}, facts, facts)
    assert {change["change"] for change in found} <= {"deprecated"}


@pytest.mark.parametrize("version", TESTED)
def test_facts_are_those_of_the_image(ask_image: AskImage, version: str) -> None:
    """With the providers' settings, and packages by their normalised names."""
    facts = ask_image(version)
    assert facts["airflow_version"] == facts["packages"]["apache-airflow"] == version
    assert facts["python_version"].startswith("3.11.")
    assert len(facts["options"]) > 250
    assert facts["options"]["AIRFLOW__CELERY__WORKER_CONCURRENCY"]["name"] == "celery.worker_concurrency"
    assert "apache-airflow-providers-celery" in facts["packages"]
