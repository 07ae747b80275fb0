"""Log files: Airflow's by days through systemd-tmpfiles, the rest by this module."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings

TMPFILES = Path("/etc/airflow-release/tmpfiles.conf")
"""The role renders it; not into /etc/tmpfiles.d, where systemd's own timer would remove without a word."""

PARSING = ("scheduler", "dag_processor_manager")
"""Directories of the scheduler and its DAG processor below the logs. All others are tasks'."""

CONTAINERS = Path("/var/lib/docker/containers")
"""Where Docker has the logs of containers, each in a directory of its own."""

ROTATED = "*/*-json.log.*"
"""Logs to which Docker writes no more; it takes no notice when one is gone. The current one is its own."""

UNTOUCHED_SECONDS = 86_400
"""What was written to within a day stays, however large: a task that waits to try again has no file open."""


class Log(NamedTuple):
    """A log file as it was seen. There may be a million."""

    modified: float
    path: str
    size: int
    """Bytes on the disk."""


class Kind(NamedTuple):
    """Logs that have limits of their own."""

    name: str
    place: Path
    """What they have a share of is the disk of this directory."""
    directories: tuple[Path, ...]
    days: int
    percent: int
    rotated: bool = False
    """Whether these are single files, of which systemd-tmpfiles knows nothing."""


def clean(host: Host, settings: Settings, *, dry_run: bool = False, now: float | None = None) -> list[str]:
    """Remove what nobody has written to for so many days, then the oldest beyond a share of the disk.

    Returns in words what went.

    Raises:
        ReleaseError: systemd-tmpfiles failed, or logs exceed their share and cannot go because they are in
            use; with what went all the same.
    """
    now = time.time() if now is None else now
    said, problems = [], []
    before = {kind: find(kind) for kind in _kinds(host, settings)}
    if not dry_run:
        try:
            host.run(
                ["systemd-tmpfiles", "--clean", str(TMPFILES)], timeout=None, doing="removing the oldest logs"
            )
        except ReleaseError as error:
            problems.append(": ".join([str(error), *error.log.strip().splitlines()[-1:]]))
    for kind, earlier in before.items():
        oldest = now - kind.days * 86_400
        if kind.rotated and not dry_run:
            # No rule of systemd-tmpfiles leaves alone what else is there.
            _remove([log for log in earlier if log.modified < oldest], kind.directories, oldest)
        logs = [log for log in earlier if log.modified >= oldest] if dry_run else find(kind)
        left = {log.path for log in logs}
        if old := [log for log in earlier if log.path not in left]:
            said.append(f"{kind.name}: {_amount(old)}, not written to for {kind.days} days")
        text, problem = _keep_share(kind, logs, dry_run=dry_run, now=now)
        said += [text] if text else []
        problems += [problem] if problem else []
    if problems:
        raise ReleaseError("; ".join([*problems, *(f"removed: {text}" for text in said)]))
    return said


def choose(logs: Iterable[Log], *, bytes_over: int, files_over: int = 0) -> list[Log]:
    """Return the oldest logs that have to go for neither number to be over; all where that is too few."""
    chosen: list[Log] = []
    for log in sorted(logs):
        if bytes_over <= 0 and files_over <= 0:
            break
        chosen.append(log)
        bytes_over -= log.size
        files_over -= 1
    return chosen


def find(kind: Kind) -> list[Log]:
    """Return the files of a kind; no link is followed, and what vanishes meanwhile is left out."""
    found = []
    for path in (path for top in kind.directories for path in _paths(top)):
        with contextlib.suppress(FileNotFoundError):
            seen = os.lstat(path)
            if stat.S_ISREG(seen.st_mode):
                found.append(Log(seen.st_mtime, path, seen.st_blocks * 512))
    return found


