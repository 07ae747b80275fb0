"""The bundles on this host and on the remote: whose they are, which is the latest, and which are kept."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path

from airflow_release.backup import bundle, retention, status
from airflow_release.backup.bundle import Manifest
from airflow_release.backup.offhost import Remote
from airflow_release.core import records
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings
from airflow_release.switch.journal import Journal

UPLOAD_SECONDS = 24 * 3600
"""How long a file that was uploaded for a restore may stay."""
_OF_WHAT_WAS_REPLACED = re.compile(r"(?:before|rehearsal of) \S*-(?:restore|rollback)-")
"""The reason of a backup that a restore or a rollback made of the data that it was to replace."""

Progress = Callable[[str], None]


def uploads(host: Host) -> Path:
    """Return where files of the control node and bundles of other hosts wait to be restored.

    Neither retention nor `latest` looks there.
    """
    return host.backups / "uploaded"


def names(host: Host) -> list[str]:
    """Return the bundles on this host, the newest first."""
    return retention.newest_first(file.name for file in host.backups.glob("airflow-*.tar"))


def identity(host: Host, settings: Settings, files: Path | None = None) -> tuple[str, str]:
    """Return the environment and the host's name, as the bundles of this host bear them."""
    environment = settings.environment or host.environment(project=files).get("ENVIRONMENT", "")
    return environment, settings.host or socket.gethostname()


def own(host: Host, settings: Settings, among: Iterable[str]) -> list[str]:
    """Return this host's bundles among these on its disk, the newest first.

    Those of earlier versions bear no host's name; what lies here of them is this host's.
    """
    return [name for name in retention.newest_first(among) if _belongs(host, settings, name) is not False]


def own_on_remote(host: Host, settings: Settings, remote: Remote, among: Iterable[str]) -> list[str]:
    """Return this host's bundles among these of a remote that others may use, too, the newest first.

    Of those that bear no host's name the manifest decides. One that cannot be read is nobody's.
    """
    here = set(names(host))

    def mine(name: str) -> bool:
        belongs = _belongs(host, settings, name)
        if belongs is None and name not in here:
            manifest = remote.manifest(name)
            return manifest is not None and is_of(host, settings, name, manifest)
        return belongs is not False

    return [name for name in retention.newest_first(among) if mine(name)]


def latest(host: Host, settings: Settings) -> str:
    """Return the bundle that `latest` means: the newest of this host, here or else on the remote.

    It is never one that a restore or a rollback made of the data that it replaced: the same command, given
    again, would bring those back. One that is damaged is not passed over, so that nobody gets older data
    without a word.

    Raises:
        ReleaseError: there is none, and the message says what there is.
    """
    here = own(host, settings, names(host))
    for name in here:
        if not _holds_what_was_replaced(_described(host.backups / name)):
            return name
    remote = Remote(host, settings)
    there = retention.newest_first(remote.sizes()) if remote else []
    for name in own_on_remote(host, settings, remote, there) if remote else []:
        if name not in here and not _holds_what_was_replaced(remote.manifest(name)):
            return name
    if not here and not there:
        raise ReleaseError(f"no backup at all in {_places(host, settings)}")
    known = ", ".join(dict.fromkeys([*here, *there][:10]))
    raise ReleaseError(
        f"no backup in {_places(host, settings)} is `latest`: that is never the data that a restore or a "
        f"rollback replaced, nor another host's. Give one by its name: {known}"
    )


def absent(host: Host, settings: Settings, wanted: str, there: Iterable[str]) -> ReleaseError:
    """Return the error for a name that is nowhere, with those that there are."""
    known = ", ".join(dict.fromkeys([*names(host), *there][:10]))
    return ReleaseError(f"no backup {wanted} in {_places(host, settings)}{known and f'; there are: {known}'}")


def prune(host: Host, settings: Settings, *, known_good: str = "", dry_run: bool = False) -> list[str]:
    """Remove this host's bundles that need not be kept, and what was uploaded a day ago; return their names.

    `retention.expired` says which bundles these are.
    """
    removed = retention.expired(
        own(host, settings, names(host)),
        days=settings.keep_days,
        count=settings.keep_count,
        now=datetime.now(timezone.utc),
        is_good=lambda name: name == known_good or is_good(host.backups / name),
        keep=needed_to_go_back(host),
    )
    for name in [] if dry_run else removed:
        (host.backups / name).unlink()
    left = _uploads_left_behind(host)
    for path in [] if dry_run else left:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return [*removed, *(f"{uploads(host).name}/{path.name}" for path in left)]


