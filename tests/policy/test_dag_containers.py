"""What DAGs' containers may be made of: preflight refuses what the filter could not use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from docker_policy.images import Images, registry
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.conftest import ROOT, load
from tests.policy.test_repository import Run

DEFAULTS = load(ROOT / "playbooks/group_vars/all/defaults.yml")
WIRING = load(ROOT / "playbooks/group_vars/all/wiring.yml")
PREFLIGHT = load(ROOT / "roles/preflight/vars/main.yml")
TEXT = st.lists(st.sampled_from([*"aB1*", *"/:.-_", "//", "__", "..", "5000", "\n", "@"]), max_size=9).map(
    "".join
)
SETTINGS = [name for name in DEFAULTS if name.startswith("dag_container_")]


def preflight(folder: Path, **variables: Any) -> Run:
    given = {"airflow_version": "2.11.2", "environment": "production", "uid": 50000, **variables}
    return Run(folder, "preflight", "inputs", {f"preflight_{name}": value for name, value in given.items()})


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_reaches_the_filter_and_preflight(name: str) -> None:
    value = f"{{{{ {name} }}}}"
    short = name.removeprefix("dag_container_")
    assert WIRING[f"stack_dag_{short}"] == value
    if isinstance(DEFAULTS[name], (list, str)):
        assert WIRING[f"preflight_{short}"] == value
    elif not isinstance(DEFAULTS[name], bool):
        limit = WIRING["preflight_limits"][name]
        assert limit["value"] == value
        assert limit["least"] <= DEFAULTS[name] <= limit["most"]


def test_preflight_takes_what_the_filter_takes(tmp_path: Path) -> None:
    run = preflight(
        tmp_path,
        images=["atddocker/*", "alpine", "ghcr.io/example/etl-*:production", "localhost:5000/a/b_c:1.*"],
        volumes=["knack_data"],
        registries=["docker.io", "registry.example.org:5000"],
    )
    assert run.ok, run.output


def form(name: str) -> str:
    """Return one of preflight's expressions."""
    text = str(PREFLIGHT[name])
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: form(match[1]), text)


@given(pattern=TEXT)
@settings(deadline=None)
def test_filter_takes_what_preflight_takes(pattern: str) -> None:
    """What the filter cannot use would leave its earlier settings in force, and nobody would know."""
    if re.match(form("__preflight_image_pattern"), pattern):
        Images([pattern], "images")
    if re.match(form("__preflight_registry"), pattern):
        assert registry(pattern)


def test_preflight_names_all_that_it_refuses(tmp_path: Path) -> None:
    run = preflight(
        tmp_path,
        images=["atddocker/*", "http://atddocker/x", "*.io/x", "a..b"],
        volumes=["/srv/data", "knack_data", "airflow_postgres_data"],
        registries=["ghcr.io", "https://ghcr.io"],
    )
    assert not run.ok
    assert "dag_container_images has http://atddocker/x, *.io/x, a..b;" in run.output
    assert "dag_container_volumes has /srv/data, airflow_postgres_data;" in run.output
    assert "dag_container_registries has https://ghcr.io;" in run.output


def look_at_registries(folder: Path, cases: dict[str, list[str]]) -> Run:
    """Let the role look at registries of the vault, each with what the inventory lists."""
    run = [
        {"address": address, "user": "city" if address else "", "listed": listed}
        for address, listed in cases.items()
    ]
    return Run(
        folder,
        "stack",
        "registry",
        {
            "stack_secrets": {
                "docker_registry_address": "{{ item.address }}",
                "docker_registry_username": "{{ item.user }}",
            },
            "stack_dag_registries": "{{ item.listed }}",
        },
        loop=run,
    )


def test_registry_of_the_vault_that_is_listed(tmp_path: Path) -> None:
    cases = {
        "https://index.docker.io/v1/:80": ["docker.io"],
        "docker.io": ["Registry-1.Docker.io"],
        "https://Registry.example.org:5000/v2/": ["docker.io", "registry.example.org:5000"],
        "": ["docker.io"],
    }
    run = look_at_registries(tmp_path, cases)
    assert run.ok, run.output


def test_registry_of_the_vault_that_is_not_listed(tmp_path: Path) -> None:
    """The message names the setting, and nothing of the vault's."""
    run = look_at_registries(
        tmp_path, {"https://registry.example.org:5000": ["docker.io", "registry.example.org"]}
    )
    assert not run.ok
    assert "dag_container_registries in the inventory does not list" in run.output
