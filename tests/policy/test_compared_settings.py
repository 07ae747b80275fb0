"""What bench/ makes of a Compose project, and how it reads cgroups; only a host can run the rest."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import compared_settings as bench

MEASURED = ("airflow-worker", "airflow-scheduler", "postgres", "redis")
SECRET = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
OWN = "AIRFLOW__CORE__XCOM_BACKEND"
SOURCES = {"trees": "/srv/airflow/trees", "logs": "/srv/airflow/logs", "plugins": "/srv/airflow/plugins"}


@pytest.fixture
def config() -> dict[str, Any]:
    """A project as `docker compose config --format json` prints it."""
    airflow = {
        "image": "airflow-platform/airflow:1",
        "environment": {SECRET: "postgresql+psycopg2://airflow:secret@postgres/airflow", OWN: "encrypted"},
        "networks": {"database": None, "broker": None, "outside": None},
        "volumes": [
            {"type": "bind", "source": source, "target": f"/opt/airflow/{name}"}
            for name, source in SOURCES.items()
        ],
        "depends_on": {"postgres": {"condition": "service_healthy"}, "docker-socket-proxy": {}},
        "mem_limit": "1",
        "user": "50000:0",
    }
    worker = {
        "command": ["airflow", "celery", "worker", "--without-gossip"],
        "healthcheck": {"test": ["CMD"]},
    }
    return {
        "name": "airflow",
        "services": {
            "airflow-worker": {**airflow, **worker},
            "airflow-scheduler": {**airflow, "command": ["start-scheduler"]},
            "airflow-init": {**airflow, "command": ["init-airflow"]},
            "airflow-webserver": airflow,
            "postgres": {
                "image": "postgres",
                "networks": {"database": None},
                "volumes": [
                    {"type": "volume", "source": "postgres_data", "target": "/var/lib/postgresql/data"}
                ],
            },
            "redis": {"image": "redis", "networks": {"broker": None}},
        },
    }


@pytest.mark.parametrize("way", ["platform_project", "upstream_project"])
def test_measured_project_touches_nothing_of_the_platform(config: dict[str, Any], way: str) -> None:
    """It has its own volumes and files, and reaches no network but its own."""
    project = getattr(bench, way)(config, MEASURED)
    assert project["name"] != config["name"]
    assert all(network == {"internal": True} for network in project["networks"].values())
    assert all(volume == {} for volume in project["volumes"].values())
    for service in project["services"].values():
        assert set(service["networks"]) <= set(project["networks"])
        assert set(service["depends_on"]) <= set(project["services"])
        for volume in service["volumes"]:
            assert volume["source"] in project["volumes"] or volume["source"].startswith(bench.FILES)


def test_both_ways_have_the_same_images_and_addresses(config: dict[str, Any]) -> None:
    """Else the table would compare more than settings."""
    ours, upstream = bench.platform_project(config, MEASURED), bench.upstream_project(config, MEASURED)
    assert ours["services"].keys() == upstream["services"].keys()
    for name, service in ours["services"].items():
        assert upstream["services"][name]["image"] == service["image"]
        here, there = (each["services"][name].get("environment", {}) for each in (ours, upstream))
        assert here.get(SECRET) == there.get(SECRET)


def test_only_the_platform_has_its_own_settings(config: dict[str, Any]) -> None:
    """Upstream's worker has upstream's command, environment and no limits, and no module of ours."""
    ours, upstream = (
        project(config, MEASURED)["services"]["airflow-worker"]
        for project in (bench.platform_project, bench.upstream_project)
    )
    assert ours["command"] == config["services"]["airflow-worker"]["command"]
    assert ours["environment"] == config["services"]["airflow-worker"]["environment"]
    assert upstream["command"] == ["airflow", "celery", "worker"]
    assert OWN not in upstream["environment"]
    assert "mem_limit" not in upstream
    assert {"/opt/airflow/config", "/opt/airflow/lib"} <= set(upstream["tmpfs"])


@pytest.mark.parametrize(
    "text", ["usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000", "1500000000\n"], ids=["v2", "v1"]
)
def test_cgroups_of_both_versions_are_read_in_seconds(text: str) -> None:
    """The container sees its own cgroup, in the form that the host has."""
    assert bench.processor_seconds(text) == 1.5
