"""Checks and completes item documents as 1Password Connect does: ids, generated values, sections."""

from __future__ import annotations

import math
import secrets
import string
from typing import Any

Document = dict[str, Any]

# fmt: off
CATEGORIES = frozenset((
    "LOGIN", "PASSWORD", "API_CREDENTIAL", "SERVER", "DATABASE", "CREDIT_CARD", "MEMBERSHIP", "PASSPORT",
    "SOFTWARE_LICENSE", "OUTDOOR_LICENSE", "SECURE_NOTE", "WIRELESS_ROUTER", "BANK_ACCOUNT", "DRIVER_LICENSE",
    "IDENTITY", "REWARD_PROGRAM", "DOCUMENT", "EMAIL_ACCOUNT", "SOCIAL_SECURITY_NUMBER", "MEDICAL_RECORD",
    "SSH_KEY", "CUSTOM",
))
# fmt: on
FIELD_TYPES = frozenset(("STRING", "EMAIL", "CONCEALED", "URL", "TOTP", "DATE", "MONTH_YEAR", "MENU"))
PURPOSES = frozenset(("", "USERNAME", "PASSWORD", "NOTES"))
CHARACTER_SETS = {"LETTERS": string.ascii_letters, "DIGITS": string.digits, "SYMBOLS": "!@.-_*"}

# What only the server writes; a client that sends a whole item back (as the SDK does) sends these too.
SERVER_ATTRIBUTES = frozenset(("id", "vault", "version", "state", "createdAt", "updatedAt", "lastEditedBy"))


class InvalidItemError(ValueError):
    """The document is not an item; the message says why and quotes no value."""


def new_id() -> str:
    """Return an identifier in 1Password's form: 26 characters of a-z and 0-9."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(26))


def checked_item(document: object, vault_id: str) -> Document:
    """Return the attributes of ``document`` that a client may write, complete and in canonical form.

    Raises InvalidItemError when the document breaks the contract.
    """
    item = _object(document, "item")
    vault = _object(item.get("vault"), "vault")
    if vault.get("id") != vault_id:
        raise InvalidItemError("The item's vault is not the vault of the request")
    category = _string(item, "category").upper()
    if category not in CATEGORIES:
        raise InvalidItemError("Invalid item category")
    sections = _sections(item)
    return {
        "title": _string(item, "title"),
        "vault": {"id": vault_id},
        "category": category,
        "urls": [_url(url) for url in _list(item, "urls")],
        "favorite": _boolean(item, "favorite"),
        "tags": _tags(item),
        "sections": sections,
        "fields": _fields(item, {section["id"] for section in sections}),
    }


def _sections(item: Document) -> list[Document]:
    sections = []
    for entry in _list(item, "sections"):
        section = _object(entry, "section")
        sections.append({"id": _string(section, "id") or new_id(), "label": _string(section, "label")})
    _refuse_duplicates(sections, "section")
    return sections


def _fields(item: Document, section_ids: set[str]) -> list[Document]:
    fields = [_field(_object(entry, "field"), section_ids) for entry in _list(item, "fields")]
    _refuse_duplicates(fields, "field")
    return fields


def _field(field: Document, section_ids: set[str]) -> Document:
    # The contract's own examples spell types in lower case.
    kind = (_string(field, "type") or "STRING").upper()
    purpose = _string(field, "purpose")
    if kind not in FIELD_TYPES:
        raise InvalidItemError("Invalid field type")
    if purpose not in PURPOSES:
        raise InvalidItemError("Invalid field purpose")
    checked: Document = {
        "id": _string(field, "id") or new_id(),
        "type": kind,
        "label": _string(field, "label"),
    }
    if purpose:
        checked["purpose"] = purpose
    if field.get("section") is not None:
        section_id = _string(_object(field["section"], "section"), "id")
        if section_id not in section_ids:
            raise InvalidItemError("A field names a section that the item does not have")
        checked["section"] = {"id": section_id}
    value = _string(field, "value")
    if _boolean(field, "generate") and not value:
        value = generated_value(field.get("recipe"))
    if value:
        checked["value"] = value
        if purpose == "PASSWORD":
            checked["entropy"] = round(len(value) * math.log2(len(set(value)) or 1), 2)
    return checked


def generated_value(recipe: object) -> str:
    """Return a new value by a GeneratorRecipe; without one, 32 characters of any set."""
    rules = {} if recipe is None else _object(recipe, "recipe")
    length = rules.get("length", 32)
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= 64:
        raise InvalidItemError("Invalid recipe: length must be from 1 to 64")
    names = _list(rules, "characterSets") or list(CHARACTER_SETS)
    if not all(isinstance(name, str) and name in CHARACTER_SETS for name in names):
        raise InvalidItemError("Invalid recipe: unknown character set")
    excluded = set(_string(rules, "excludeCharacters"))
    alphabet = [c for name in names for c in CHARACTER_SETS[name] if c not in excluded]
    if not alphabet:
        raise InvalidItemError("Invalid recipe: no characters are left to choose from")
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _url(entry: object) -> Document:
    url = _object(entry, "url")
    if not _string(url, "href"):
        raise InvalidItemError("A url needs an href")
    return {"href": url["href"], "label": _string(url, "label"), "primary": _boolean(url, "primary")}


def _tags(item: Document) -> list[str]:
    tags = _list(item, "tags")
    if not all(isinstance(tag, str) for tag in tags):
        raise InvalidItemError("Invalid tags: each must be text")
    return tags


def _refuse_duplicates(entries: list[Document], what: str) -> None:
    if len({entry["id"] for entry in entries}) != len(entries):
        raise InvalidItemError(f"Two {what}s have the same id")


# Absent and null mean the same, as they do to the real server.
def _object(value: object, what: str) -> Document:
    if not isinstance(value, dict):
        raise InvalidItemError(f"Invalid {what}: must be an object")
    return value


def _string(owner: Document, key: str) -> str:
    value = owner.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidItemError(f"Invalid {key}: must be text")
    return value or ""


def _boolean(owner: Document, key: str) -> bool:
    value = owner.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidItemError(f"Invalid {key}: must be true or false")
    return bool(value)


def _list(owner: Document, key: str) -> list[Any]:
    value = owner.get(key)
    if value is not None and not isinstance(value, list):
        raise InvalidItemError(f"Invalid {key}: must be a list")
    return value or []
