"""Reads secrets from 1Password Connect through its official SDK; shared by the lookup and the module.

Patient with a Connect that is busy, restarting or still syncing. No message from here holds a secret's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from http import HTTPMethod
from typing import NoReturn

import httpx
from httpx_retries import Retry, RetryTransport
from onepasswordconnectsdk.client import Client
from onepasswordconnectsdk.config import ClientConfig
from onepasswordconnectsdk.models import Field, Item, SummaryItem

TIMEOUT_SECONDS = 10.0

# While it syncs, Connect answers 500 or, for a vault that it will know in a moment, 403:
# https://github.com/1Password/connect-sdk-python/issues/9, https://github.com/1Password/connect/issues/82.
# Six tries more, 0.5 to 8 s apart: up to 24 s. POST is left out; ConnectWriter repeats it after a look.
PATIENCE = Retry(
    total=6,
    backoff_factor=0.25,
    backoff_jitter=0.5,
    max_backoff_wait=8.0,
    status_forcelist=(403, 429, 500, 502, 503, 504),
    allowed_methods=(HTTPMethod.GET, HTTPMethod.PUT, HTTPMethod.PATCH),
)

ADVICE = {
    401: "Connect does not accept the token: check OP_API_TOKEN",
    403: "the token may not do this in the vault: check OP_VAULT_ID and the token's vaults and permissions",
    404: "Connect does not know it: check OP_VAULT_ID",
}


class ConnectError(Exception):
    """Connect did not give or take what was asked. The message names vault, item and field, never a value."""

    def __init__(self, message: str, status: int | None = None, *, away: bool = False) -> None:
        """``status`` is the HTTP status that Connect answered, None when it answered none.

        ``away`` says that it gave no answer at all, or only that it has a fault of its own (5xx).
        """
        super().__init__(message)
        self.status = status
        self.away = away


class AbsentError(ConnectError):
    """The vault has no such item, or the item has no such field, or the field is empty."""


@dataclass(frozen=True)
class FieldPath:
    """Where a value is kept: the title of an item, the label of a field and maybe that of a section."""

    item: str
    field: str
    section: str | None = None

    def __str__(self) -> str:
        """Name the place in an error message."""
        section = f' in section "{self.section}"' if self.section else ""
        return f'field "{self.field}"{section} of item "{self.item}"'


class ConnectVault:
    """One vault of a Connect server. Remembers what it fetched: each item is asked for once."""

    def __init__(self, url: str, token: str, vault_id: str, patience: Retry = PATIENCE) -> None:
        """Prepare to talk to the server at ``url``, with or without the ``/v1`` of its API; contacts nothing.

        Raises ConnectError when one of the values is empty or cannot be sent.
        """
        for name, value in (("address", url), ("token", token), ("vault id", vault_id)):
            # A stray line break would surface in httpx, whose message quotes the whole header.
            if not value or not value.isascii() or not value.isprintable() or " " in value:
                raise ConnectError(
                    f"the {name} of 1Password Connect is empty or has characters it cannot have"
                )
        if not url.startswith(("http://", "https://")):
            raise ConnectError(
                f'the address of 1Password Connect must start with http:// or https://: "{url}"'
            )
        self.url = url.rstrip("/").removesuffix("/v1")
        self.vault_id = vault_id
        self._token = token
        self.client = Client(
            self.url,
            token,
            ClientConfig(
                timeout=TIMEOUT_SECONDS,
                transport=RetryTransport(httpx.HTTPTransport(), patience),
                # Before the SDK sees the answer: it takes every error for JSON and forgets most statuses.
                event_hooks={"response": [self._raise_for_status]},
            ),
        )
        self._summaries: list[SummaryItem] | None = None
        self._items: dict[str, Item] = {}

    def value(self, path: FieldPath) -> str:
        """Return a field's value. Raises AbsentError when there is none, ConnectError for all else."""
        item = self.item(path.item)
        if item is None:
            raise AbsentError(f'vault {self.vault_id} has no item "{path.item}" (wanted: {path})')
        value = field_value(item, path)
        if not value:
            raise AbsentError(f"vault {self.vault_id} has no value in {path}")
        return value

    def item(self, title: str) -> Item | None:
        """Return the item with this title, None when there is none. Raises ConnectError, also for two."""
        if title not in self._items:
            found = self.titled(title)
            if len(found) > 1:
                ids = ", ".join(sorted(entry.id for entry in found))
                raise ConnectError(
                    f'vault {self.vault_id} has {len(found)} items "{title}": rename or delete one ({ids})'
                )
            if not found:
                return None
            self._items[title] = self.fetch(found[0].id, f'item "{title}"')
        return self._items[title]

    def titled(self, title: str) -> list[SummaryItem]:
        """Return the summaries of all items with this title, by the one listing that is fetched per run."""
        if self._summaries is None:
            with self.doing("list the items"):
                # Not Connect's title filter: the SDK does not escape a quote or an ampersand in a title.
                self._summaries = self.client.get_items(self.vault_id)
                # The SDK makes an item of anything; taken for an empty vault, it would be filled anew.
                if not all(isinstance(entry, SummaryItem) and entry.id for entry in self._summaries):
                    raise ValueError("not a list of items")
        return [entry for entry in self._summaries if entry.title == title]

    def fetch(self, item_id: str, what: str) -> Item:
        """Ask Connect for one item by its id; ``what`` names it in an error."""
        with self.doing(f"read {what}"):
            item = self.client.get_item_by_id(item_id, self.vault_id)
            if item.id != item_id:
                raise ValueError("not the item")
            return item

    def forget(self) -> None:
        """Make the next question go to the server."""
        self._summaries = None
        self._items.clear()

    def doing(self, what: str) -> _Doing:
        """Return a context that makes of each failure of SDK or network a ConnectError saying ``what``."""
        return _Doing(self, what)

    def health_note(self) -> str:
        """Return what Connect itself reports to be wrong, as the end of a sentence; empty when nothing is."""
        try:
            health = httpx.get(f"{self.url}/health", timeout=2.0).raise_for_status().json()
            waiting = [
                f"{d['service']} {d['status']}" for d in health["dependencies"] if d["status"] != "ACTIVE"
            ]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ""
        return f"; its health page says: {', '.join(waiting)}" if waiting else ""

    def _raise_for_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status = response.status_code
        raise ConnectError(f"{ADVICE.get(status, 'Connect could not answer')} (HTTP {status})", status)


