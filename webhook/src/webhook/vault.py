"""The webhook key in 1Password: read it, replace it."""

from typing import Protocol

import httpx
from onepasswordconnectsdk.client import Client
from onepasswordconnectsdk.config import ClientConfig
from onepasswordconnectsdk.errors import OnePasswordConnectSDKError
from onepasswordconnectsdk.models import Field, Item, SummaryItem
from onepasswordconnectsdk.utils import PathBuilder

from webhook.settings import ConnectSettings

TIMEOUT = 3  # seconds: a caller waits for it, and there is a cached key to fall back on


class VaultUnavailableError(Exception):
    """The key cannot be read or written; the message names item and field and never a value."""


class Vault(Protocol):
    """Where the key is."""

    def read(self) -> str:
        """Return the current key, or raise VaultUnavailableError."""

    def write(self, key: str) -> None:
        """Replace the key, or raise VaultUnavailableError."""


class ConnectVault:
    """A field of an item behind a 1Password Connect server, through the official SDK."""

    def __init__(self, settings: ConnectSettings) -> None:
        """Contact nobody yet."""
        self._settings = settings
        section, _, label = settings.field.rpartition(".")
        self._section, self._label = section, label

    def read(self) -> str:
        """Return the current key."""
        with _Session(self._settings) as session:
            value = self._field(session.item()).value
        if not value:
            raise VaultUnavailableError(f"{self._name} in 1Password is empty")
        return str(value)

    def write(self, key: str) -> None:
        """Replace the key."""
        with _Session(self._settings) as session:
            item = session.item()
            session.replace_value(item, self._field(item), key)

    @property
    def _name(self) -> str:
        return f"the field {self._settings.field!r} of the item {self._settings.item!r}"

    def _field(self, item: Item) -> Field:
        sections = {section.id: section.label for section in item.sections or []}
        for field in item.fields or []:
            section = sections.get(field.section.id, "") if field.section else ""
            if field.label == self._label and section == self._section:
                return field
        raise VaultUnavailableError(f"1Password does not have {self._name}")


class _Session:
    """One conversation with Connect. Whatever the SDK raises comes out as VaultUnavailableError."""

    def __init__(self, settings: ConnectSettings) -> None:
        self._settings = settings

    def __enter__(self) -> "_Session":
        self._client = Client(self._settings.url, self._settings.token, ClientConfig(timeout=TIMEOUT))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._client.session.close()
        # ValueError: the SDK reads the body of an error as JSON, which a proxy's is not.
        if isinstance(error, OnePasswordConnectSDKError | httpx.HTTPError | httpx.InvalidURL | ValueError):
            reason = " ".join(str(error).split())
            raise VaultUnavailableError(f"1Password Connect: {self._settings.item!r}: {reason}") from None

    def item(self) -> Item:
        # By a listing: the SDK puts a title into the address as it is, and takes some for an id.
        title, vault = self._settings.item, self._settings.vault
        listing = self._client.get_items(vault)
        # The SDK makes a list of anything, also of the page of a proxy.
        if not all(isinstance(entry, SummaryItem) and entry.id for entry in listing):
            raise ValueError("not a list of items")
        found = [entry.id for entry in listing if entry.title == title]
        if len(found) != 1:
            raise ValueError(f"found {len(found)} items with this title")
        return self._client.get_item_by_id(found[0], vault)

    def replace_value(self, item: Item, field: Field, value: str) -> None:
        """Replace one field's value and nothing else: others write to the same item meanwhile.

        By JSON Patch, which the API has (PATCH /vaults/{vaultUuid}/items/{itemUuid}) and the SDK has not.
        """
        path = PathBuilder().vaults(self._settings.vault).items(item.id).build()
        change = {"op": "replace", "path": f"/fields/{field.id}/value", "value": value}
        response = self._client.build_request("PATCH", path, [change])
        if response.is_error:
            raise ValueError(f"Connect answered the new value with HTTP {response.status_code}")
