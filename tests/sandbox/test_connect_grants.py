"""A token reads and writes the vaults that it is granted, as with the real Connect, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from sandbox.connect import AWAY, Reader, create_app
from tests.served import TOKEN, VAULT_ID

TASKS = Reader("token-of-tasks", "tasksvault0123456789abcdef")
OF_THE_PLATFORM, OF_TASKS = f"/v1/vaults/{VAULT_ID}", f"/v1/vaults/{TASKS.vault_id}"
WEATHER = "Diagnostic ETL (Weather)"


@pytest.fixture
def clients(tmp_path: Path) -> dict[str, FlaskClient]:
    """Return a client with each token."""
    app = create_app(tmp_path, TOKEN, VAULT_ID, tasks=TASKS)
    clients = {}
    for token in (TOKEN, TASKS.token):
        clients[token] = app.test_client()
        clients[token].environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return clients


def titles(client: FlaskClient, vault: str) -> list[str]:
    return [item["title"] for item in client.get(f"{vault}/items").get_json()]


def test_what_tasks_fetch_is_in_their_vault(clients: dict[str, FlaskClient]) -> None:
    assert titles(clients[TASKS.token], OF_TASKS) == [WEATHER]
    assert titles(clients[TOKEN], OF_THE_PLATFORM) == []


@pytest.mark.parametrize(
    ("token", "vault_ids"), [(TOKEN, [VAULT_ID, TASKS.vault_id]), (TASKS.token, [TASKS.vault_id])]
)
def test_token_is_shown_the_vaults_that_it_is_granted(
    clients: dict[str, FlaskClient], token: str, vault_ids: list[str]
) -> None:
    assert [vault["id"] for vault in clients[token].get("/v1/vaults").get_json()] == vault_ids


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda client, vault: client.get(vault), 403),
        (lambda client, vault: client.get(f"{vault}/items"), 404),
        (lambda client, vault: client.get(f"{vault}/items/any"), 403),
        (lambda client, vault: client.post(f"{vault}/items", json={}), 403),
        (lambda client, vault: client.put(f"{vault}/items/any", json={}), 403),
        (lambda client, vault: client.patch(f"{vault}/items/any", json=[]), 403),
        (lambda client, vault: client.delete(f"{vault}/items/any"), 403),
    ],
)
def test_token_of_tasks_does_nothing_in_the_other_vault(
    clients: dict[str, FlaskClient], call: Callable[..., Any], status: int
) -> None:
    assert call(clients[TASKS.token], OF_THE_PLATFORM).status_code == status


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_token_of_tasks_changes_nothing_in_its_own_vault(
    clients: dict[str, FlaskClient], document: dict[str, Any], method: str
) -> None:
    client = clients[TASKS.token]
    [item] = client.get(f"{OF_TASKS}/items").get_json()
    refused = client.open(f"{OF_TASKS}/items/{item['id']}", method=method, json=document)
    assert refused.status_code == 403
    assert client.post(f"{OF_TASKS}/items", json=document).status_code == 403
    assert titles(client, OF_TASKS) == [WEATHER]
    document["vault"] = {"id": TASKS.vault_id}
    assert clients[TOKEN].post(f"{OF_TASKS}/items", json=document).status_code == 200


@pytest.mark.parametrize("tasks", [Reader(TOKEN, TASKS.vault_id), Reader(TASKS.token, VAULT_ID)])
def test_tasks_have_a_token_and_a_vault_of_their_own(tmp_path: Path, tasks: Reader) -> None:
    with pytest.raises(ValueError, match="of their own"):
        create_app(tmp_path, TOKEN, VAULT_ID, tasks=tasks)


def test_connect_is_away_while_its_file_says_so(clients: dict[str, FlaskClient], tmp_path: Path) -> None:
    """For every call, also with a good token; and it knows all afterwards."""
    (tmp_path / AWAY).touch()
    assert {clients[TOKEN].get(path).status_code for path in ("/heartbeat", OF_THE_PLATFORM)} == {503}
    (tmp_path / AWAY).unlink()
    assert titles(clients[TASKS.token], OF_TASKS) == [WEATHER]
