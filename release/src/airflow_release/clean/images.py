"""The platform's own images that nothing needs any more, and what Docker keeps for builds."""

from __future__ import annotations

import calendar
import re
import shutil
import time
from pathlib import Path

from airflow_release.core import records
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings

PREFIX = "airflow-platform/"
"""What the names of this platform's images begin with; other images are others' to remove."""

NAMED_IN = ("docker-compose.yaml", ".env", "build/docker-bake.json")
"""Files of a release that name images: what runs, what DAGs run, and what the next build begins with."""

SHORT_DAYS = 1
"""Days for which an image stays also where disk is short: it may just have been built, to run in a minute."""

_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9][a-z0-9._/-]*:[\w][\w.-]*", re.ASCII)


def clean(
    host: Host, settings: Settings, *, short: bool, dry_run: bool = False, now: float | None = None
) -> list[str]:
    """Remove images that have not been needed for so many days; where disk is `short`, for a day.

    The images of the release that runs and of the one before it stay in any case. The caller holds the
    platform's lock, and no operation is active. Returns in words what went.

    Raises:
        ReleaseError: an image cannot be removed; the others were.
    """
    now = time.time() if now is None else now
    days = min(SHORT_DAYS, settings.image_days) if short else settings.image_days
    said, problems = [], []
    goes = unneeded(host, days, now)
    for name in goes:
        try:
            if not dry_run:
                host.run(["docker", "image", "rm", name], doing=f"removing the image {name}")
            said.append(f"the image {name}")
        except ReleaseError as error:
            problems.append(": ".join([str(error), *error.log.strip().splitlines()[-1:]]))
    if problems:
        raise ReleaseError("; ".join([*problems, *(f"removed: {text}" for text in said)]))
    return said


def clean_build_cache(host: Host, settings: Settings, *, short: bool, dry_run: bool = False) -> list[str]:
    """Have Docker remove what no build used for so many days; where disk is `short`, all of it.

    Docker does not say beforehand how much that is.
    """
    if dry_run:
        return ["build cache" + ("" if short else f" that no build used for {settings.image_days} days")]
    age = [] if short else [f"--filter=until={settings.image_days * 24}h"]
    said = host.run(
        ["docker", "builder", "prune", "--all", "--force", *age],
        timeout=None,
        doing="removing the build cache",
    )
    size = re.search(r"^Total(?: reclaimed space)?:\s*(\S+)", said, re.MULTILINE)
    return [f"build cache of {size[1]}"] if size and not size[1].startswith("0B") else []


def unneeded(host: Host, days: int, now: float) -> list[str]:
    """Return the platform's images that nothing has needed for so many days, the oldest first.

    An image that no record names is as old as its build.
    """
    there = host.run(
        ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={PREFIX}*"],
        timeout=60,
        doing="listing the images",
    ).split()
    kept, left = _needed(host)
    candidates = [name for name in there if name not in kept and not name.endswith(":<none>")]
    if not candidates:
        return []
    built = host.run(
        ["docker", "image", "inspect", "--format={{.Created}}", *candidates],
        timeout=60,
        doing="looking at the images",
    ).split()
    ages = {name: max(_seconds(created), left.get(name, 0.0)) for name, created in zip(candidates, built)}
    return [
        name for name in sorted(ages, key=lambda one: (ages[one], one)) if ages[name] <= now - days * 86_400
    ]


def _needed(host: Host) -> tuple[set[str], dict[str, float]]:
    """Return the images that stay, and for those of earlier releases when they were left."""
    containers = host.run(
        ["docker", "container", "ls", "--all", "--format={{.Image}}"],
        timeout=60,
        doing="looking at the containers",
    )
    # A DAG's container names its image in full.
    kept = {name.removeprefix("docker.io/") for name in containers.split()} | set(_named(host.directory))
    for release in records.needed(host):
        kept |= _of(host, release)
    left: dict[str, float] = {}
    releases = records.history(host)
    for release, successor in zip(releases, releases[1:]):
        left.update(dict.fromkeys(_of(host, release), successor.since))
    return kept, left


def _of(host: Host, release: records.Release) -> set[str]:
    return {*release.images.values(), *_named(release.files(host))}


def _named(directory: Path) -> set[str]:
    files = [directory / name for name in NAMED_IN]
    return {name for file in files if file.is_file() for name in _NAME.findall(file.read_text())}


def is_short(host: Host, settings: Settings) -> bool:
    """Say whether less of Docker's disk is free than is meant to be."""
    disk = shutil.disk_usage(host.volume("postgres_data"))
    return disk.free * 100 < settings.free_percent * disk.total


def _seconds(created: str) -> float:
    """Read when an image was built, such as 2026-01-01T00:00:00.123456789Z; seconds since the epoch.

    What Docker says of an image whose build had no time is before the epoch, and counts as very old.
    """
    return float(calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S")))
