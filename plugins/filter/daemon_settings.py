"""Merges this project's settings into a host's /etc/docker/daemon.json, and keeps those of an operator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: daemon_settings
short_description: Merge settings into the text of a daemon.json
description:
  - Takes the text of a C(daemon.json) and returns it with these settings. Other keys stay as they are.
  - A key is replaced as a whole, as C(log-opts) only fits its own C(log-driver).
  - A text that has all of this is returned as it is, however it is laid out.
options:
  _input:
    description: The text of the host's file; empty where there is none.
    type: str
    required: true
  settings:
    description: The settings that the file has to have.
    type: dict
    required: true
  retired:
    description: Keys that earlier versions of this project wrote and that it no longer wants.
    type: list
    elements: str
    default: []
"""

FILE = "/etc/docker/daemon.json"
REMEDY = "Nothing was changed. Correct the file, or move it away."


def daemon_settings(text: str, settings: Mapping[str, Any], retired: Iterable[str] = ()) -> str:
    """Return the text of a daemon.json with these settings and without the retired keys.

    Raises:
        AnsibleFilterError: the host's text is not a JSON object.
    """
    found = _parse(text)
    merged = {key: value for key, value in found.items() if key not in set(retired)} | dict(settings)
    # As text, since to Python 1 is True.
    if text.strip() and _canonical(merged) == _canonical(found):
        return text.rstrip("\n")
    return json.dumps(merged, indent=4)


def _parse(text: str) -> dict[str, Any]:
    try:
        # Docker takes an empty file, too.
        found = json.loads(text, parse_constant=_refuse) if text.strip() else {}
        _canonical(found)
    except (ValueError, RecursionError) as error:
        raise AnsibleFilterError(f"{FILE} on the host is not valid JSON: {error}. {REMEDY}") from error
    if not isinstance(found, dict):
        raise AnsibleFilterError(f"{FILE} on the host is not a JSON object. {REMEDY}")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _canonical(value: object) -> str:
    """Return one text for equal values. Raises ValueError for a number beyond JSON, such as 1e999."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"daemon_settings": daemon_settings}