class _Doing:
    """Translates whatever SDK and network raise into a ConnectError that says what was tried."""

    def __init__(self, vault: ConnectVault, what: str) -> None:
        self._vault = vault
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConnectError):
            note = self._vault.health_note() if error.status in PATIENCE.status_forcelist else ""
            self._fail(f"{error}{note}", error.status, away=(error.status or 0) >= 500)
        if isinstance(error, httpx.HTTPError):
            reason = f"no answer ({type(error).__name__}): check OP_CONNECT and that Connect runs"
            self._fail(reason, None, away=isinstance(error, httpx.TransportError))
        if isinstance(error, (ValueError, KeyError, TypeError, AttributeError, RuntimeError)):
            # Their texts can quote the document, so only their kind is told.
            self._fail(f"the answer is not one of Connect's ({type(error).__name__}): check OP_CONNECT", None)

    def _fail(self, reason: str, status: int | None, *, away: bool = False) -> NoReturn:
        vault = self._vault
        raise ConnectError(
            f"cannot {self._what} in vault {vault.vault_id} of 1Password Connect at {vault.url}: {reason}",
            status,
            away=away,
        ) from None


def field_value(item: Item, path: FieldPath) -> str | None:
    """Return the value of the field that ``path`` names in ``item``, None when absent or empty.

    Raises ConnectError when several fields fit: which one is meant is for a person to say.
    """
    fields = matching_fields(item, path)
    if len(fields) > 1:
        raise ConnectError(f"{len(fields)} fields fit {path}: give each its own section or label")
    return fields[0].value or None if fields else None


def matching_fields(item: Item, path: FieldPath) -> list[Field]:
    """Return the fields of ``item`` with the label and, if it names one, the section of ``path``."""
    sections = {section.id for section in item.sections or [] if section.label == path.section}
    return [
        field
        for field in item.fields or []
        if field.label == path.field
        and (path.section is None or (field.section is not None and field.section.id in sections))
    ]


@lru_cache
def shared_vault(url: str, token: str, vault_id: str, process_id: int) -> ConnectVault:
    """Return this process's vault object, so that several questions in a run fetch an item once.

    ``process_id`` is the caller's own: Ansible forks, and two processes must not talk through one socket.
    """
    return ConnectVault(url, token, vault_id)
