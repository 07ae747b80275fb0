"""The commit status API refuses what GitHub refuses."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from sandbox import github

SHA = "0123456789abcdef0123456789abcdef01234567"
URL = f"/repos/team/airflow/statuses/{SHA}"


@pytest.fixture
def client() -> FlaskClient:
    return github.create_app("the-token").test_client()


def post(client: FlaskClient, body: Any, token: str = "Bearer the-token", url: str = URL) -> int:
    return client.post(url, json=body, headers={"Authorization": token}).status_code


def test_latest_status_comes_first(client: FlaskClient) -> None:
    assert post(client, {"state": "pending", "context": "airflow/live"}) == 201
    assert (
        post(client, {"state": "success", "description": "d", "target_url": "http://t"}, "token the-token")
        == 201
    )
    found = client.get(f"/repos/team/airflow/commits/{SHA}/statuses").get_json()
    assert [(status["state"], status["context"]) for status in found] == [
        ("success", "default"),
        ("pending", "airflow/live"),
    ]
    assert (found[0]["description"], found[0]["target_url"]) == ("d", "http://t")


@pytest.mark.parametrize(
    ("body", "token", "url", "status"),
    [
        ({"state": "success"}, "Bearer wrong", URL, 401),
        ({"state": "success"}, "Bearer é", URL, 401),
        ({"state": "success"}, "the-token", URL, 401),
        ({"state": "done"}, "Bearer the-token", URL, 422),
        ([], "Bearer the-token", URL, 422),
        ({"state": "success", "description": "x" * 141}, "Bearer the-token", URL, 422),
        ({"state": "success", "description": 5}, "Bearer the-token", URL, 422),
        ({"state": "success"}, "Bearer the-token", "/repos/team/airflow/statuses/main", 422),
    ],
)
def test_what_github_refuses(client: FlaskClient, body: Any, token: str, url: str, status: int) -> None:
    assert post(client, body, token, url) == status


def test_keys_of_the_git_host_are_published() -> None:
    client = github.create_app("the-token", ["ssh-ed25519 AAAA"]).test_client()
    assert client.get("/meta").get_json()["ssh_keys"] == ["ssh-ed25519 AAAA"]
