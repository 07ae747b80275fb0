"""Looks at what is to be restored before anything is touched: what is in it, and what speaks against it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from airflow_release.backup import backups, bundle, retention, sqlfile, store
from airflow_release.backup.offhost import Remote
from airflow_release.core import images
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import move
from airflow_release.core.host import Host
from airflow_release.core.lock import exclusive
from airflow_release.core.settings import Settings


@dataclass(frozen=True)
class Target:
    """What the data is to fit. An empty field is not looked at."""

    airflow_version: str = ""
    image: str = ""
    """The Airflow image that has to know the data's schema."""
    fernet_fingerprints: Sequence[str] = ()
    """Of the keys in the vault."""


@dataclass
class Examined:
    """A backup or SQL file that is whole, and every reason why it cannot be restored here."""

    path: str
    """The file that was found, for every further look: `latest` may be another one by then."""
    database: str
    """What the switch takes: `bundle:<path>` or `sql:<path>`, with the same path."""
    created: str
    """In ISO 8601 and UTC; "" for plain SQL, which does not say."""
    airflow_version: str
    schema_revision: str
    counts: dict[str, int]
    newest_run: str
    size: int
    database_size: int
    refused: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.path).name

    def age(self, now: datetime | None = None) -> str:
        """Return how old the data are, in words."""
        if not self.created:
            return "of unknown age"
        made = datetime.strptime(self.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        minutes = int(((now or datetime.now(timezone.utc)) - made).total_seconds() // 60)
        for unit, size in (("day", 24 * 60), ("hour", 60), ("minute", 1)):
            # "30 hours" says more than "1 day".
            if minutes >= 2 * size or (unit == "minute" and minutes >= 1):
                count = minutes // size
                return f"{count} {unit}{'s' if count > 1 else ''} old"
        return "less than a minute old"


def find(host: Host, settings: Settings, wanted: str) -> Path:
    """Return the file that is meant: `latest`, a bundle's name here or on the remote, or a path on this host.

    Raises:
        ReleaseError: there is no such file, and the message says what there is.
    """
    if "/" in wanted:
        if not Path(wanted).is_file():
            raise ReleaseError(f"there is no file {wanted} on this host")
        return Path(wanted).absolute()
    name = store.latest(host, settings) if wanted == "latest" else wanted
    if name in store.names(host):
        return host.backups / name
    remote = Remote(host, settings)
    there = retention.newest_first(remote.sizes()) if remote else []
    if name not in there:
        raise store.absent(host, settings, name, there)
    return fetch(host, settings, remote, name)


def fetch(host: Host, settings: Settings, remote: Remote, name: str) -> Path:
    """Copy a bundle from the remote to this host's backups; that of another host to what was uploaded.

    Raises:
        ReleaseError: it could not be fetched, or arrived damaged.
    """
    # A backup that is under way takes as long as its database is large.
    lock = exclusive(host.lock, math.inf, doing="the fetching of a backup")
    with lock, backups.working_directory(host) as directory:
        remote.fetch(name, directory / name)
        manifest = bundle.verify(directory / name)
        place = host.backups if store.is_of(host, settings, name, manifest) else store.uploads(host)
        place.mkdir(mode=0o700, exist_ok=True)
        move(directory / name, place / name)
    return place / name


def examine(host: Host, path: Path, target: Target) -> Examined:
    """Read the file to its end and compare it with the platform that it is for.

    Raises:
        ReleaseError: it is damaged or of another kind.
    """
    found = _examine_sql(path) if path.name.endswith((".sql", ".sql.gz")) else _examine_bundle(path, target)
    if target.airflow_version and _order(found.airflow_version) > _order(target.airflow_version):
        found.refused.append(
            f"it was made by Airflow {found.airflow_version}, and this host is to run "
            f"{target.airflow_version}: a schema cannot go back. Set airflow_version to "
            f"{found.airflow_version} or newer"
        )
    elif target.image and found.schema_revision not in images.schemas(host, target.image):
        found.refused.append(
            f"its schema revision {found.schema_revision} is unknown to {target.image}: it was made by a "
            "newer Airflow, or is not Airflow's. Set airflow_version to the version that made it, or newer"
        )
    return found


def _examine_bundle(path: Path, target: Target) -> Examined:
    manifest = bundle.verify(path)
    examined = Examined(
        path=str(path),
        database=f"bundle:{path}",
        created=manifest.created,
        airflow_version=manifest.airflow_version,
        schema_revision=manifest.schema_revision,
        counts=manifest.counts,
        newest_run=manifest.newest_run,
        size=path.stat().st_size,
        database_size=manifest.database_size,
    )
    missing = set(manifest.fernet_key["fingerprints"]) - set(target.fernet_fingerprints)
    if target.fernet_fingerprints and missing:
        place = {"vault": "?", "item": "?", "field": "?", **manifest.fernet_key}
        examined.refused.append(
            "its connections and variables are encrypted with another Fernet key than the vault has: "
            f"fingerprint {', '.join(sorted(missing))}, not {', '.join(target.fernet_fingerprints)}. Put the "
            f"right key into the vault {place['vault']}, item '{place['item']}', field "
            f"'{place['field']}'; 1Password keeps that item's earlier values"
        )
    return examined


def _examine_sql(path: Path) -> Examined:
    content = sqlfile.examine(path)
    return Examined(
        path=str(path),
        database=f"sql:{path}",
        created="",
        # Plain SQL does not say which Airflow wrote it; only the schema's revision does.
        airflow_version="",
        schema_revision=content.schema_revision,
        counts=content.counts,
        newest_run="",
        size=path.stat().st_size,
        # Indexes come on top of the rows.
        database_size=2 * content.size,
    )


def replaced(host: Host, counts: dict[str, int]) -> list[str]:
    """Say what a restore to these rows would replace: the newest run, and each table whose rows differ.

    A database that cannot be counted, since it is damaged or does not run, is told in a sentence.
    """
    database = Database(host)
    try:
        newest, rows_now = database.newest_run(), database.counts()
    except ReleaseError as error:
        return [f"the rows of the live database cannot be counted: {error}"]
    differing = [
        f"{table}: {rows} rows now, {counts.get(table, 'none')} in the backup"
        for table, rows in rows_now.items()
        if counts.get(table) != rows
    ]
    return [f"the newest DAG run now: {newest or 'none'}", *differing]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
