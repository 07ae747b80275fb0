"""Every answer that the contract documents for what the sandbox offers is given, in the contract's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from sandbox.connect import OUT_OF_SCOPE_VAULT_ID
from tests.sandbox.conftest import authorized_client
from tests.served import VAULT_ID

UNKNOWN = "0" * 26
VAULTS = "/v1/vaults"
ITEMS = f"/v1/vaults/{VAULT_ID}/items"
WRONG = {"Authorization": "Bearer wrong"}

# What of the contract the platform does not use, and the sandbox does not have.
NOT_OFFERED = ("/files", "/activity")

Call = Callable[[FlaskClient, dict[str, Any]], TestResponse]


def item_path(client: FlaskClient, document: dict[str, Any]) -> str:
    return f"{ITEMS}/{client.post(ITEMS, json=document).get_json()['id']}"


def elsewhere(vault_id: str, rest: str = "") -> str:
    return f"/v1/vaults/{vault_id}{rest}"


CALLS: dict[str, tuple[int, Call]] = {
    "heartbeat": (200, lambda c, d: c.get("/heartbeat")),
    "health": (200, lambda c, d: c.get("/health")),
    "metrics": (200, lambda c, d: c.get("/metrics")),
    "vaults": (200, lambda c, d: c.get(VAULTS)),
    "vaults by name": (200, lambda c, d: c.get(VAULTS, query_string={"filter": 'name eq "Sandbox"'})),
    "vaults without token": (401, lambda c, d: c.get(VAULTS, headers=WRONG)),
    "vault": (200, lambda c, d: c.get(elsewhere(VAULT_ID))),
    "vault without token": (401, lambda c, d: c.get(elsewhere(VAULT_ID), headers=WRONG)),
    "vault out of scope": (403, lambda c, d: c.get(elsewhere(OUT_OF_SCOPE_VAULT_ID))),
    "vault unknown": (404, lambda c, d: c.get(elsewhere(UNKNOWN))),
    "items": (200, lambda c, d: c.get(ITEMS)),
    "items by title": (200, lambda c, d: c.get(ITEMS, query_string={"filter": 'title eq "Absent"'})),
    "items without token": (401, lambda c, d: c.get(ITEMS, headers=WRONG)),
    "items of unknown vault": (404, lambda c, d: c.get(elsewhere(UNKNOWN, "/items"))),
    "create": (200, lambda c, d: c.post(ITEMS, json=d)),
    "create invalid": (400, lambda c, d: c.post(ITEMS, json={**d, "category": "WEAPON"})),
    "create without token": (401, lambda c, d: c.post(ITEMS, json=d, headers=WRONG)),
    "create out of scope": (403, lambda c, d: c.post(elsewhere(OUT_OF_SCOPE_VAULT_ID, "/items"), json=d)),
    "create in unknown vault": (404, lambda c, d: c.post(elsewhere(UNKNOWN, "/items"), json=d)),
    "get": (200, lambda c, d: c.get(item_path(c, d))),
    "get without token": (401, lambda c, d: c.get(item_path(c, d), headers=WRONG)),
    "get out of scope": (403, lambda c, d: c.get(elsewhere(OUT_OF_SCOPE_VAULT_ID, f"/items/{UNKNOWN}"))),
    "get unknown": (404, lambda c, d: c.get(f"{ITEMS}/{UNKNOWN}")),
    "put": (200, lambda c, d: c.put(item_path(c, d), json={**d, "title": "Renamed"})),
    "put invalid": (400, lambda c, d: c.put(item_path(c, d), json={**d, "fields": [{"type": "?"}]})),
    "put without token": (401, lambda c, d: c.put(item_path(c, d), json=d, headers=WRONG)),
    "put out of scope": (
        403,
        lambda c, d: c.put(elsewhere(OUT_OF_SCOPE_VAULT_ID, f"/items/{UNKNOWN}"), json=d),
    ),
    "put unknown": (404, lambda c, d: c.put(f"{ITEMS}/{UNKNOWN}", json=d)),
    "patch": (200, lambda c, d: c.patch(item_path(c, d), json=[{"op": "remove", "path": "/fields/name"}])),
    "patch nothing": (200, lambda c, d: c.patch(item_path(c, d), json=[])),
    "patch without token": (401, lambda c, d: c.patch(item_path(c, d), json=[], headers=WRONG)),
    "patch out of scope": (
        403,
        lambda c, d: c.patch(elsewhere(OUT_OF_SCOPE_VAULT_ID, f"/items/{UNKNOWN}"), json=[]),
    ),
    "patch unknown": (404, lambda c, d: c.patch(f"{ITEMS}/{UNKNOWN}", json=[])),
    "delete": (204, lambda c, d: c.delete(item_path(c, d))),
    "delete without token": (401, lambda c, d: c.delete(item_path(c, d), headers=WRONG)),
    "delete out of scope": (
        403,
        lambda c, d: c.delete(elsewhere(OUT_OF_SCOPE_VAULT_ID, f"/items/{UNKNOWN}")),
    ),
    "delete unknown": (404, lambda c, d: c.delete(f"{ITEMS}/{UNKNOWN}")),
}


@pytest.mark.parametrize("name", CALLS)
def test_answer_is_the_contracts(
    name: str, client: FlaskClient, document: dict[str, Any], contract: Any
) -> None:
    expected, call = CALLS[name]
    response = call(client, document)
    assert response.status_code == expected, response.text
    contract.check(response)


def test_no_documented_answer_is_left_out(tmp_path: Any, document: dict[str, Any], contract: Any) -> None:
    """A new version of the contract with one more status must not pass unseen."""
    given = {
        contract.check(call(authorized_client(tmp_path / name), document))
        for name, (_, call) in CALLS.items()
    }
    documented = {
        answer for answer in contract.answers() if not any(part in answer[1] for part in NOT_OFFERED)
    }
    assert given == documented


def test_full_item_has_only_properties_of_the_contract(
    client: FlaskClient, document: dict[str, Any], contract: Any
) -> None:
    """The schema alone would let a misspelt attribute pass as an additional one."""
    item = client.post(ITEMS, json=document).get_json()
    assert item.keys() <= contract.properties("FullItem")
    assert all(field.keys() <= contract.properties("Field") for field in item["fields"])
    assert client.get(elsewhere(VAULT_ID)).get_json().keys() <= contract.properties("Vault")


def test_summary_has_no_values(client: FlaskClient, document: dict[str, Any]) -> None:
    client.post(ITEMS, json=document)
    assert all(not {"fields", "sections"} & entry.keys() for entry in client.get(ITEMS).get_json())
