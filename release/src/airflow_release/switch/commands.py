"""The commands that prepare, start, watch and confirm an operation (see `engine.py` for what it does)."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow_release.backup import space as disk
from airflow_release.core import images, lock, records
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host
from airflow_release.switch import engine, release_files, rollback, stack
from airflow_release.switch.journal import Journal, Operation

Subparsers = Any
"""What `ArgumentParser.add_subparsers` returns; argparse does not export its type."""

DEFAULTS = {"drain_timeout": 1800, "on_drain_timeout": "abort", "confirm_timeout": 900, "start_timeout": 300}
"""Seconds; `on_drain_timeout` is `abort` or `terminate`."""


def register(subparsers: Subparsers) -> None:
    """Add the commands."""

    def add(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        return command

    command = add("begin", begin, "prepare an operation: lock, journal, the next release's files")
    command.add_argument("--kind", required=True, choices=["upgrade", "rollback", "restore", "rotate"])
    command.add_argument("--to-version", required=True, help="the Airflow version that will run")
    command.add_argument("--database", default="copy", help="copy, bundle:PATH or sql:PATH (default: copy)")
    command.add_argument(
        "--release", help="begin with the files of an earlier release instead of the running one's"
    )
    command.add_argument(
        "--control", type=json.loads, default={}, help="JSON that tells which process drives it"
    )
    command.add_argument(
        "--options", type=json.loads, default={}, help=f"JSON; defaults: {json.dumps(DEFAULTS)}"
    )
    command.add_argument(
        "--wait", type=float, default=0, help="seconds to wait for a backup or rehearsal to end"
    )
    command.add_argument(
        "--take-over", action="store_true", help="replace one whose preparation was interrupted"
    )
    command = add("abandon", abandon, "end an operation that has changed nothing yet")
    command.add_argument("--message", default="", help="why, when it failed")
    command.add_argument("--log", default="")
    command = add("phase", phase, "record a step that somebody else takes")
    command.add_argument("name")
    command.add_argument("result", choices=["begin", "done", "failed"])
    command.add_argument("--note", default="")
    add("health", health, "say what keeps the platform from being healthy; exit 1 when there is something")
    command = add("space", space, "say whether there is disk for a switch; exit 1 when there is not")
    command.add_argument("--images", type=int, default=3_000_000_000, help="bytes that new images take")
    add(
        "rehearse",
        rehearse,
        "back up, restore beside the live database, migrate it, serve it; nothing running changes",
    )
    add("switch", start_switch, "start the switch in the background (airflow-release.service)")
    add(
        "run",
        run,
        "what airflow-release.service runs: takes an operation to its end, also an interrupted one",
    )
    command = add(
        "wait", wait, "wait for the end of a phase, or of the operation (`end`); exit 1 when it failed"
    )
    command.add_argument("phase")
    command.add_argument("--timeout", type=float, default=7200, help="seconds (default: 7200)")
    add("confirm", confirm, "keep the new release")
    command = add("refuse", refuse, "go back to the old release")
    command.add_argument("--message", required=True)
    command.add_argument("--log", default="")
    command = add("status", status, "show the operation under way, or the last one")
    command.add_argument("--json", action="store_true")
    command = add(
        "plan-rollback", plan_rollback, "say what going back to an earlier release would lose, as JSON"
    )
    command.add_argument("--release", default="", help="its id (default: the one before the one that runs)")
    command = add("releases", releases, "list the releases that this host had")
    command.add_argument("--json", action="store_true")


def begin(host: Host, arguments: argparse.Namespace) -> int:
    """Make an operation and the place for its files. Refused while another one is under way."""
    journal = Journal(host)
    # What an interrupted rehearsal left running ends by itself.
    with lock.exclusive(
        host.releases / "lock", wait_seconds=arguments.wait, doing="the beginning of a switch"
    ):
        earlier = journal.read()
        if earlier and earlier.active and not (earlier.state == "prepared" and arguments.take_over):
            raise ReleaseError(f"{_title(earlier)} is under way ({earlier.state}): airflow-release status")
        if earlier and earlier.state == "prepared":
            engine.clean_up(host)
        unknown = set(arguments.options) - set(DEFAULTS)
        if unknown:
            raise ReleaseError(f"unknown options: {', '.join(sorted(unknown))}")
        running = records.current(host, Database(host).revision())
        shutil.rmtree(host.next, ignore_errors=True)
        host.next.mkdir(parents=True, mode=0o700)
        source = _files_of(host, arguments.release) if arguments.release else host.directory
        release_files.install(source, host.next)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        operation = Operation(
            id=f"{stamp}-{arguments.kind}-{arguments.to_version}",
            kind=arguments.kind,
            from_version=running.airflow_version,
            to_version=arguments.to_version,
            database=arguments.database,
            control=arguments.control,
            options={**DEFAULTS, **arguments.options},
        )
        journal.move(operation, "prepared")
    return 0


def _files_of(host: Host, identifier: str) -> Path:
    """Return an earlier release's files.

    Raises:
        ReleaseError: it cannot run any more, for want of an image or because the secrets have changed since.
    """
    release = records.load(host, identifier)
    missing = [image for image in release.images.values() if not images.has_image(host, image)]
    if missing:
        raise ReleaseError(
            f"Release {identifier} cannot run: the host has no image {', '.join(missing)} any more."
        )
    changed = [
        name
        for name in ("env/airflow.env", "env/postgres.env", "env/redis.env")
        if host.environment(name, release.files(host)) != host.environment(name)
    ]
    if changed:
        raise ReleaseError(
            f"Release {identifier} has other secrets than the platform has now ({', '.join(changed)}): "
            "they were rotated. Restore its backup instead."
        )
    return release.files(host)


def abandon(host: Host, arguments: argparse.Namespace) -> int:
    """End a prepared operation. One that is switching goes to its end by itself."""
    operation = _operation(host, "prepared")
    engine.clean_up(host)
    if arguments.message and not operation.failure:
        step = operation.phases[-1].name if operation.phases else "preparation"
        reason = ReleaseError(arguments.message, arguments.log)
        operation.failure = {"phase": step, "message": str(reason), "log": reason.log}
    Journal(host).move(operation, "abandoned")
    return 0


def phase(host: Host, arguments: argparse.Namespace) -> int:
    """Record the beginning or the end of a step that Ansible takes."""
    Journal(host).record(_operation(host, "prepared"), arguments.name, arguments.result, arguments.note)
    return 0


def health(host: Host, arguments: argparse.Namespace) -> int:
    """Print what is wrong, a line each."""
    found = stack.problems(host) or stack.pending_migrations(host)
    print("\n".join(found) or "healthy")
    return 1 if found else 0


def space(host: Host, arguments: argparse.Namespace) -> int:
    """Compare free disk with what a switch needs: the database twice, backups of both, and the new images."""
    size = Database(host).size()
    try:
        disk.require_space(
            host,
            size,
            copies_of_database=2,
            images=arguments.images,
            copies_of_dump=2,
            dump=disk.expected_dump(host, size),
        )
    except ReleaseError as error:
        print(error)
        return 1
    print("enough disk")
    return 0


def rehearse(host: Host, arguments: argparse.Namespace) -> int:
    """Run phase `rehearse`."""
    with lock.exclusive(host.releases / "lock", wait_seconds=3600, doing="the rehearsal of a switch"):
        engine.prepare(host, _operation(host, "prepared"))
    return 0


def start_switch(host: Host, arguments: argparse.Namespace) -> int:
    """Hand the operation to systemd, which outlives this connection."""
    (host.releases / "verdict.json").unlink(missing_ok=True)
    Journal(host).move(_operation(host, "prepared"), "switching")
    host.run(
        ["systemctl", "start", "--no-block", "airflow-release.service"],
        doing="starting airflow-release.service",
    )
    return 0


def run(host: Host, arguments: argparse.Namespace) -> int:
    """Take the operation to its end; at once when there is nothing to do."""
    with lock.exclusive(host.releases / "lock", wait_seconds=3600):
        operation = Journal(host).read()
        if operation and operation.active and operation.state != "prepared":
            engine.Switch(host, operation).run()
    return 0


def wait(host: Host, arguments: argparse.Namespace) -> int:
    """Wait for a phase and print its note, or why it failed."""
    deadline = time.monotonic() + arguments.timeout
    while time.monotonic() < deadline:
        operation = _operation(host)
        found = next((phase for phase in operation.phases if phase.name == arguments.phase), None)
        if found and found.state == "done" and operation.state != "reverting":
            print(f"{found.name}: {found.seconds} s" + (f", {found.note}" if found.note else ""))
            return 0
        if operation.state in ("reverting", "reverted") and arguments.phase != "end":
            print(f"{operation.failure.get('phase')} failed: {operation.failure.get('message')}")
            return 1
        if not operation.active:
            print(_outcome(operation))
            return 0 if operation.state == "succeeded" else 1
        time.sleep(0.2)  # a file that another process writes
    raise ReleaseError(f"{arguments.phase} did not end within {arguments.timeout:.0f} s")


def confirm(host: Host, arguments: argparse.Namespace) -> int:
    """Keep the new release."""
    return _give_verdict(host, {"confirmed": True})


def refuse(host: Host, arguments: argparse.Namespace) -> int:
    """Go back to the old release; nothing to do where the host itself has found a reason to."""
    operation = _operation(host)
    if operation.state in ("reverting", "reverted"):
        print(_outcome(operation))
        return 0
    return _give_verdict(host, {"confirmed": False, "message": arguments.message, "log": arguments.log})


def status(host: Host, arguments: argparse.Namespace) -> int:
    """Show the operation, its phases with their times, and its failure."""
    operation = Journal(host).read()
    if arguments.json:
        version = host.environment().get("AIRFLOW_VERSION", "")
        print(json.dumps({"running_version": version, "operation": asdict(operation) if operation else None}))
    elif operation is None:
        print("Nothing was ever switched on this host.")
    else:
        print(_outcome(operation))
        for one in operation.phases:
            print(f"  {one.name:<10} {one.state:<8} {one.seconds:>7.1f} s  {one.note}")
    return 0


def releases(host: Host, arguments: argparse.Namespace) -> int:
    """List the releases, the oldest first."""
    known = records.history(host)
    if arguments.json:
        print(json.dumps([asdict(release) for release in known]))
        return 0
    for release in known:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(release.since))
        print(f"{release.id}  Airflow {release.airflow_version}  since {since}  {release.bundle}")
    return 0


def plan_rollback(host: Host, arguments: argparse.Namespace) -> int:
    """Print the plan."""
    print(json.dumps(asdict(rollback.plan(host, arguments.release))))
    return 0


def _give_verdict(host: Host, verdict: dict[str, Any]) -> int:
    _operation(host, "unconfirmed")
    replace_file(host.releases / "verdict.json", json.dumps(verdict))
    return 0


def _operation(host: Host, *states: str) -> Operation:
    """Return the operation, if it is in one of these states."""
    operation = Journal(host).read()
    if operation is None:
        raise ReleaseError("there is no operation on this host")
    if states and operation.state not in states:
        raise ReleaseError(f"{_title(operation)} is {operation.state}, not {' or '.join(states)}")
    return operation


def _title(operation: Operation) -> str:
    versions = dict.fromkeys((operation.from_version, operation.to_version))
    return f"{operation.kind} {' -> '.join(versions)}"


def _outcome(operation: Operation) -> str:
    failure = operation.failure
    reason = f": {failure['phase']} failed: {failure['message']}" if failure else ""
    return f"{_title(operation)} ({operation.id}): {operation.state}{reason}"
