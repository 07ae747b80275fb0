"""What the sandbox's Connect server does with items: ids, versions, generation, patches, many writers."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from sandbox.connect import create_app
from sandbox.seed import WEATHER_FIELD, WEATHER_ITEM
from tests.served import TOKEN, VAULT_ID

ITEMS = f"/v1/vaults/{VAULT_ID}/items"


def created(client: FlaskClient, document: dict[str, Any]) -> dict[str, Any]:
    item: dict[str, Any] = client.post(ITEMS, json=document).get_json()
    return item


def field(item: dict[str, Any], label: str) -> dict[str, Any]:
    return next(entry for entry in item["fields"] if entry["label"] == label)


def seeded_values(client: FlaskClient) -> dict[str, str]:
    found = client.get(ITEMS, query_string={"filter": f'title eq "{WEATHER_ITEM}"'}).get_json()
    item = client.get(f"{ITEMS}/{found[0]['id']}").get_json()
    sections = {section["id"]: section["label"] for section in item["sections"]}
    return {
        sections[entry["section"]["id"]]: entry["value"]
        for entry in item["fields"]
        if entry["label"] == WEATHER_FIELD
    }


def test_seeds_a_distinct_secret_for_each_environment(tmp_path: Path) -> None:
    client = create_app(tmp_path, TOKEN, VAULT_ID, ["staging", "production"]).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    values = seeded_values(client)
    assert set(values) == {"production", "development", "staging"}
    assert len(set(values.values())) == 3
    assert all(len(value.split()) >= 4 for value in values.values())


def test_keeps_its_items_over_a_restart_and_seeds_only_what_is_new(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    def start(*environments: str) -> FlaskClient:
        client = create_app(tmp_path, TOKEN, VAULT_ID, environments).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
        return client

    first = start()
    item, values = created(first, document), seeded_values(first)
    second = start("staging")
    assert second.get(f"{ITEMS}/{item['id']}").get_json() == item
    assert seeded_values(second).items() > values.items()


def test_state_file_is_private_and_alone(
    tmp_path: Path, client: FlaskClient, document: dict[str, Any]
) -> None:
    created(client, document)
    (state,) = tmp_path.iterdir()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert "Made by a test" in state.read_text()


@pytest.mark.parametrize(("token", "vault_id"), [("", VAULT_ID), (TOKEN, "short"), (TOKEN, VAULT_ID.upper())])
def test_refuses_to_start_with_wrong_settings(tmp_path: Path, token: str, vault_id: str) -> None:
    with pytest.raises(ValueError, match=r"token|vault"):
        create_app(tmp_path, token, vault_id)


@pytest.mark.parametrize(
    "header", [None, "", TOKEN, "Bearer ", f"bearer {TOKEN}", f"Bearer {TOKEN}x", "Basic YTpi"]
)
def test_other_credentials_are_refused(client: FlaskClient, header: str | None) -> None:
    client.environ_base.pop("HTTP_AUTHORIZATION")
    response = client.get(ITEMS, headers={} if header is None else {"Authorization": header})
    assert response.status_code == 401
    assert TOKEN not in response.text


def test_server_gives_ids_and_version(client: FlaskClient, document: dict[str, Any]) -> None:
    item = created(client, {**document, "id": "mine", "version": 7, "lastEditedBy": "me"})
    assert item["id"] != "mine"
    assert item["version"] == 1
    assert item["lastEditedBy"] != "me"
    assert item["createdAt"] == item["updatedAt"]
    assert len(field(item, "key")["id"]) == 26


@pytest.mark.parametrize(
    ("recipe", "length", "alphabet"),
    [
        (None, 32, None),
        ({"length": 64, "characterSets": ["DIGITS"]}, 64, "0123456789"),
        ({"length": 1, "characterSets": ["DIGITS"], "excludeCharacters": "012345678"}, 1, "9"),
        ({"characterSets": ["LETTERS"]}, 32, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ],
)
def test_generates_by_recipe(
    client: FlaskClient,
    document: dict[str, Any],
    recipe: dict[str, Any] | None,
    length: int,
    alphabet: str | None,
) -> None:
    document["fields"][1]["recipe"] = recipe
    made = field(created(client, document), "key")
    assert len(made["value"]) == length
    assert alphabet is None or set(made["value"]) <= set(alphabet)
    assert "generate" not in made


def test_a_given_value_is_not_generated_anew(client: FlaskClient, document: dict[str, Any]) -> None:
    document["fields"][1]["value"] = "mine"
    assert field(created(client, document), "key")["value"] == "mine"


@pytest.mark.parametrize(
    "change",
    [
        {"vault": None},
        {"vault": {"id": "0" * 26}},
        {"category": None},
        {"title": 1},
        {"favorite": "yes"},
        {"tags": [1]},
        {"tags": "one"},
        {"urls": [{}]},
        {"sections": [{"id": "a"}, {"id": "a"}]},
        {"sections": ["a"]},
        {"fields": [{"id": "a"}, {"id": "a"}]},
        {"fields": [{"type": "PICTURE"}]},
        {"fields": [{"purpose": "JOY"}]},
        {"fields": [{"section": {"id": "absent"}}]},
        {"fields": [{"value": 5}]},
        {"fields": [{"generate": True, "recipe": {"length": 65}}]},
        {"fields": [{"generate": True, "recipe": {"length": True}}]},
        {"fields": [{"generate": True, "recipe": {"characterSets": ["RUNES"]}}]},
        {
            "fields": [
                {"generate": True, "recipe": {"characterSets": ["DIGITS"], "excludeCharacters": "0123456789"}}
            ]
        },
    ],
    ids=json.dumps,
)
def test_refuses_what_is_no_item(
    client: FlaskClient, document: dict[str, Any], change: dict[str, Any]
) -> None:
    before = client.get(ITEMS).get_json()
    response = client.post(ITEMS, json={**document, **change})
    assert response.status_code == 400
    assert response.get_json()["status"] == 400
    assert client.get(ITEMS).get_json() == before


def patch(client: FlaskClient, document: dict[str, Any], *operations: dict[str, Any]) -> dict[str, Any]:
    response = client.patch(f"{ITEMS}/{created(client, document)['id']}", json=list(operations))
    assert response.status_code == 200, response.text
    item: dict[str, Any] = response.get_json()
    return item


def test_patch_changes_attributes(client: FlaskClient, document: dict[str, Any]) -> None:
    item = patch(
        client,
        document,
        {"op": "replace", "path": "/favorite", "value": True},
        {"op": "remove", "path": "/tags/1"},
        {"op": "add", "path": "/tags/-", "value": "three"},
    )
    assert (item["favorite"], item["tags"], item["version"]) == (True, ["one", "three"], 2)


def test_patch_adds_a_field_under_a_new_id(client: FlaskClient, document: dict[str, Any]) -> None:
    new = {"label": "New Field", "type": "string", "value": "hunter2"}
    item = patch(client, document, {"op": "add", "path": "/fields", "value": new})
    assert len(item["fields"]) == 3
    assert len(field(item, "New Field")["id"]) == 26


def test_patch_replaces_and_removes_fields_by_id(client: FlaskClient, document: dict[str, Any]) -> None:
    document["fields"][1]["id"] = "key"
    item = patch(
        client,
        document,
        {
            "op": "replace",
            "path": "/fields/name",
            "value": {"label": "login", "type": "string", "value": "bob"},
        },
        {"op": "remove", "path": "/fields/key"},
    )
    assert [(entry["id"], entry["label"], entry["value"]) for entry in item["fields"]] == [
        ("name", "login", "bob")
    ]


def test_patch_changes_one_attribute_of_a_field(client: FlaskClient, document: dict[str, Any]) -> None:
    item = patch(
        client,
        document,
        {"op": "add", "path": "/fields/name/label", "value": "login"},
        {"op": "remove", "path": "/fields/name/value"},
    )
    assert "value" not in field(item, "login")


def test_patch_of_the_whole_keeps_identity(client: FlaskClient, document: dict[str, Any]) -> None:
    item = patch(client, document, {"op": "replace", "path": "/", "value": {"title": "New", "id": "other"}})
    assert (item["title"], item["fields"], item["version"]) == ("New", [], 2)
    assert item["id"] != "other"


def test_empty_patch_changes_nothing(client: FlaskClient, document: dict[str, Any]) -> None:
    item = created(client, document)
    assert client.patch(f"{ITEMS}/{item['id']}", json=[]).get_json() == item


@pytest.mark.parametrize(
    "operations",
    [
        {},
        ["remove"],
        [{"op": "move", "path": "/tags", "from": "/urls"}],
        [{"op": "remove", "path": "tags"}],
        [{"op": "replace", "path": "/title"}],
        [{"op": "remove", "path": "/tags/2"}],
        [{"op": "remove", "path": "/tags/-1"}],
        [{"op": "remove", "path": "/fields/absent"}],
        [{"op": "replace", "path": "/id", "value": "0" * 26}],
        [{"op": "replace", "path": "/version", "value": 9}],
        [{"op": "replace", "path": "/title/0", "value": "x"}],
        [{"op": "remove", "path": "/"}],
        # The first is fine; nothing of it may stay.
        [{"op": "replace", "path": "/title", "value": "New"}, {"op": "remove", "path": "/fields/absent"}],
    ],
    ids=json.dumps,
)
def test_malformed_patch_changes_nothing(
    client: FlaskClient, document: dict[str, Any], operations: Any
) -> None:
    item = created(client, document)
    assert client.patch(f"{ITEMS}/{item['id']}", json=operations).status_code == 400
    assert client.get(f"{ITEMS}/{item['id']}").get_json() == item


@pytest.mark.parametrize("title", ["plain", 'with "quotes"', "back\\slash", "a & b = c", "grün (1)"])
def test_filter_finds_the_exact_title(client: FlaskClient, document: dict[str, Any], title: str) -> None:
    for name in (title, f"{title} 2", title.upper() + "!"):
        created(client, {**document, "title": name})
    escaped = title.replace("\\", "\\\\").replace('"', '\\"')
    found = client.get(ITEMS, query_string={"filter": f'title eq "{escaped}"'}).get_json()
    assert [entry["title"] for entry in found] == [title]


@pytest.mark.parametrize(
    "text", ["", "title", 'title co "x"', 'name eq "x"', "title eq x", 'title eq "x" or true']
)
def test_refuses_other_filters(client: FlaskClient, text: str) -> None:
    assert client.get(ITEMS, query_string={"filter": text}).status_code == 400


def test_many_writers_lose_nothing(client: FlaskClient, document: dict[str, Any]) -> None:
    item = created(client, document)
    app = client.application

    def add(number: int) -> int:
        operation = {"op": "add", "path": "/fields", "value": {"label": f"field {number}", "type": "STRING"}}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return app.test_client().patch(f"{ITEMS}/{item['id']}", json=[operation], headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(add, range(40))) == {200}
    final = client.get(f"{ITEMS}/{item['id']}").get_json()
    assert len(final["fields"]) == 42
    assert final["version"] == 41
