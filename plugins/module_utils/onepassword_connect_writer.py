"""Adds generated fields to items of 1Password Connect, and replaces values that are outdated.

A value that was replaced stays beside the new one; any other value that is there is never changed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from ansible.module_utils.onepassword_connect import (
    ConnectError,
    ConnectVault,
    FieldPath,
    field_value,
    matching_fields,
)
from onepasswordconnectsdk.models import Field, FieldSection, Item, ItemVault, Section
from onepasswordconnectsdk.utils import PathBuilder

CATEGORY = "API_CREDENTIAL"
ATTEMPTS = 5
VISIBLE_SECONDS = 30.0
POLL_SECONDS = 0.5

Generators = Mapping[FieldPath, Callable[[], str]]


def previous(path: FieldPath) -> FieldPath:
    """Return where the value is kept that a field had before it was replaced."""
    return replace(path, field=f"{path.field} (previous)")


class ConnectWriter:
    """Makes sure that fields have a value, and no outdated one, whoever else does the same at that moment.

    Connect's API has no precondition ("write if unchanged"), so this looks, writes, and looks again. Two runs
    that create the same item end with one item: the older stays; a run deletes only what it has just made.
    """

    def __init__(
        self,
        vault: ConnectVault,
        visible_seconds: float = VISIBLE_SECONDS,
        outdated: Mapping[FieldPath, str] | None = None,
    ) -> None:
        """``visible_seconds`` is how long a write may take to show when Connect is asked again.

        ``outdated`` has values that are to be replaced where they are found. Saying which value has to go,
        and not only that one has to, makes it harmless to ask twice: by then it is not there any more.
        """
        self._vault = vault
        self._visible_seconds = visible_seconds
        self._outdated = dict(outdated or {})

    def due(self, wanted: Generators) -> dict[FieldPath, bool]:
        """Return which of the fields (all of one item) need a value, and whether they have one to replace.

        Raises ConnectError.
        """
        item = self._vault.item(next(iter(wanted)).item)
        values = {path: None if item is None else field_value(item, path) for path in wanted}
        return {path: bool(value) for path, value in values.items() if self._is_due(path, value)}

    def ensure(self, wanted: Generators) -> dict[FieldPath, bool]:
        """Give a value to the fields (all of one item) that need one; return those as `due` does.

        Raises ConnectError.
        """
        title = next(iter(wanted)).item
        # Whether or not a write arrived, its repetition has to write the same.
        makers = {path: cache(generate) for path, generate in wanted.items()}
        written: dict[FieldPath, bool] = {}
        for attempt in range(1, ATTEMPTS + 1):
            self._wait(lambda: len(self._vault.titled(title)) < 2)  # Another run may be taking its copy back.
            due = self.due(wanted)
            if not due:
                return written
            values = {path: makers[path] for path in due}
            written = {**due, **written}
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

    def _is_due(self, path: FieldPath, value: str | None) -> bool:
        return not value or value == self._outdated.get(path)

    def _fill(self, item: Item, values: Generators) -> None:
        """Give ``item`` the values that it needs; what is replaced goes to the field for the previous one."""
        for path, generate in values.items():
            value = field_value(item, path)
            if not self._is_due(path, value):
                continue
            if value:
                _put(item, previous(path), value)
            _put(item, path, generate())

    def _create(self, title: str, values: Generators) -> Item:
        vault = self._vault
        item = Item(
            title=title, category=CATEGORY, vault=ItemVault(id=vault.vault_id), sections=[], fields=[]
        )
        self._fill(item, values)
        with vault.doing(f'create item "{title}"'):
            return vault.client.create_item(vault.vault_id, item)

    def _add(self, item_id: str, title: str, values: Generators) -> Item:
        vault = self._vault
        # Not the remembered item: between reading and writing it, another's write would be lost.
        item = vault.fetch(item_id, f'item "{title}"')
        before = {field.id: field.value for field in item.fields or [] if field.id}
        self._fill(item, values)
        changed = [field for field in item.fields or [] if before.get(field.id) != field.value]
        if not changed:  # another run was quicker
            return item
        with vault.doing(f'write to item "{title}"'):
            if all(field.id in before for field in changed):
                return self._change(item, changed)
            # Connect gives a field its id, so a patch that adds one would add two when it is repeated.
            return vault.client.update_item(item_id, vault.vault_id, item)

    def _change(self, item: Item, fields: list[Field]) -> Item:
        """Write the values of these fields and nothing else: others write to the same item meanwhile.

        By JSON Patch, which the SDK does not have, only the API: PATCH /vaults/{vaultUuid}/items/{itemUuid}.
        """
        path = PathBuilder().vaults(self._vault.vault_id).items(item.id).build()
        # "add" also replaces (RFC 6902, 4.1), and an emptied field may have no value to replace.
        changes = [
            {"op": "add", "path": f"/fields/{field.id}/value", "value": field.value} for field in fields
        ]
        if self._vault.client.build_request("PATCH", path, changes).json()["id"] != item.id:
            raise ValueError("not the item")
        return item

    def _wait_until_stored(self, item: Item, values: Generators) -> None:
        def stored() -> bool:
            now = self._vault.fetch(item.id, f'item "{item.title}"')
            return not any(self._is_due(path, field_value(now, path)) for path in values)

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


def _put(item: Item, path: FieldPath, value: str) -> None:
    """Set a field of ``item``, which gets the field and its section where it lacks them."""
    if fields := matching_fields(item, path):
        fields[0].value = value
        return
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
            value=value,
            section=FieldSection(id=section.id) if section else None,
        )
    )
