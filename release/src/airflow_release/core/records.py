"""The releases that this host had: for each its files, images and, when it was left, its last backup."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host


@dataclass
class Release:
    """One set of files and images that ran, or runs."""

    id: str
    airflow_version: str
    since: float
    """When it went live, in seconds since the epoch."""
    images: dict[str, str] = field(default_factory=dict)
    revision: str = ""
    """The schema's revision as Alembic records it."""
    bundle: str = ""
    """The backup that was made when it was left."""
    kept: str = ""
    """Its database under the name by which it stays, where no backup could be made."""

    def directory(self, host: Host) -> Path:
        """Return where its record is."""
        return host.releases / "records" / self.id

    def files(self, host: Host) -> Path:
        """Return where its files are, once it has been left."""
        return self.directory(host) / "files"


def save(host: Host, release: Release) -> None:
    """Write a release's record."""
    replace_file(release.directory(host) / "release.json", json.dumps(asdict(release), indent=2) + "\n")


def load(host: Host, identifier: str) -> Release:
    """Return a release.

    Raises:
        ReleaseError: there is none of that id.
    """
    file = host.releases / "records" / identifier / "release.json"
    if "/" in identifier or not file.exists():
        known = ", ".join(release.id for release in history(host)) or "none"
        raise ReleaseError(f"There is no release {identifier!r} on this host. Known: {known}.")
    return Release(**json.loads(file.read_text()))


def history(host: Host) -> list[Release]:
    """Return all releases, the oldest first."""
    files = (host.releases / "records").glob("*/release.json")
    return sorted((Release(**json.loads(file.read_text())) for file in files), key=lambda one: one.since)


def current(host: Host, revision: str) -> Release:
    """Return the release that runs; the first time it is given a record."""
    pointer = host.releases / "current"
    if pointer.exists():
        return load(host, pointer.read_text().strip())
    release = new(host, host.directory, revision)
    save(host, release)
    make_current(host, release)
    return release


def new(host: Host, files: Path, revision: str) -> Release:
    """Describe the release that these files make."""
    environment = host.environment(project=files)
    version = environment["AIRFLOW_VERSION"]
    now = time.time()
    return Release(
        id=f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{version}",
        airflow_version=version,
        since=now,
        images={name: value for name, value in environment.items() if name.endswith("_IMAGE")},
        revision=revision,
    )


def make_current(host: Host, release: Release) -> None:
    """Note which release runs."""
    replace_file(host.releases / "current", release.id + "\n")


def previous(host: Host) -> Release:
    """Return the release before the one that runs.

    Raises:
        ReleaseError: there was none.
    """
    running = current(host, "")
    earlier = [one for one in history(host) if one.since < running.since and one.files(host).is_dir()]
    if not earlier:
        raise ReleaseError(
            "There is no earlier release to go back to: nothing has been upgraded on this host yet."
        )
    return earlier[-1]


def needed(host: Host) -> list[Release]:
    """Return the release that runs and the one that a rollback goes to, as far as there are any."""
    known = history(host)
    return [one for one in known[:-1] if one.files(host).is_dir()][-1:] + known[-1:]
