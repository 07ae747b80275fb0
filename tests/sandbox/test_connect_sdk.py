"""1Password's own SDK against the served sandbox: what works there must work here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onepasswordconnectsdk import load_dict
from onepasswordconnectsdk.client import Client, FailedToRetrieveItemException
from onepasswordconnectsdk.models import Field, FieldSection, GeneratorRecipe, Item, ItemVault, Section

from sandbox.seed import WEATHER_FIELD, WEATHER_ITEM, phrase
from tests.served import TOKEN, VAULT_ID


@pytest.fixture
def sdk(connect_url: str) -> Iterator[Client]:
    client = Client(connect_url, TOKEN)
    yield client
    client.session.close()


def new_item(title: str = "From the SDK") -> Item:
    return Item(
        title=title,
        category="LOGIN",
        vault=ItemVault(id=VAULT_ID),
        sections=[Section(id="here", label="development")],
        fields=[
            Field(label="username", value="ada", purpose="USERNAME"),
            Field(
                label="key",
                type="CONCEALED",
                section=FieldSection(id="here"),
                generate=True,
                recipe=GeneratorRecipe(length=24, character_sets=["LETTERS"]),
            ),
        ],
    )


def test_finds_the_vault_by_id_and_name(sdk: Client) -> None:
    assert sdk.get_vault(VAULT_ID).name == "Sandbox"
    assert sdk.get_vault_by_title("Sandbox").id == VAULT_ID
    assert [vault.id for vault in sdk.get_vaults()] == [VAULT_ID]


def test_creates_reads_updates_and_deletes(sdk: Client) -> None:
    made = sdk.create_item(VAULT_ID, new_item())
    assert len(made.id) == 26
    assert [len(field.value) for field in made.fields] == [3, 24]
    read = sdk.get_item(made.title, VAULT_ID)
    assert read.to_dict() == made.to_dict()
    read.fields[0].value = "grace"
    updated = sdk.update_item(read.id, VAULT_ID, read)
    assert (updated.version, updated.fields[0].value) == (2, "grace")
    assert updated.fields[1].value == made.fields[1].value
    assert updated.updated_at > made.updated_at
    sdk.delete_item(made.id, VAULT_ID)
    with pytest.raises(FailedToRetrieveItemException):
        sdk.get_item(made.id, VAULT_ID)


def test_lists_summaries(sdk: Client) -> None:
    sdk.create_item(VAULT_ID, new_item())
    assert [entry.title for entry in sdk.get_items(VAULT_ID)] == [WEATHER_ITEM, "From the SDK"]


@pytest.mark.parametrize("environment", ["production", "development"])
def test_load_dict_reads_the_section_of_the_environment(sdk: Client, environment: str) -> None:
    """This is how the weather DAG asks."""
    wanted = {
        "SECRET": {"opitem": WEATHER_ITEM, "opfield": f"{environment}.{WEATHER_FIELD}", "opvault": VAULT_ID}
    }
    values = load_dict(sdk, wanted)
    assert values["SECRET"] == phrase(environment)


def test_two_items_with_one_title_are_ambiguous(sdk: Client) -> None:
    for _ in range(2):
        sdk.create_item(VAULT_ID, new_item())
    with pytest.raises(FailedToRetrieveItemException, match="Found 2 items"):
        sdk.get_item_by_title("From the SDK", VAULT_ID)