def open_files(processes: Path = Path("/proc")) -> set[tuple[int, int]]:
    """Return device and inode of each file that a process of the host or of a container has open."""
    found = set()
    for process in processes.glob("[0-9]*"):
        descriptors: list[Path] = []
        # The process may have ended,
        with contextlib.suppress(OSError):
            descriptors += (process / "fd").iterdir()
        for descriptor in descriptors:
            # or have closed it.
            with contextlib.suppress(OSError):
                seen = descriptor.stat()
                found.add((seen.st_dev, seen.st_ino))
    return found


def _kinds(host: Host, settings: Settings) -> list[Kind]:
    """Return the kinds of logs. Those of parsing grow by themselves, and push out no task's."""
    logs = host.directory / "logs"
    tasks = tuple(path for path in sorted(logs.glob("*")) if path.name not in PARSING)
    parsing = tuple(logs / name for name in PARSING)
    return [
        Kind("logs of tasks", logs, tasks, settings.log_days, settings.log_percent),
        Kind(
            "logs of the scheduler",
            logs,
            parsing,
            settings.scheduler_log_days,
            settings.scheduler_log_percent,
        ),
        Kind(
            "logs of containers",
            CONTAINERS,
            tuple(sorted(CONTAINERS.glob(ROTATED))),
            settings.container_log_days,
            settings.container_log_percent,
            rotated=True,
        ),
    ]


def _keep_share(kind: Kind, logs: list[Log], *, dry_run: bool, now: float) -> tuple[str, str]:
    """Remove the oldest logs beyond a kind's share; return in words what went, and what is wrong."""
    if not logs:
        return "", ""
    disk = os.statvfs(kind.place)
    bytes_over = sum(log.size for log in logs) - disk.f_blocks * disk.f_frsize * kind.percent // 100
    # Some file systems count no inodes.
    files_over = len(logs) - disk.f_files * kind.percent // 100 if disk.f_files else 0
    if bytes_over <= 0 and files_over <= 0:
        return "", ""
    limit = now - UNTOUCHED_SECONDS
    goes = choose(_unused(logs, limit), bytes_over=bytes_over, files_over=files_over)
    if not dry_run:
        _remove(goes, kind.directories, limit)
    text = problem = ""
    if goes:
        text = (
            f"{kind.name}: {_amount(goes)}, the oldest, "
            f"because they took more than {kind.percent} % of the disk"
        )
    bytes_over -= sum(log.size for log in goes)
    files_over -= len(goes)
    if bytes_over > 0 or files_over > 0:
        problem = (
            f"{kind.name} take {max(bytes_over, 0) / 2**20:.1f} MiB and {max(files_over, 0)} files more than "
            f"{kind.percent} % of the disk, and all were written to within a day or are open: look in "
            f"{kind.place} for what logs so much"
        )
    return text, problem


def _unused(logs: Iterable[Log], limit: float) -> list[Log]:
    """Return the logs that nobody has open or has written to since a time."""
    used = open_files()
    found = []
    for log in logs:
        with contextlib.suppress(FileNotFoundError):
            if log.modified < limit and ((seen := os.lstat(log.path)).st_dev, seen.st_ino) not in used:
                found.append(log)
    return found


def _remove(logs: Collection[Log], tops: Collection[Path], limit: float) -> None:
    """Remove files, and the directories below the tops that are empty then.

    A directory that changed after `limit` stays: a log may be about to begin in it.
    """
    folders = {
        folder
        for log in logs
        for folder in Path(log.path).parents
        if any(top in folder.parents for top in tops) and folder.stat().st_mtime < limit
    }
    for log in logs:
        Path(log.path).unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()


def _paths(top: Path) -> Iterator[str]:
    if top.is_dir() and not top.is_symlink():
        for folder, _, names in os.walk(top):
            yield from (os.path.join(folder, name) for name in names)
    else:
        yield str(top)


def _amount(logs: Collection[Log]) -> str:
    return f"{len(logs)} files, {sum(log.size for log in logs) / 2**20:.1f} MiB"
