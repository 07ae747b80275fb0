"""Takes a backup and proves it by restoring it; nothing else counts as one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from airflow_release.backup import bundle, status, store
from airflow_release.backup.bundle import Manifest
from airflow_release.backup.space import expected_dump, require_free, require_space
from airflow_release.core.database import LIVE, SCRATCH, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import move
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings, load

CONFIGURATION = (
    "docker-compose.yaml",
    ".env",
    "haproxy/haproxy.cfg",
    "weather",
    "docker-socket-proxy",
    "worker-gateway/haproxy.cfg",
)
"""What a bundle holds beside the data. No file with a secret: those are made anew from 1Password."""

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
        ReleaseError: there is no backup, whatever went wrong; the status page's file says so, too.
    """
    try:
        settings = settings or load()
        source = _Source(host, database, files or host.directory, reason, settings)
        path, manifest = _take(source, progress)
        good = {
            "name": path.name,
            "at": time.time(),
            "size": path.stat().st_size,
            "airflow_version": manifest.airflow_version,
            "counts": manifest.counts,
            "off_host": False,
        }
        failed_copy = status.failed_copy(host) if settings.remote else None
        status.record(host, last_good=good, last_failure=failed_copy)
    except Exception as error:
        # Also an unmounted disk, or words of psql that nobody foresaw: a missing backup is shown at once.
        raise status.record_failure(host, error) from error
    try:
        for name in store.prune(host, settings, known_good=path.name):
            progress(f"removed {name}")
    except (OSError, ReleaseError) as error:
        # The backup is good. That the disk fills is for the status page.
        progress(str(status.record_failure(host, error, "removing old backups")))
    return path


def check(host: Host, path: Path, progress: Progress = lambda line: None) -> Manifest:
    """Restore a bundle into a scratch database and compare it with its manifest. The caller holds the lock.

    Raises:
        ReleaseError: the bundle is damaged, does not restore, or restores to other data.
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
        require_free(host, expected_dump(host, size), source.settings.disk_full_percent)
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
    environment_name, machine = store.identity(host, source.settings, source.files)
    fernet_key = host.environment("env/airflow.env", source.files).get("AIRFLOW__CORE__FERNET_KEY", "")
    live = host.directory / "trees/current"
    return Manifest(
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        reason=source.reason,
        host=machine,
        environment=environment_name,
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
        raise bundle.DamagedError(f"the restored backup differs from what was dumped ({details})")
