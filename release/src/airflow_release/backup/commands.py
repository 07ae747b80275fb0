"""The commands about backups: `airflow-release backup …` and `airflow-release examine`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow_release.backup import backups, bundle, restore, retention, space, status, store
from airflow_release.backup.offhost import Remote
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.lock import exclusive, may_wait
from airflow_release.core.settings import SETTINGS_FILE, load


def register(subparsers: Any) -> None:
    """Add the commands to the program's parser."""
    parser = subparsers.add_parser("backup", help="take, list, check and remove backups")
    commands = parser.add_subparsers(required=True, metavar="command")

    command = _add(
        commands, "take", _take, "take a backup now, and prove it by restoring it beside the live data"
    )
    command.add_argument("--reason", default="by hand", help="why, for the manifest")
    may_wait(command)

    command = _add(commands, "list", _list, "list the backups, the newest first")
    command.add_argument("--remote", action="store_true", help="those on the remote, not those on this host")

    command = _add(commands, "check", _check, "check whether a backup is complete")
    command.add_argument("backup", help="a bundle's name or path, or `latest`")
    command.add_argument(
        "--deep", action="store_true", help="also restore it into a scratch database and compare"
    )
    may_wait(command)

    command = _add(commands, "prune", _prune, "remove the backups that need not be kept any more")
    command.add_argument("--dry-run", action="store_true", help="only say which")

    command = _add(
        subparsers,
        "examine",
        _examine,
        "look at what is to be restored; code 1 when something speaks against it",
    )
    command.add_argument(
        "backup", help="a bundle's name, `latest`, or the path of a bundle, .sql or .sql.gz on this host"
    )
    command.add_argument("--airflow-version", default="", help="the version that the data has to fit")
    command.add_argument(
        "--fernet-fingerprint", nargs="*", default=[], help="of each Fernet key in the vault"
    )
    command.add_argument(
        "--installed", action="store_true", help="there is a platform: ask its image and its disk, too"
    )


def _add(subparsers: Any, name: str, function: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=help)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--settings", type=Path, default=SETTINGS_FILE, help=argparse.SUPPRESS)
    parser.set_defaults(run=function)
    return parser


def _take(host: Host, arguments: argparse.Namespace) -> int:
    try:
        settings = load(arguments.settings)
    except ReleaseError as error:
        raise status.record_failure(host, error) from error
    started = time.monotonic()
    with contextlib.ExitStack() as turn:
        try:
            turn.enter_context(exclusive(host.lock, arguments.wait, doing="a backup"))
        except (OSError, ReleaseError) as error:
            # Another change is no failure of a backup for whom it is enough to be told so at once.
            if isinstance(error, OSError) or arguments.wait:
                raise status.record_failure(host, error) from error
            raise
        path = backups.take(host, reason=arguments.reason, settings=settings, progress=_progress)
    seconds, size = round(time.monotonic() - started, 1), path.stat().st_size
    manifest = bundle.describe(path)
    text = f"{path}: {_size(size)} in {seconds:.0f} s, restored and compared: {_counts(manifest.counts)}"
    _print(
        arguments, {"path": str(path), "size": size, "seconds": seconds, "manifest": asdict(manifest)}, text
    )
    try:
        store.copy_off_host(host, settings, _progress)
    except ReleaseError as error:
        raise ReleaseError(
            f"The backup is good, but not all copies elsewhere are: {error}", error.log
        ) from error
    return 0


def _list(host: Host, arguments: argparse.Namespace) -> int:
    settings = load(arguments.settings)
    if arguments.remote:
        remote = Remote(host, settings)
        if not remote:
            raise ReleaseError("there is no backup_remote")
        names = retention.newest_first(remote.sizes())
        _print(arguments, names, "\n".join(names))
        return 0
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    for name in store.names(host):
        path = host.backups / name
        try:
            manifest = bundle.describe(path)
        except ReleaseError as error:
            rows.append({"name": name, "damaged": str(error)})
            lines.append(f"{name}  DAMAGED: {error}")
            continue
        rows.append({"name": name, "size": path.stat().st_size, "manifest": asdict(manifest)})
        lines.append(
            f"{name}  {_size(path.stat().st_size):>10}  {manifest.reason:<20}  {_counts(manifest.counts)}"
        )
    _print(arguments, rows, "\n".join(lines) or f"no backup in {host.backups}")
    return 0


def _check(host: Host, arguments: argparse.Namespace) -> int:
    settings = load(arguments.settings)
    path = restore.find(host, settings, arguments.backup)
    try:
        if arguments.deep:
            with exclusive(host.lock, arguments.wait, doing="a check of a backup"):
                manifest = backups.check(host, path, _progress)
        else:
            manifest = bundle.verify(path)
    except bundle.DamagedError as damage:
        # This is the answer, not a failure to find it.
        print(damage, file=sys.stderr)
        return 1
    how = "complete, and its restored data are the same" if arguments.deep else "complete"
    _print(arguments, asdict(manifest), f"{path}: {how}: {_counts(manifest.counts)}")
    return 0


def _prune(host: Host, arguments: argparse.Namespace) -> int:
    settings = load(arguments.settings)
    with exclusive(host.lock, doing="the removal of old backups"):
        removed = store.prune(host, settings, dry_run=arguments.dry_run)
    _print(arguments, removed, "\n".join(removed) or "nothing to remove")
    return 0


def _examine(host: Host, arguments: argparse.Namespace) -> int:
    settings = load(arguments.settings)
    path = restore.find(host, settings, arguments.backup)
    target = restore.Target(
        airflow_version=arguments.airflow_version,
        image=host.environment().get("AIRFLOW_IMAGE", "") if arguments.installed else "",
        fernet_fingerprints=arguments.fernet_fingerprint,
    )
    examined = restore.examine(host, path, target)
    answer: dict[str, Any] = {**asdict(examined), "name": examined.name, "age": examined.age()}
    if arguments.installed:
        answer["replaced"] = restore.replaced(host, examined.counts)
        _note_disk(host, path, examined)
        answer["refused"] = examined.refused
    text = f"{path}, {answer['age']}: {_size(examined.size)}, {_counts(examined.counts)}"
    _print(arguments, answer, "\n".join([text, *(f"REFUSED: {reason}" for reason in examined.refused)]))
    return 1 if examined.refused else 0


def _note_disk(host: Host, path: Path, examined: restore.Examined) -> None:
    # The backup of what is there comes first and the new database beside it; each needs its disk.
    unpacked = examined.database_size if path.suffix == ".gz" else examined.size
    try:
        space.require_space(host, examined.database_size, copies_of_dump=1, dump=unpacked)
    except ReleaseError as error:
        examined.refused.append(str(error))


def _progress(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _print(arguments: argparse.Namespace, answer: Any, text: str) -> None:
    print(json.dumps(answer, indent=2) if arguments.json else text)


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
