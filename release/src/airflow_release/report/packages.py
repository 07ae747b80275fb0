"""Compares the Python packages of two images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PROVIDER = "apache-airflow-providers-"
# The parts of a version by which it is ordered (PEP 440); anything else comes before all versions.
VERSION = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)(?:[-_.]?(?P<phase>a|alpha|b|beta|c|rc|pre|preview)"
    r"[-_.]?(?P<pre>\d*))?(?:(?P<post>-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*))?(?:[-_.]?dev[-_.]?(?P<dev>\d*))?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE,
)
PHASES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
FINAL, INFINITE = 3, float("inf")


def version_key(version: str) -> tuple[Any, ...]:
    """Return what versions are ordered by, as in https://peps.python.org/pep-0440/.

    The host has no `packaging`; its tests compare this with it.
    """
    match = VERSION.fullmatch(version.strip())
    if match is None:
        return ()
    release = tuple(int(part) for part in match["release"].split("."))
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    phase = (PHASES[match["phase"].lower()], int(match["pre"] or 0)) if match["phase"] else (FINAL, 0)
    post = int(re.sub(r"\D", "", match["post"]) or 0) if match["post"] else -1
    dev = int(match["dev"] or 0) if match["dev"] is not None else INFINITE
    if dev != INFINITE and not match["phase"] and not match["post"]:
        phase = (-1, 0)  # 1.0.dev1 comes before 1.0a1
    local = tuple(
        (1, int(part), "") if part.isdigit() else (0, 0, part.lower())
        for part in re.split(r"[-_.]", match["local"] or "")
        if part
    )
    return (int(match["epoch"] or 0), release, phase, post, dev, local)


def compare(old: Mapping[str, str], new: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the packages that differ: providers first, then by name.

    Each is {"name", "from", "to", "change", "provider"}; `from` and `to` are versions or None, `change` is
    added, removed, upgraded or downgraded.
    """
    changes = []
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before is None:
            change = "added"
        elif after is None:
            change = "removed"
        else:
            change = "upgraded" if version_key(before) < version_key(after) else "downgraded"
        provider = name.startswith(PROVIDER)
        changes.append({"name": name, "from": before, "to": after, "change": change, "provider": provider})
    return sorted(changes, key=lambda change: (not change["provider"], change["name"]))
