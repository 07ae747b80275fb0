"""Adds generated fields to items of 1Password Connect; never changes a value that is there."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping

from ansible.module_utils.onepassword_connect import (
    ConnectError,
    ConnectVault,
    FieldPath,
    field_value,
    matching_fields,
)
from onepasswordconnectsdk.models import Field, FieldSection, Item, ItemVault, Section

CATEGORY = "API_CREDENTIAL"
ATTEMPTS = 5
VISIBLE_SECONDS = 30.0
POLL_SECONDS = 0.5

Generators = Mapping[FieldPath, Callable[[], str]]


class ConnectWriter:
    """Makes sure that fields exist, whoever else does the same at that moment.

    Connect's API has no precondition ("write if unchanged"), so this looks, writes, and looks again. Two runs
    that create the same item end with one item: the older stays; a run deletes only what it has just made.
    """

    def __init__(self, vault: ConnectVault, visible_seconds: float = VISIBLE_SECONDS) -> None:
        """``visible_seconds`` is how long a write may take to show when Connect is asked again."""
        self._vault = vault
        self._visible_seconds = visible_seconds

    def absent(self, wanted: Generators) -> list[FieldPath]:
        """Return which of the fields (all of one item) have no value. Raises ConnectError."""
        item = self._vault.item(next(iter(wanted)).item)
        return [path for path in wanted if item is None or field_value(item, path) is None]

    def ensure(self, wanted: Generators) -> list[FieldPath]:
        """Give a value to the fields (all of one item) that have none; return those. Raises ConnectError."""
        title = next(iter(wanted)).item
        written: list[FieldPath] = []
        for attempt in range(1, ATTEMPTS + 1):
            self._wait(lambda: len(self._vault.titled(title)) < 2)  # Another run may be taking its copy back.
            missing = self.absent(wanted)
            if not missing:
                return written
            values = {path: wanted[path] for path in missing}
            written = list(dict.fromkeys((*written, *missing)))
            known = self._vault.titled(title)
            try:
                item = self._add(known[0].id, title, values) if known else self._create(title, values)
            except ConnectError as error:
                # Not taken, or taken and the answer lost: which of them, the next look tells.
                transient = error.status is None or error.status == 429 or error.status >= 500
                if attempt == ATTEMPTS or not transient:
                    raise
            else:
                if known:
                    self._wait_until_stored(item, values)
                else:
                    self._settle(item)
            self._vault.forget()
        raise ConnectError(
            f'item "{title}" of vault {self._vault.vault_id} does not keep what is written to it'
        )

    def _create(self, title: str, values: Generators) -> Item:
        vault = self._vault
        item = Item(
            title=title, category=CATEGORY, vault=ItemVault(id=vault.vault_id), sections=[], fields=[]
        )
        _fill(item, values)
        with vault.doing(f'create item "{title}"'):
            return vault.client.create_item(vault.vault_id, item)

    def _add(self, item_id: str, title: str, values: Generators) -> Item:
        vault = self._vault
        # Not the remembered item: between reading and writing it, another's write would be lost.
        item = vault.fetch(item_id, f'item "{title}"')
        _fill(item, values)
        with vault.doing(f'add fields to item "{title}"'):
            return vault.client.update_item(item_id, vault.vault_id, item)

    def _wait_until_stored(self, item: Item, values: Generators) -> None:
        def stored() -> bool:
            now = self._vault.fetch(item.id, f'item "{item.title}"')
            return all(field_value(now, path) for path in values)

        self._wait(stored)

    def _settle(self, made: Item) -> None:
        """Wait until the new item is listed; take it back when another run was first."""
        vault = self._vault
        vault.forget()
        if not self._wait(lambda: made.id in (entry.id for entry in vault.titled(made.title))):
            raise ConnectError(
                f'Connect took item "{made.title}" but does not list it in vault {vault.vault_id}'
                f" after {self._visible_seconds:.0f} s: look at its sync container"
            )
        first = min(vault.titled(made.title), key=lambda entry: (str(entry.created_at), entry.id))
        if first.id != made.id:
            with vault.doing(f'delete the second of two items "{made.title}" ({made.id})'):
                vault.client.delete_item(made.id, vault.vault_id)

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Ask Connect anew until ``condition`` holds or the patience ends; return whether it holds."""
        deadline = time.monotonic() + self._visible_seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
            self._vault.forget()
        return True


def _fill(item: Item, values: Generators) -> None:
    """Generate the value of each field in ``item``, which gets the fields and sections that it lacks."""
    for path, generate in values.items():
        fields = matching_fields(item, path)
        if fields:
            fields[0].value = fields[0].value or generate()
            continue
        section = None
        if path.section is not None:
            item.sections = item.sections or []
            section = next((s for s in item.sections if s.label == path.section), None)
            if section is None:
                section = Section(id=secrets.token_hex(13), label=path.section)  # 26 characters, as all ids
                item.sections.append(section)
        item.fields = item.fields or []
        item.fields.append(
            Field(
                type="CONCEALED",
                label=path.field,
                value=generate(),
                section=FieldSection(id=section.id) if section else None,
            )
        )
