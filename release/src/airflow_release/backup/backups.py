"""Takes backups and proves each by restoring it; keeps some here and, where there is a remote, there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_release.backup import bundle, retention
from airflow_release.backup.bundle import Manifest
from airflow_release.backup.offhost import Remote
from airflow_release.core import records
from airflow_release.core.database import LIVE, SCRATCH, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import move, replace_file
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings, load

CONFIGURATION = ("docker-compose.yaml", ".env", "haproxy/haproxy.cfg", "weather", "docker-socket-proxy")
"""What a bundle holds beside the data. No file with a secret: those are made anew from 1Password."""

RESERVE_BYTES = 256 * 2**20
"""What stays free on a disk: a full one stops Postgres."""

Progress = Callable[[str], None]


def take(
    host: Host,
    *,
    reason: str,
    database: str = LIVE,
    files: Path | None = None,
    settings: Settings | None = None,
    progress: Progress = lambda line: None,
) -> Path:
    """Dump a database, bundle it with the configuration, restore it from there as a proof; return the bundle.

    `files` is where the configuration is that belongs to the database, when it is not the platform's own. The
    caller holds the platform's lock. The copy elsewhere is `copy_off_host`'s, which may take hours.

    Raises:
        ReleaseError: there is no backup; the status page's file says so, too.
    """
    settings = settings or load()
    source = _Source(host, database, files or host.directory, reason, settings)
    try:
        path, manifest = _take(source, progress)
    except ReleaseError as error:
        _record(host, last_failure={"at": time.time(), "reason": _reason(error)})
        raise
    good = {
        "name": path.name,
        "at": time.time(),
        "size": path.stat().st_size,
        "airflow_version": manifest.airflow_version,
        "counts": manifest.counts,
        "off_host": False,
    }
    _record(host, last_good=good, last_failure=_failed_copy(host) if settings.remote else None)
    for name in prune(host, settings, known_good=path.name):
        progress(f"removed {name}")
    return path


def copy_off_host(host: Host, settings: Settings, progress: Progress = lambda line: None) -> None:
    """Bring the remote the bundles that it lacks, the newest first; remove there what need not be kept.

    Among them are those of a switch, which waits for no remote. Needs no lock: a bundle never changes.

    Raises:
        ReleaseError: not everything is there now; the status page's file says so, too.
    """
    remote = Remote(host, settings)
    if not remote:
        return
    here = {name: (host.backups / name).stat().st_size for name in names(host)}
    try:
        for name in list(here)[:1]:
            # Before the place is looked at: this makes it.
            progress(f"copy {name} to {settings.remote}")
            remote.copy(host.backups / name)
        there = remote.sizes()
        expired = retention.expired(
            {*here, *there},
            days=settings.keep_days,
            count=settings.keep_count,
            now=datetime.now(UTC),
            is_good=lambda name: name in here and _is_good(host.backups / name),
        )
        for name in [name for name in here if name not in expired and there.get(name) != here[name]]:
            # Of another size is a copy that was interrupted, or that of a file which was damaged since.
            if _is_good(host.backups / name):
                progress(f"copy {name} to {settings.remote}, too")
                remote.copy(host.backups / name)
        for name in [name for name in expired if name in there]:
            progress(f"remove {name} from {settings.remote}")
            remote.remove(name)
    except ReleaseError as error:
        # The last line of rclone's, which knows of no rows that nobody may see.
        reason = ": ".join([str(error), *error.log.strip().splitlines()[-1:]])
        _record(host, last_failure={"at": time.time(), "reason": reason, "copying": True})
        raise
    last = read_state(host)["last_good"]
    _record(host, last_good={**last, "off_host": last["name"] in here}, last_failure=None)


def names(host: Host) -> list[str]:
    """Return the bundles on this host, the newest first."""
    return retention.newest_first(file.name for file in host.backups.glob("airflow-*.tar"))


def prune(host: Host, settings: Settings, *, known_good: str = "", dry_run: bool = False) -> list[str]:
    """Remove the bundles on this host that need not be kept (see `retention.expired`); return their names."""
    removed = retention.expired(
        names(host),
        days=settings.keep_days,
        count=settings.keep_count,
        now=datetime.now(UTC),
        is_good=lambda name: name == known_good or _is_good(host.backups / name),
        keep=_needed_to_go_back(host),
    )
    for name in [] if dry_run else removed:
        (host.backups / name).unlink()
    return removed


def check(host: Host, path: Path, progress: Progress = lambda line: None) -> Manifest:
    """Restore a bundle into a scratch database and compare it with its manifest. The caller holds the lock.

    Raises:
        ReleaseError: the bundle is damaged, does not restore, or restores to something else.
    """
    manifest = bundle.verify(path)
    require_space(host, manifest.database_size, copies_of_dump=1, dump=manifest.members[bundle.DUMP]["size"])
    with working_directory(host) as directory:
        _prove(host, path, manifest, directory, progress)
    return manifest


def extract_database(path: Path, into: Path) -> Path:
    """Verify a bundle and write its dump into a directory; return the dump's path, for `Database.restore`.

    Raises:
        ReleaseError: the bundle is damaged, or the disk is full.
    """
    return bundle.extract(path, bundle.DUMP, into)


def require_space(
    host: Host, database: int, *, copies_of_dump: int, dump: int, copies_of_database: int = 1, images: int = 0
) -> None:
    """Refuse, before anything is written, what would fill a disk: copies of the database and of its dump.

    `images` is the size of images to be built; Docker keeps them where it keeps volumes. All are in bytes.

    Raises:
        ReleaseError: a disk has too little free space; the message says how much is missing.
    """
    docker = host.volume("postgres_data")
    needed: dict[int, tuple[Path, list[tuple[int, str]]]] = {}
    for place, size, what in (
        (docker, copies_of_database * database, "copies of the database"),
        (docker, images, "new images"),
        (host.backups, copies_of_dump * dump, "dumps"),
    ):
        _, sizes = needed.setdefault(place.stat().st_dev, (place, [(RESERVE_BYTES, "reserve")]))
        sizes.append((size, what))
    for place, sizes in needed.values():
        free, total = shutil.disk_usage(place).free, sum(size for size, _ in sizes)
        if free < total:
            parts = ", ".join(f"{what} {size / 2**20:.0f}" for size, what in sizes if size)
            raise ReleaseError(
                f"too little disk: {place} has {free / 2**20:.0f} MiB free, and {total / 2**20:.0f} MiB are "
                f"needed ({parts})"
            )


@contextlib.contextmanager
def working_directory(host: Host) -> Iterator[Path]:
    """Make a place beside the backups for what is not finished; remove it, and what killed runs left.

    The caller holds the platform's lock.
    """
    host.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in host.backups.glob(".*.partial"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=host.backups, prefix=".", suffix=".partial") as directory:
        yield Path(directory)


@dataclass(frozen=True)
class _Source:
    """What is backed up, and why."""

    host: Host
    database: str
    files: Path
    reason: str
    settings: Settings


def _take(source: _Source, progress: Progress) -> tuple[Path, Manifest]:
    host, database = source.host, Database(source.host)
    with working_directory(host) as directory:
        size = database.size(source.database)
        # The last dump says how small the next one becomes; without one it may be as large as the data.
        require_space(host, size, copies_of_dump=2, dump=expected_dump(host, size))
        progress(f"dump {size / 2**20:.0f} MiB")
        described = _describe(source, size)
        dump, partial = directory / bundle.DUMP, directory / "bundle"
        counts = database.dump(dump, source.database)
        manifest = Manifest(**{**vars(described), "counts": counts})
        try:
            members = {bundle.DUMP: dump} | _configuration(source.files)
            manifest = bundle.write(partial, manifest, members)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        except OSError as error:
            raise ReleaseError(f"writing the backup failed: {error.strerror}") from error
        dump.unlink()
        _prove(host, partial, manifest, directory, progress)
        path = host.backups / manifest.name
        move(partial, path)
    return path, manifest


def _describe(source: _Source, size: int) -> Manifest:
    host, database = source.host, Database(source.host)
    environment = host.environment(project=source.files)
    fernet_key = host.environment("env/airflow.env", source.files).get("AIRFLOW__CORE__FERNET_KEY", "")
    live = host.directory / "trees/current"
    return Manifest(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        reason=source.reason,
        host=socket.gethostname(),
        environment=environment.get("ENVIRONMENT", ""),
        airflow_version=environment.get("AIRFLOW_VERSION", "0"),
        postgres_version=database.version(),
        schema_revision=database.revision(source.database),
        counts={},
        newest_run=database.newest_run(source.database),
        database_size=size,
        dag_commit=live.readlink().name if live.is_symlink() else "",
        images={
            variable: {"name": name, "id": host.image_id(name)}
            for variable, name in environment.items()
            if variable.endswith("_IMAGE")
        },
        fernet_key={**source.settings.fernet_key, "fingerprints": bundle.fingerprints(fernet_key)},
    )


def _configuration(directory: Path) -> dict[str, Path | bytes]:
    tops = [directory / name for name in CONFIGURATION]
    files = [
        file
        for top in tops
        for file in ([top] if top.is_file() else sorted(top.rglob("*")))
        if file.is_file()
    ]
    return {f"config/{file.relative_to(directory)}": file for file in files}


def expected_dump(host: Host, size: int) -> int:
    """Return how large the dump of a database of `size` becomes: in proportion to the last; in bytes."""
    for name in names(host)[:1]:
        with contextlib.suppress(ReleaseError):
            last = bundle.describe(host.backups / name)
            return int(1.2 * size * last.members[bundle.DUMP]["size"] / last.database_size)
    return size


def _prove(host: Host, path: Path, manifest: Manifest, directory: Path, progress: Progress) -> None:
    """Restore the bundle itself, not the dump that went into it, and compare what comes out."""
    progress("restore it into a scratch database and compare")
    database = Database(host)
    dump = extract_database(path, directory)
    try:
        database.restore(dump, SCRATCH)
        counts, revision = database.counts(SCRATCH), database.revision(SCRATCH)
    finally:
        dump.unlink()
        database.drop(SCRATCH)
    wanted, found = {**manifest.counts, "schema": manifest.schema_revision}, {**counts, "schema": revision}
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        details = ", ".join(
            f"{name}: {wanted.get(name)} in the backup, {found.get(name)} restored" for name in differing
        )
        raise ReleaseError(f"the backup restores to something else than was dumped ({details})")


def _needed_to_go_back(host: Host) -> set[str]:
    """Return the backup that a rollback by one release would take."""
    left = [Path(release.bundle).name for release in records.history(host) if release.bundle]
    return set(left[-1:])


def _is_good(path: Path) -> bool:
    try:
        bundle.verify(path)
    except ReleaseError:
        return False
    return True


def _reason(error: ReleaseError) -> str:
    """Return the error with what the failed program called its error; other lines may show rows of data."""
    said = next((line for line in error.log.splitlines() if re.search(r"error|fatal", line, re.I)), "")
    return f"{error}: {said.strip()[:300]}" if said else str(error)


def _failed_copy(host: Host) -> dict[str, Any] | None:
    """Return the last failure, if it was that of a copy: a good backup here does not mend it."""
    failure: dict[str, Any] | None = read_state(host).get("last_failure")
    return failure if failure and failure.get("copying") else None


def _record(host: Host, **changes: object) -> None:
    """Write what the status page shows; it may read this file and nothing else of the backups."""
    host.status.mkdir(mode=0o755, parents=True, exist_ok=True)
    state = {**read_state(host), **changes}
    replace_file(host.status / "backup.json", json.dumps(state, indent=2) + "\n", mode=0o644)


def read_state(host: Host) -> dict[str, Any]:
    """Return what is known: `last_good`, and `last_failure` when that came later; {} where nothing is."""
    try:
        state: dict[str, Any] = json.loads((host.status / "backup.json").read_text())
    except (OSError, ValueError):
        return {}
    return state
