"""The items of the sandbox's vault: in memory under a lock, and in one JSON file replaced as a whole."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from sandbox.item_document import Document, checked_item, new_id
from sandbox.item_patch import patched

# 1Password names accounts by ids of this form.
EDITOR = "SANDBOXCONNECTSERVERACCOUNT"


class VaultStore:
    """One vault. Every method may be called from any thread; what it returns is the caller's own copy."""

    def __init__(self, path: Path, vault_id: str, name: str = "Sandbox") -> None:
        """Open the vault kept at ``path`` (made when absent); another ``vault_id`` starts an empty vault."""
        self._path = path
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if saved.get("vault", {}).get("id") == vault_id:
            self._vault: Document = saved["vault"]
            self._items: dict[str, Document] = saved["items"]
        else:
            now = _now()
            self._vault = {
                "id": vault_id,
                "name": name,
                "description": "Made-up secrets for local and test hosts",
                "attributeVersion": 1,
                "contentVersion": 0,
                "type": "USER_CREATED",
                "createdAt": now,
                "updatedAt": now,
            }
            self._items = {}
            self._save()

    @property
    def vault_id(self) -> str:
        """The vault's identifier."""
        return str(self._vault["id"])

    def vault(self) -> Document:
        """Return the vault's own description."""
        with self._lock:
            return {**self._vault, "items": len(self._items)}

    def items(self) -> list[Document]:
        """Return all items, oldest first."""
        with self._lock:
            return copy.deepcopy(list(self._items.values()))

    def get(self, item_id: str) -> Document | None:
        """Return one item, or None."""
        with self._lock:
            return copy.deepcopy(self._items.get(item_id))

    def create(self, document: object) -> Document:
        """Add an item under a new id. Raises InvalidItemError."""
        with self._lock:
            now = _now()
            return self._put(
                {"id": new_id(), "createdAt": now}, 1, checked_item(document, self.vault_id), now
            )

    def replace(self, item_id: str, document: object) -> Document | None:
        """Put a whole item in the place of another; None when there is none. Raises InvalidItemError.

        Like the real server this knows no precondition: of two writers, the last one wins.
        """
        with self._lock:
            if item_id not in self._items:
                return None
            return self._update(item_id, checked_item(document, self.vault_id))

    def patch(self, item_id: str, operations: object) -> Document | None:
        """Apply a JSON Patch, all of it or nothing; None when there is no item. Raises InvalidItemError."""
        with self._lock:
            item = self._items.get(item_id)
            if item is None:
                return None
            changed = checked_item(patched(item, operations), self.vault_id)
            return self._update(item_id, changed) if operations else copy.deepcopy(item)

    def delete(self, item_id: str) -> bool:
        """Remove an item; tell whether there was one."""
        with self._lock:
            if self._items.pop(item_id, None) is None:
                return False
            self._save()
            return True

    def ensure_fields(
        self, title: str, sections: Iterable[tuple[str, str, str]], overwrite: bool = False
    ) -> None:
        """Make sure that item ``title`` has each (section, label, value).

        Other fields stay; so does the value of one that is there already, unless ``overwrite`` is set.
        """
        with self._lock:
            item = next((item for item in self._items.values() if item["title"] == title), None)
            document = copy.deepcopy(item) or {
                "title": title,
                "vault": {"id": self.vault_id},
                "category": "API_CREDENTIAL",
                "sections": [],
                "fields": [],
            }
            for section_label, label, value in sections:
                section = next((s for s in document["sections"] if s["label"] == section_label), None)
                if section is None:
                    section = {"id": new_id(), "label": section_label}
                    document["sections"].append(section)
                wanted = {"id": section["id"]}
                named = (field for field in document["fields"] if field["label"] == label)
                field = next((field for field in named if field.get("section") == wanted), None)
                if field is None:
                    document["fields"].append(
                        {"type": "CONCEALED", "label": label, "section": wanted, "value": value}
                    )
                elif overwrite:
                    field["value"] = value
            if item is None:
                self.create(document)
            elif document != item:
                self.replace(item["id"], document)

    def _update(self, item_id: str, attributes: Document) -> Document:
        item = self._items[item_id]
        return self._put(
            {key: item[key] for key in ("id", "createdAt")}, item["version"] + 1, attributes, _now()
        )

    def _put(self, identity: Document, version: int, attributes: Document, now: str) -> Document:
        item = {**identity, **attributes, "version": version, "updatedAt": now, "lastEditedBy": EDITOR}
        self._items[item["id"]] = item
        self._vault["contentVersion"] += 1
        self._vault["updatedAt"] = now
        self._save()
        return copy.deepcopy(item)

    def _save(self) -> None:
        """Replace the file in one step, so that a crash leaves the old state or the new one."""
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"vault": self._vault, "items": self._items}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
