"""Applies the part of RFC 6902 (JSON Patch) that Connect supports: add, remove, replace; fields go by id."""

from __future__ import annotations

import copy
import re
from typing import Any

from sandbox.item_document import SERVER_ATTRIBUTES, Document, InvalidItemError

OPERATIONS = frozenset(("add", "remove", "replace"))
INDEX = re.compile(r"0|[1-9][0-9]{0,5}")


def patched(item: Document, operations: object) -> Document:
    """Return a copy of ``item`` with all ``operations`` applied in order.

    Raises InvalidItemError when one of them is malformed or points at nothing; ``item`` itself never changes.
    """
    if not isinstance(operations, list):
        raise InvalidItemError("A patch must be a list of operations")
    document = copy.deepcopy(item)
    for operation in operations:
        document = _apply(document, operation)
    return document


def _apply(document: Document, operation: object) -> Document:
    if not isinstance(operation, dict):
        raise InvalidItemError("A patch operation must be an object")
    name, path = operation.get("op"), operation.get("path")
    if name not in OPERATIONS:
        raise InvalidItemError("A patch operation must be add, remove or replace")
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidItemError("A patch operation needs a path that starts with /")
    if name != "remove" and "value" not in operation:
        raise InvalidItemError("Adding and replacing need a value")
    value = copy.deepcopy(operation.get("value"))
    if path == "/":  # Equivalent to a PUT request, says the contract.
        if name == "remove" or not isinstance(value, dict):
            raise InvalidItemError("A whole item can only be replaced by another")
        kept = {key: document[key] for key in SERVER_ATTRIBUTES & document.keys()}
        return {"category": document["category"], **value, **kept}

    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    if (parents[0] if parents else last) in SERVER_ATTRIBUTES:
        raise InvalidItemError("That attribute is the server's")
    target: Any = document
    for part in parents:
        target = target[_place(target, part)]
    if name == "remove":
        del target[_place(target, last)]
    elif isinstance(target, list):
        _change_list(target, name, last, value)
    elif isinstance(target, dict):
        _change_object(target, name, last, value)
    else:
        raise InvalidItemError("The path leads into a plain value")
    return document


def _change_list(target: list[Any], operation: str, part: str, value: Any) -> None:
    if operation == "add" and part == "-":
        target.append(value)
        return
    place = _place(target, part)
    if INDEX.fullmatch(part) and operation == "add":
        target.insert(place, value)
    else:
        # A field keeps the id that it was addressed by.
        identity = target[place].get("id") if isinstance(target[place], dict) else None
        target[place] = {**value, "id": identity} if identity and isinstance(value, dict) else value


def _change_object(target: Document, operation: str, part: str, value: Any) -> None:
    current = target.get(part)
    if operation == "add" and isinstance(current, list) and not isinstance(value, list):
        current.append(value)  # "add /fields" with one field appends it, as in the contract's example.
    else:
        target[part] = value


def _place(target: Any, part: str) -> Any:
    """Return the key or index that ``part`` means in ``target``; list members may be named by their id."""
    if isinstance(target, dict) and part in target:
        return part
    if isinstance(target, list):
        for index, member in enumerate(target):
            if isinstance(member, dict) and member.get("id") == part:
                return index
        if INDEX.fullmatch(part) and int(part) < len(target):
            return int(part)
    raise InvalidItemError("The path points at nothing")
