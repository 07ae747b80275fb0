"""The vault leads to the other stand-ins, wherever they are at this start, and keeps what others stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.item_document import Document
from sandbox.seed import StandIns, channel, seed
from sandbox.vault_store import VaultStore
from tests.served import VAULT_ID

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nbWFkZSB1cA==\n-----END OPENSSH PRIVATE KEY-----\n"
FIRST = StandIns("http://10.0.0.2:9003", "http://10.0.0.2:9004", "http://10.0.0.2:9009", "made up", KEY)
MOVED = StandIns("http://10.0.0.7:9003", "http://10.0.0.7:9004", "http://10.0.0.7:9009", "made up", KEY)


@pytest.fixture
def store(tmp_path: Path) -> VaultStore:
    return VaultStore(tmp_path / "connect.json", VAULT_ID)


def item(store: VaultStore, title: str) -> Document:
    (found,) = (item for item in store.items() if item["title"] == title)
    return found


def values(store: VaultStore, title: str, label: str) -> dict[str, str]:
    """Return the field's value in each section, by the section's name."""
    document = item(store, title)
    names = {section["id"]: section["label"] for section in document["sections"]}
    fields = [field for field in document["fields"] if field["label"] == label]
    return {names[field["section"]["id"]]: field["value"] for field in fields}


def test_leads_to_the_other_stand_ins(store: VaultStore) -> None:
    seed(store, ["staging"], FIRST)
    channels = values(store, "Airflow webhook", "channel")
    assert channels == {
        name: f"http://10.0.0.2:9004/{channel(name)}" for name in ("production", "development", "staging")
    }
    assert len(set(channels.values())) == 3
    assert values(store, "Slack webhook", "url") == dict.fromkeys(
        channels, "http://10.0.0.2:9003/services/T000/B000/sandbox"
    )
    assert values(store, "DAG repository", "github token") == dict.fromkeys(channels, FIRST.made_up("GitHub"))
    assert values(store, "DAG repository", "deploy key") == dict.fromkeys(channels, KEY)


def test_every_secret_can_be_told_from_every_other(store: VaultStore) -> None:
    """A test looks for them where they may not be: the longer ones are found by their text alone."""
    seed(store, (), FIRST)
    places = (
        ("DAG repository", "github token"),
        ("Heartbeat", "url"),
        ("Prometheus", "token"),
        ("Docker registry", "username"),
        ("Docker registry", "password"),
    )
    found = [values(store, title, label)["production"] for title, label in places]
    assert len(set(found)) == len(found)
    assert [value for value in found if len(value) < 12] == []
    assert found[1].startswith("http://10.0.0.2:9009/ping/")
    assert values(store, "Docker registry", "address")["production"] == "docker.io"


def test_follows_a_changed_address_and_keeps_the_rest(store: VaultStore) -> None:
    seed(store, (), FIRST)
    store.ensure_fields("Airflow webhook", [("development", "key", "generated")])
    store.ensure_fields("Airflow webhook", [("development", "key", "another")])
    seed(store, (), MOVED)
    assert values(store, "Airflow webhook", "channel")["development"].startswith("http://10.0.0.7:9004/")
    assert values(store, "Airflow webhook", "key") == {"development": "generated"}
    assert values(store, "Slack webhook", "url")["production"].startswith("http://10.0.0.7:9003/")


def test_same_start_changes_nothing(store: VaultStore) -> None:
    seed(store, (), FIRST)
    before = store.items()
    seed(store, (), FIRST)
    assert store.items() == before


def test_without_stand_ins_the_vault_leads_nowhere(store: VaultStore) -> None:
    seed(store)
    assert [item["title"] for item in store.items()] == ["Diagnostic ETL (Weather)"]
