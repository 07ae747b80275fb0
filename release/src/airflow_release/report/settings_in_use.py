"""Finds the settings in use that the new Airflow removed, renamed or means to remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SUFFIXES = ("_CMD", "_SECRET")
"""`AIRFLOW__CORE__FERNET_KEY_CMD` and `…_SECRET` set the option `core.fernet_key`, too."""


def compare(
    in_use: Mapping[str, list[str]], old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Compare the variables in use with what two images (`image_facts`) say of their options.

    Each change is {"variable", "services", "change", "name", "replacement", "since", "reason"}. `change` is

    - removed: the old Airflow had the option and the new one has not, so that the variable does nothing
    - provider: as removed, but a provider package that the new image lacks may have it
    - renamed: `replacement` is the variable to set; the old name still works
    - deprecated: it works, and `reason` says what comes in its place
    """
    changes = []
    for variable, services in in_use.items():
        base = _option_variable(variable, old, new)
        suffix = variable[len(base) :]
        change = {
            "variable": variable,
            "services": services,
            "replacement": None,
            "since": None,
            "reason": "",
        }
        if renamed := new["renamed_options"].get(base):
            change |= {
                "change": "renamed",
                "name": renamed["name"],
                "replacement": renamed["variable"] + suffix,
                "since": renamed["since"],
            }
        elif option := new["options"].get(base):
            if not option["deprecated"]:
                continue
            change |= {"change": "deprecated", "name": option["name"], "since": option["deprecated"]}
            change["reason"] = " ".join(option["reason"].split())
        elif known := old["options"].get(base) or old["renamed_options"].get(base):
            kind = "provider" if base in new["provider_options"] else "removed"
            change |= {"change": kind, "name": known["name"]}
        else:  # a name of the operator's own, or an option of a later Airflow
            continue
        changes.append(change)
    return sorted(changes, key=lambda change: (_WORST_FIRST.index(change["change"]), change["variable"]))


_WORST_FIRST = ("removed", "provider", "renamed", "deprecated")


def _option_variable(variable: str, *images: Mapping[str, Any]) -> str:
    known = {name for image in images for part in ("options", "renamed_options") for name in image[part]}
    for suffix in SUFFIXES:
        base = variable.removesuffix(suffix)
        if variable not in known and base in known:
            return base
    return variable
