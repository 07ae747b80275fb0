"""The limits of services: preflight refuses what Docker or the template could not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ROOT, load
from tests.policy.test_dag_containers import preflight

DEFAULTS = load(ROOT / "playbooks/group_vars/all/defaults.yml")
TABLE: dict[str, dict[str, int]] = DEFAULTS["service_limits_default"]
FORMS = load(ROOT / "roles/preflight/vars/main.yml")


def check(folder: Path, limits: Any) -> Any:
    """Run preflight with what an inventory sets."""
    return preflight(folder, service_limits=limits, service_limits_default=TABLE)


@pytest.mark.parametrize("service", TABLE)
def test_default_is_one_that_preflight_takes(service: str) -> None:
    for name, value in TABLE[service].items():
        assert FORMS["__preflight_least_limits"][name] <= value <= FORMS["__preflight_most_limit"]
    assert {"memory_mib", "pids"} <= set(TABLE[service])


def test_preflight_takes_one_number_of_one_service(tmp_path: Path) -> None:
    run = check(tmp_path, {"airflow-worker": {"memory_mib_each": 4096}, "postgres": {"memory_mib": "16384"}})
    assert run.ok, run.output


def test_preflight_names_all_limits_that_it_refuses(tmp_path: Path) -> None:
    """In one run, each with its service and what is expected."""
    run = check(
        tmp_path,
        {
            "airflow-wroker": {"memory_mib": 4096},
            "postgres": "8g",
            "redis": {"memory_mib": "4g", "pids": 1},
            "flower": {"memory_mib_each": 100},
            "gate": {"memory_mib": -1},
        },
    )
    assert not run.ok
    for words in (
        "service_limits has airflow-wroker, and there is no such service: airflow-webserver, ",
        "service_limits: postgres is 8g; limits by their name, such as {memory_mib: 4096}, are expected.",
        "service_limits: memory_mib of redis is 4g; a whole number from 64 to 10000000 is expected.",
        "service_limits: pids of redis is 1; a whole number from 16 to 10000000 is expected.",
        "service_limits: flower has memory_mib_each; memory_mib, pids are known.",
        "service_limits: memory_mib of gate is -1; a whole number from 64 to 10000000 is expected.",
    ):
        assert words in run.output
