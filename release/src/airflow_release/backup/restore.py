"""Looks at what is to be restored before anything is touched: what is in it, and what speaks against it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airflow_release.backup import backups, bundle, retention, sqlfile
from airflow_release.backup.offhost import Remote
from airflow_release.core import images
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import move
from airflow_release.core.host import Host
from airflow_release.core.lock import exclusive
from airflow_release.core.settings import Settings

LOCK_SECONDS = 600
"""How long to wait for a backup that is under way."""


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

    database: str
    """What the switch takes: `bundle:<path>` or `sql:<path>`."""
    created: str
    airflow_version: str
    schema_revision: str
    counts: dict[str, int]
    newest_run: str
    size: int
    database_size: int
    refused: list[str] = field(default_factory=list)


def find(host: Host, settings: Settings, wanted: str) -> Path:
    """Return the file that is meant: `latest`, a bundle's name here or on the remote, or a path on this host.

    Raises:
        ReleaseError: there is no such file, and the message says what there is.
    """
    if "/" in wanted:
        if not Path(wanted).is_file():
            raise ReleaseError(f"there is no file {wanted} on this host")
        return Path(wanted)
    here = backups.names(host)
    if wanted == "latest" and here:
        return host.backups / here[0]
    if wanted in here:
        return host.backups / wanted
    remote = Remote(host, settings)
    there = retention.newest_first(remote.sizes()) if remote else []
    name = there[0] if wanted == "latest" and there else wanted
    if name not in there:
        places = (
            f"{host.backups} or {settings.remote}"
            if remote
            else f"{host.backups}, and there is no backup_remote"
        )
        known = f"; there are: {', '.join((here + there)[:10])}" if here + there else ""
        raise ReleaseError(f"no backup {'at all' if wanted == 'latest' else wanted} in {places}{known}")
    return fetch(host, remote, name)


def fetch(host: Host, remote: Remote, name: str) -> Path:
    """Bring a bundle from the remote to this host's backups.

    Raises:
        ReleaseError: it could not be fetched, or arrived damaged.
    """
    with (
        exclusive(host.lock, LOCK_SECONDS, doing="the fetching of a backup"),
        backups.working_directory(host) as directory,
    ):
        remote.fetch(name, directory / name)
        bundle.verify(directory / name)
        move(directory / name, host.backups / name)
    return host.backups / name


def examine(host: Host, path: Path, target: Target) -> Examined:
    """Read the file to its end and hold it against where it is to go.

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
        place = {"vault": "?", "item": "?", "field": "?"} | manifest.fernet_key
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
    """Say what a restore to these rows would replace: the newest run, and each table whose rows differ."""
    database = Database(host)
    lines = [
        f"{table}: {rows} rows now, {counts.get(table, 'none')} in the backup"
        for table, rows in database.counts().items()
        if counts.get(table) != rows
    ]
    return [f"the newest DAG run now: {database.newest_run() or 'none'}", *lines]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
