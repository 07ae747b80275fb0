"""The Compose files of Airflow's own site, as far as a comparison of them needs them."""

from __future__ import annotations

import pytest
import yaml
from flask.testing import FlaskClient

from sandbox.upstream import create_app
from tests.releases import TESTED

ADDRESS = "/docs/apache-airflow/{}/docker-compose.yaml"


@pytest.fixture
def site() -> FlaskClient:
    return create_app().test_client()


@pytest.mark.parametrize("version", TESTED)
def test_each_tested_version_has_its_file(site: FlaskClient, version: str) -> None:
    project = yaml.safe_load(site.get(ADDRESS.format(version)).data)
    assert project["x-airflow-common"]["image"].endswith(f":{version}}}")
    assert {"postgres", "redis", "airflow-webserver", "airflow-worker"} <= project["services"].keys()


@pytest.mark.parametrize("version", ["2.99.0", "..", "..%2Fweb", "%2e%2e%2fweb"])
def test_nothing_else_is_there(site: FlaskClient, version: str) -> None:
    assert site.get(ADDRESS.format(version)).status_code == 404
