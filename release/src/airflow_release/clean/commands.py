"""The command `airflow-release clean`: each thing that is kept for a while, one after the other."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from airflow_release.backup import store
from airflow_release.clean import databases, history, images, logs, networks
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host
from airflow_release.core.lock import exclusive, may_wait
from airflow_release.core.settings import SETTINGS_FILE, Settings, load
from airflow_release.switch.journal import Journal

FAILED_LIMIT = 500
"""Characters of what is written down of failures; the unit's log has all of it."""


@dataclass
class Step:
    """One kind of thing that was cleaned."""

    name: str
    removed: list[str] = field(default_factory=list)
    """In words."""
    failed: str = ""

    def take(self, clean: Callable[[], list[str]]) -> Step:
        """Do it; a failure keeps none of the other steps away."""
        try:
            self.removed = clean()
        except ReleaseError as error:
            self.failed = str(error)
        except Exception as error:  # of any kind: the others free disk all the same
            self.failed = f"unexpected {type(error).__name__}: {error}"
        return self


def register(subparsers: Any) -> None:
    """Add the command to the program's parser."""
    text = (
        "remove what was kept for long enough: logs, images, backups, networks and databases that were left, "
        "and Airflow's history; code 1 when an operation is active, 3 when something stays that should go"
    )
    command: argparse.ArgumentParser = subparsers.add_parser("clean", help=text, description=text)
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--settings", type=Path, default=SETTINGS_FILE, help=argparse.SUPPRESS)
    may_wait(command)
    command.set_defaults(run=clean)


def clean(host: Host, arguments: argparse.Namespace) -> int:
    """Take every step and print what each removed; return 1 when an operation keeps all but logs from it.

    Raises:
        ReleaseError: with every failure.
    """
    settings, dry_run = load(arguments.settings), bool(arguments.dry_run)
    # First, and without the lock: a full disk may be why a backup or a switch does not get on.
    steps = [Step("logs").take(lambda: logs.clean(host, settings, dry_run=dry_run))]
    _say(steps[0], arguments)
    skipped = False
    try:
        with exclusive(host.lock, arguments.wait, doing="a clean-up"):
            operation = Journal(host).read()
            skipped = operation is not None and operation.active
            for step, work in [] if skipped else _under_lock(host, settings, dry_run):
                steps.append(step.take(work))
                _say(step, arguments)
    except ReleaseError as error:
        steps.append(Step("all but logs", failed=str(error)))
    if not dry_run and not skipped:
        _record(host, steps)
    if arguments.json:
        print(json.dumps([asdict(step) for step in steps], indent=2))
    if failures := [f"{step.name}: {step.failed}" for step in steps if step.failed]:
        raise ReleaseError("\n".join(["Not everything was cleaned:", *failures]))
    if skipped:
        print(
            "An operation is active and decides what is needed, so nothing else is removed: "
            "airflow-release status",
            file=sys.stderr,
        )
    return 1 if skipped else 0


def _record(host: Host, steps: list[Step]) -> None:
    """Write down for the host's checker when this was, and what stays that should have gone."""
    failed = "; ".join(f"{step.name}: {step.failed}" for step in steps if step.failed)
    document = {"at": time.time(), "failed": " ".join(failed.split())[:FAILED_LIMIT]}
    # On a full disk the rest has been done all the same.
    with contextlib.suppress(OSError):
        host.status.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(host.status / "clean.json", json.dumps(document) + "\n", mode=0o644)


def _under_lock(host: Host, settings: Settings, dry_run: bool) -> list[tuple[Step, Callable[[], list[str]]]]:
    """Return the steps that nothing else may happen beside; what frees most and needs least comes first."""
    short = images.is_short(host, settings)

    return [
        (Step("images"), lambda: images.clean(host, settings, short=short, dry_run=dry_run)),
        (
            Step("build cache"),
            lambda: images.clean_build_cache(host, settings, short=short, dry_run=dry_run),
        ),
        (Step("backups"), lambda: store.prune(host, settings, dry_run=dry_run)),
        (Step("networks"), lambda: networks.clean(host, dry_run=dry_run)),
        (Step("databases"), lambda: databases.clean(host, settings, short=short, dry_run=dry_run)),
        (Step("history"), lambda: history.clean(host, settings, dry_run=dry_run)),
    ]


def _say(step: Step, arguments: argparse.Namespace) -> None:
    """Say at once what went: the next step may take long."""
    if not arguments.json:
        for text in step.removed:
            print(f"{'would remove' if arguments.dry_run else 'removed'} {text}", flush=True)
        if not step.removed and not step.failed:
            print(f"{step.name}: nothing to remove", flush=True)