def copy_off_host(host: Host, settings: Settings, progress: Progress = lambda line: None) -> None:
    """Copy to the remote the bundles that it lacks, the newest first; remove there what need not be kept.

    Among them are those of a switch, which waits for no remote. What other hosts have there is not touched.
    Needs no lock: a bundle never changes.

    Raises:
        ReleaseError: not everything is there now; the status page's file says so, too.
    """
    remote = Remote(host, settings)
    if not remote:
        return
    try:
        here = {name: (host.backups / name).stat().st_size for name in own(host, settings, names(host))}
        _copy(host, settings, remote, here, progress)
        last = status.read(host).get("last_good")
        copied: dict[str, object] = {}
        if last and last["name"] in here:
            # It outlasts the next backup, whose own copy may fail.
            copied["last_copied"] = {"name": last["name"], "at": last["at"]}
        last_good = last and {**last, "off_host": bool(copied)}
        status.record(host, last_good=last_good, last_failure=None, **copied)
    except (ReleaseError, OSError, ValueError, KeyError) as error:
        if isinstance(error, ReleaseError):
            # The last line of rclone's, which knows of no rows that nobody may see.
            told = ReleaseError(": ".join([str(error), *error.log.strip().splitlines()[-1:]]))
            status.record_failure(host, told, copying=True)
            raise
        raise status.record_failure(host, error, f"copying to {settings.remote}", copying=True) from error


def _copy(host: Host, settings: Settings, remote: Remote, here: dict[str, int], progress: Progress) -> None:
    for name in list(here)[:1]:
        # Before the place is looked at: this makes it.
        progress(f"copy {name} to {settings.remote}")
        remote.copy(host.backups / name)
    sizes = remote.sizes()
    there = {name: sizes[name] for name in own_on_remote(host, settings, remote, sizes)}
    expired = retention.expired(
        {*here, *there},
        days=settings.keep_days,
        count=settings.keep_count,
        now=datetime.now(timezone.utc),
        is_good=lambda name: name in here and is_good(host.backups / name),
        keep=needed_to_go_back(host),
    )
    for name in [name for name in here if name not in expired and there.get(name) != here[name]]:
        # Of another size is a copy that was interrupted, or that of a file which was damaged since.
        if is_good(host.backups / name):
            progress(f"copy {name} to {settings.remote}, too")
            remote.copy(host.backups / name)
    for name in [name for name in expired if name in there]:
        progress(f"remove {name} from {settings.remote}")
        remote.remove(name)


def needed_to_go_back(host: Host) -> set[str]:
    """Return the backup that a rollback by one release would take, and that of an operation under way."""
    left = [Path(release.bundle).name for release in records.history(host) if release.bundle]
    return {*left[-1:], Path(_wanted(host)).name}


def is_good(path: Path) -> bool:
    """Read all of a bundle and say whether it is whole."""
    try:
        bundle.verify(path)
    except ReleaseError:
        return False
    return True


def _belongs(host: Host, settings: Settings, name: str) -> bool | None:
    """Say whether a bundle is this host's by its name; None when its name does not tell."""
    found = bundle.NAME.fullmatch(name)
    if not found or not found["host"]:
        return None
    environment, machine = identity(host, settings)
    environment, machine = bundle.name_part(environment, "_"), bundle.name_part(machine)
    # Before there is a platform nothing may say which environment it is to be.
    return found["host"] == machine and environment in ("", found["environment"])


def is_of(host: Host, settings: Settings, name: str, manifest: Manifest) -> bool:
    """Say whether a bundle is this host's: by its name or, where that does not tell, by its manifest."""
    belongs = _belongs(host, settings, name)
    if belongs is not None:
        return belongs
    environment, machine = identity(host, settings)
    return manifest.host in (machine, socket.gethostname()) and environment in ("", manifest.environment)


def _described(path: Path) -> Manifest | None:
    try:
        return bundle.describe(path)
    except ReleaseError:
        return None


def _holds_what_was_replaced(manifest: Manifest | None) -> bool:
    return manifest is not None and bool(_OF_WHAT_WAS_REPLACED.match(manifest.reason))


def _places(host: Host, settings: Settings) -> str:
    return (
        f"{host.backups} or {settings.remote}"
        if settings.remote
        else f"{host.backups}, and there is no backup_remote"
    )


def _wanted(host: Host) -> str:
    """Return the path of the file that an operation under way is still to restore, "" for none."""
    try:
        operation = Journal(host).read()
    except (OSError, ReleaseError):
        return ""
    return operation.database.partition(":")[2] if operation and operation.active else ""


def _uploads_left_behind(host: Host) -> list[Path]:
    """Return what was uploaded more than a day ago, but for what an operation is still to restore."""
    limit, wanted = time.time() - UPLOAD_SECONDS, _wanted(host)
    place = uploads(host)
    found = sorted(place.iterdir()) if place.is_dir() else []
    return [path for path in found if str(path) != wanted and path.lstat().st_ctime < limit]
