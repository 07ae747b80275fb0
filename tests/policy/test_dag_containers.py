"""What DAGs' containers may be made of: preflight refuses what the filter could not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ROOT, load
from tests.policy.test_repository import Run

DEFAULTS = load(ROOT / "playbooks/group_vars/all/defaults.yml")
WIRING = load(ROOT / "playbooks/group_vars/all/wiring.yml")
SETTINGS = [name for name in DEFAULTS if name.startswith("dag_container_")]


def preflight(folder: Path, **variables: Any) -> Run:
    given = {"airflow_version": "2.11.2", "environment": "production", "uid": 50000, **variables}
    return Run(folder, "preflight", "inputs", {f"preflight_{name}": value for name, value in given.items()})


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_reaches_the_filter_and_preflight(name: str) -> None:
    value = f"{{{{ {name} }}}}"
    short = name.removeprefix("dag_container_")
    assert WIRING[f"stack_dag_{short}"] == value
    if isinstance(DEFAULTS[name], list):
        assert WIRING[f"preflight_{short}"] == value
    elif not isinstance(DEFAULTS[name], bool):
        limit = WIRING["preflight_limits"][name]
        assert limit["value"] == value
        assert limit["least"] <= DEFAULTS[name] <= limit["most"]


def test_preflight_takes_what_the_filter_takes(tmp_path: Path) -> None:
    images = ["atddocker/*", "alpine", "ghcr.io/example/etl-*:production", "localhost:5000/a/b_c:1.*"]
    run = preflight(
        tmp_path, images=images, volumes=["knack_data"], registries=["docker.io", "registry.example.org:5000"]
    )
    assert run.ok, run.output


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"images": ["atddocker/*", "http://atddocker/x"]}, "dag_container_images has http://atddocker/x;"),
        ({"images": ["*.io/x/"]}, "dag_container_images has *.io/x/;"),
        ({"volumes": ["/srv/data"]}, "dag_container_volumes has /srv/data;"),
        ({"volumes": ["airflow_postgres_data"]}, "dag_container_volumes has airflow_postgres_data;"),
        ({"registries": ["https://ghcr.io"]}, "dag_container_registries has https://ghcr.io;"),
    ],
)
def test_preflight_names_what_it_refuses(tmp_path: Path, variables: dict[str, Any], named: str) -> None:
    run = preflight(tmp_path, **variables)
    assert not run.ok
    assert named in run.output
