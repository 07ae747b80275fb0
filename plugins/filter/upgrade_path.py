"""Says whether one Airflow release can follow another: known, newer, fit, not withdrawn, buildable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

DOCUMENTATION = """
name: upgrade_path
short_description: Find what speaks against an upgrade of Airflow
description:
  - Takes the version that runs and returns a list of problems in words, empty when the target can follow it.
  - The version that runs may be its own target, for a change that is not one of version.
options:
  _input:
    description: The version that runs.
    type: str
    required: true
  target:
    description: The version that is asked for.
    type: str
    required: true
  releases:
    description:
      - The known releases by version. C(python) is the Python that a release asks for, as a specifier
        (PEP 440). C(yanked) is the reason why a release was withdrawn from the package index, and
        C(refused) the reason why it does not work on this platform.
    type: dict
    required: true
  stops:
    description: Whoever runs a release before C(before) and wants one after C(after) first goes to C(stop).
    type: list
    elements: dict
    default: []
  locks:
    description: The versions that can be built here; leave it out where images come whole from a registry.
    type: list
    elements: str
  python:
    description: The Python that the image will have; leave it out if the image has one that fits.
    type: str
    default: ""
"""

RELEASE = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
COMMAND = "ansible-playbook upgrade.yml -e airflow_version={}"


def upgrade_path(
    running: object,
    target: object,
    releases: Mapping[str, Mapping[str, Any]],
    stops: Iterable[Mapping[str, Any]] = (),
    locks: Iterable[str] | None = None,
    python: str = "",
) -> list[str]:
    """Return what speaks against going from `running` to `target`, in words for the person who asked.

    Raises:
        AnsibleFilterError: the data (releases, stops) is not what it has to be.
    """
    try:
        return list(_problems(str(running), str(target), releases, list(stops), locks, python))
    except (InvalidVersion, InvalidSpecifier, KeyError, AttributeError, TypeError) as error:
        raise AnsibleFilterError(f"the table of releases cannot be read: {error!r}") from error


def _problems(
    running: str,
    target: str,
    releases: Mapping[str, Mapping[str, Any]],
    stops: list[Mapping[str, Any]],
    locks: Iterable[str] | None,
    python: str,
) -> Iterator[str]:
    known = sorted(map(Version, releases.keys()))
    span = f"{known[0]} to {known[-1]}" if known else "none"
    unknown = False
    for version, text in (
        (running, f"what runs on the host is Airflow {running or 'of no known version'}"),
        (target, f"Airflow {target or 'of no version'} is asked for"),
    ):
        if version not in releases or not RELEASE.fullmatch(version):
            unknown = True
            yield f"{text}, which is not among the releases that an upgrade knows ({span})."
    if unknown:
        return
    release = releases[target]
    here, there = Version(running), Version(target)
    if there < here:
        yield (
            f"Airflow {target} is older than {running}, which runs: an upgrade never goes back. rollback.yml "
            "returns to the release before."
        )
        return
    if there > here:
        if release.get("yanked"):
            yield f"Airflow {target} was yanked from PyPI: {release['yanked']}."
        if release.get("refused"):
            yield f"Airflow {target} does not work on this platform: {release['refused']}."
        if stop := _next_stop(here, there, stops):
            yield (
                f"An upgrade from {running} to {target} needs a stop at {stop['stop']} ({stop['reason']}). "
                f"Upgrade to that version first: {COMMAND.format(stop['stop'])}"
            )
    if locks is not None and target not in locks:
        yield (
            f"Airflow {target} cannot be built from packages here: there is no "
            f"images/airflow/locks/{target}.txt. Make it: images/airflow/relock {target}"
        )
    if python and not SpecifierSet(release["python"]).contains(python):
        yield f"Airflow {target} asks for Python {release['python']}, and the image has Python {python}."


def _next_stop(here: Version, there: Version, stops: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the nearest stop that the way passes."""
    passed = [
        stop for stop in stops if here < Version(str(stop["before"])) and there > Version(str(stop["after"]))
    ]
    return min(passed, key=lambda stop: Version(str(stop["stop"])), default=None)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"upgrade_path": upgrade_path}
