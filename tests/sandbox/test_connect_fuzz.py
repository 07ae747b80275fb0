"""Malformed requests of every kind get a clean refusal: never a 5xx, always the contract's ErrorResponse."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sandbox.conftest import authorized_client
from tests.served import TOKEN, VAULT_ID

ITEM_KEYS = ["title", "vault", "category", "urls", "favorite", "tags", "sections", "fields", "id", "version"]
FIELD_KEYS = ["id", "type", "label", "value", "purpose", "section", "generate", "recipe"]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(ITEM_KEYS + FIELD_KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=15,
)
field = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b"]) | anything,
        "type": st.sampled_from(["STRING", "concealed"]) | anything,
        "section": st.just({"id": "s"}) | anything,
        "value": st.text(max_size=5) | anything,
        "purpose": st.sampled_from(["PASSWORD", ""]) | anything,
        "generate": st.booleans() | anything,
        "recipe": st.fixed_dictionaries({}, optional={"length": anything, "characterSets": anything})
        | anything,
    },
)
item = st.fixed_dictionaries(
    {"vault": st.just({"id": VAULT_ID}), "category": st.just("LOGIN") | anything},
    optional={
        "title": st.text(max_size=10) | anything,
        "sections": st.just([{"id": "s", "label": "x"}]) | anything,
        "fields": st.lists(field, max_size=4) | anything,
        "tags": st.lists(st.text(max_size=3), max_size=3) | anything,
        "urls": anything,
        "favorite": anything,
    },
)
pointer = st.lists(
    st.sampled_from([*ITEM_KEYS, *FIELD_KEYS, "0", "1", "-", "a", "b", "s", "", "~0", "~1", "~2"])
    | st.text(max_size=3),
    max_size=4,
).map(lambda parts: "/" + "/".join(parts))
operation = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "test"]) | anything, "path": pointer | anything},
    optional={"value": field | item | anything},
)
# Python writes NaN and infinities, which are not JSON: part of what a server must survive.
json_body = (item | st.lists(operation, max_size=4) | anything).map(lambda value: json.dumps(value).encode())
body = (
    json_body
    | st.binary(max_size=60)
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b'"\\ud800"', b""])
)
path = st.one_of(
    st.sampled_from(["{items}", "{items}/{id}", "/v1/vaults", "/v1/vaults/{vault}", "/health", "/v1", "/"]),
    st.lists(st.text(string.printable + "é\x00", max_size=8), max_size=5).map(
        lambda parts: "/v1/" + "/".join(quote(part, safe="/") for part in parts)
    ),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Authorization": st.sampled_from([f"Bearer {TOKEN}", "Bearer é", "Basic", "Bearer " + "x" * 500]),
        "Content-Type": st.sampled_from(["application/json", "text/plain", "multipart/form-data", "\x7f"]),
        "Accept": st.just("text/html"),
    },
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    state: Path = tmp_path_factory.mktemp("state")
    return authorized_client(state)


def existing(server: FlaskClient) -> str:
    items = f"/v1/vaults/{VAULT_ID}/items"
    for entry in server.get(items).get_json()[1:]:
        server.delete(f"{items}/{entry['id']}")
    made = {
        "vault": {"id": VAULT_ID},
        "category": "LOGIN",
        "sections": [{"id": "s", "label": "x"}],
        "fields": [{"id": "a", "type": "STRING", "section": {"id": "s"}, "value": "v"}],
        "tags": ["t"],
    }
    return str(server.post(items, json=made).get_json()["id"])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"]),
    template=path,
    query=st.none() | st.text(max_size=30) | st.text(max_size=8).map(lambda text: f'title eq "{text}"'),
    sent_headers=headers,
    data=body,
)
def test_no_request_breaks_the_server(
    server: FlaskClient,
    method: str,
    template: str,
    query: str | None,
    sent_headers: dict[str, str],
    data: bytes,
) -> None:
    address = template.replace("{items}", f"/v1/vaults/{VAULT_ID}/items").replace("{vault}", VAULT_ID)
    address = address.replace("{id}", existing(server))
    response = server.open(
        address,
        method=method,
        query_string=None if query is None else {"filter": query},
        headers=sent_headers,
        data=data,
    )
    assert response.status_code < 500
    if response.status_code >= 400 and method != "HEAD":
        error: Any = response.get_json()
        assert error["status"] == response.status_code
        assert isinstance(error["message"], str)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=item, operations=st.lists(operation, max_size=4))
def test_what_is_accepted_can_be_read_back(server: FlaskClient, document: Any, operations: Any) -> None:
    """Whatever a write lets in is stored whole: reading it and writing that again changes nothing."""
    items = f"/v1/vaults/{VAULT_ID}/items"
    response = server.post(items, data=json.dumps(document))
    address = f"{items}/{response.get_json()['id'] if response.status_code == 200 else existing(server)}"
    server.patch(address, data=json.dumps(operations))
    stored = server.get(address).get_json()
    again = server.put(address, json=stored).get_json()
    changing = ("version", "updatedAt")
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in stored.items() if k not in changing
    }
