"""The commands that prepare, start, watch and confirm an operation (see `engine.py` for what it does)."""

from __future__ import annotations

import argparse
import json
import math
import re
import secrets
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow_release.backup import space as disk
from airflow_release.core import images, lock, records
from airflow_release.core.database import KEPT, LIVE, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host
from airflow_release.switch import (
    engine,
    pace,
    playbooks,
    rehearsal,
    release_files,
    rollback,
    stack,
    worker,
)
from airflow_release.switch.journal import PHASES, REPAIRS, Journal, Operation
from airflow_release.switch.options import Options

Subparsers = Any
"""What `ArgumentParser.add_subparsers` returns; argparse does not export its type."""

KINDS = ("upgrade", "rollback", "restore", "rotate")
UNIT = "airflow-release.service"
POLL_SECONDS = 20
"""How long one poll lasts: less than what a firewall takes for an idle connection."""

_DATABASE = re.compile(rf"copy|(bundle|sql):/.+|database:{KEPT.pattern}")
"""Where a database may come from. A kept one is named by the host itself."""

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def register(subparsers: Subparsers) -> None:
    """Add the commands."""

    def add(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        return command

    command = add("begin", begin, "prepare an operation: lock, journal, the next release's files")
    command.add_argument("--kind", required=True, choices=KINDS)
    command.add_argument("--to-version", required=True, help="the Airflow version that will run")
    command.add_argument(
        "--database",
        default="copy",
        help="copy, bundle:PATH, sql:PATH or database:NAME, a kept one (default: copy)",
    )
    command.add_argument(
        "--release", help="begin with the files of an earlier release instead of the running one's"
    )
    command.add_argument(
        "--command",
        dest="asked",
        type=_texts,
        default={},
        help="JSON object of texts: what the operator asked for; only the same goes on with it",
    )
    command.add_argument(
        "--control", type=_object, default={}, help="JSON that tells which process drives it"
    )
    command.add_argument("--options", type=_object, default={}, help="JSON; see check-options")
    lock.may_wait(command)
    _taking_over(command)
    command.add_argument("--json", action="store_true", help='print {"id": ...} and nothing else')
    command = add("check-options", check_options, "parse options, or say what is wrong with them")
    command.add_argument(
        "--options", type=_object, default={}, help=f"JSON; defaults: {json.dumps(asdict(Options()))}"
    )
    command = add(
        "check-rotation",
        check_rotation,
        "try a rotation of secrets beside the live database, and say how long pages will be away",
    )
    command.add_argument("--options", type=_object, default={}, help="JSON; see check-options")
    command.add_argument("--fernet-key", action="store_true", help="the Fernet key is among the secrets")
    _taking_over(command)
    command = add("abandon", abandon, "end an operation that has changed nothing yet")
    _of_operation(command)
    _with_reason(command)
    command.add_argument(
        "--wait", type=float, default=300, help="seconds to wait for a rehearsal to end (default: 300)"
    )
    command = add("phase", phase, "record a step that somebody else takes")
    command.add_argument("name", choices=PHASES)
    command.add_argument("result", choices=["begin", "done", "failed"])
    command.add_argument("--note", default="")
    _of_operation(command)
    add("health", health, "say what keeps the platform from being healthy; exit 1 when there is something")
    command = add("space", space, "say whether there is disk for a switch; exit 1 when there is not")
    command.add_argument("--images", type=int, default=3_000_000_000, help="bytes that new images take")
    add("guard", guard, "say which operation is active; exit 1 when there is one")
    command = add(
        "rehearse",
        rehearse,
        "back up, restore beside the live database, migrate it, serve it; nothing running changes",
    )
    _of_operation(command)
    command = add("start", start, f"start the switch in the background ({UNIT})")
    _of_operation(command)
    add("run", run, f"what {UNIT} runs: takes an operation to its end, also an interrupted one")
    command = add(
        "wait", wait, "wait for the end of a phase, or of the operation (`end`); exit 1 when it failed"
    )
    command.add_argument("phase", choices=(*PHASES, "end"))
    command.add_argument(
        "--seconds", type=float, help=f"how long at most (default: to the end; with --json {POLL_SECONDS})"
    )
    command.add_argument(
        "--json", action="store_true", help='print {"over", "failed", "said"}, and exit 0 whatever they are'
    )
    command = add("confirm", confirm, "keep the new release")
    _of_operation(command)
    command = add("refuse", refuse, "go back to the old release")
    _of_operation(command)
    _with_reason(command, required=True)
    command = add("status", status, "show the active operation, or the last one")
    command.add_argument("--json", action="store_true")
    command = add(
        "plan-rollback", plan_rollback, "say what going back to an earlier release would lose, as JSON"
    )
    command.add_argument("--release", default="", help="its id (default: the one before the one that runs)")
    add(
        "up", up, f"what {stack.UNIT} runs: starts what should run and does not; exit 1 when something cannot"
    )
    command = add(
        "drain-worker", drain_worker, "have a worker on another host end its tasks and take no more"
    )
    command.add_argument("name", type=_worker_name, help="its name in the inventory")
    command.add_argument(
        "--seconds", type=float, default=POLL_SECONDS, help=f"how long at most (default: {POLL_SECONDS})"
    )
    command.add_argument(
        "--json", action="store_true", help='print {"over", "said"}, and exit 0 whatever they are'
    )
    command = add("releases", releases, "list the releases that this host had")
    command.add_argument("--json", action="store_true")


def _of_operation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--operation", default="", metavar="ID", help="refuse when it is another one that is active"
    )


def _taking_over(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--take-over", default="", metavar="ID", help="replace that one, whose preparation was interrupted"
    )


def _with_reason(command: argparse.ArgumentParser, *, required: bool = False) -> None:
    one_of = command.add_mutually_exclusive_group(required=required)
    one_of.add_argument("--message", default="", help="why")
    one_of.add_argument(
        "--reason-from-stdin",
        action="store_true",
        help='read why from standard input: JSON {"message": text, "log": text}',
    )


def _object(text: str) -> dict[str, Any]:
    """Read an argument that is a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"it is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("it is no JSON object")
    return value


def _texts(text: str) -> dict[str, str]:
    """Read an argument that is a JSON object of texts."""
    value = _object(text)
    if not all(isinstance(one, str) for one in value.values()):
        raise argparse.ArgumentTypeError("it has a value that is no text")
    return value


def _worker_name(text: str) -> str:
    """Read an argument that is the name of a host. It becomes a part of a question to Postgres."""
    if not _HOST_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("it is no name of a host")
    return text


def check_options(host: Host, arguments: argparse.Namespace) -> int:
    """Parse options as `begin` does, before anything is changed anywhere; print what they mean."""
    print(json.dumps(asdict(Options.parse(arguments.options))))
    return 0


def check_rotation(host: Host, arguments: argparse.Namespace) -> int:
    """Try a rotation, before the vault or the host has other values.

    Raises:
        ReleaseError: another operation is active, more values cannot be decrypted than was accepted, or
            pages would be away for longer than they may.
    """
    options = Options.parse(arguments.options)
    with lock.exclusive(host.lock, math.inf, doing="the rehearsal of a rotation"):
        _require_free(Journal(host).read(), {"kind": "rotate"}, arguments.take_over)
        seconds = rehearsal.measure_rotation(host, options, fernet_key=arguments.fernet_key, say=_say)
    print(f"The rotation will keep Airflow's pages away for about {seconds:.0f} s.")
    return 0


def _say(doing: str) -> None:
    """Show what a command is doing, beside its answer."""
    print(f"{time.strftime('%H:%M:%S')} {doing}", file=sys.stderr, flush=True)


def begin(host: Host, arguments: argparse.Namespace) -> int:
    """Make an operation and the place for its files. Refused while another one or a playbook is at work."""
    options = Options.parse(arguments.options)
    if not _DATABASE.fullmatch(arguments.database):
        raise ReleaseError(
            f"{arguments.database!r} is no source for a database; "
            "copy, bundle:PATH, sql:PATH or database:NAME is expected"
        )
    command = arguments.asked or {"kind": arguments.kind}
    journal = Journal(host, quiet=arguments.json)
    # What an interrupted rehearsal left running ends by itself.
    with lock.exclusive(host.lock, arguments.wait, doing="the beginning of a switch"):
        _require_free(journal.read(), command, arguments.take_over)
        playbooks.require_none(host, arguments.control)
        running = records.current(host, _revision(host, arguments.kind))
        # A rehearsal measures an upgrade, and check-rotation has just measured a rotation. What comes from a
        # backup is rehearsed, and is not copied with the pages away.
        if arguments.database == "copy" and arguments.kind != "upgrade":
            if arguments.kind in REPAIRS:
                rehearsal.measure_pace(host, _say)
            pace.require(host, Database(host).size(), options.outage_limit)
        source = _files_of(host, arguments.release) if arguments.release else host.directory
        # Nothing refuses this one any more. From here on whoever drives the earlier one is refused.
        with journal.changing() as earlier:
            _require_free(earlier, command, arguments.take_over)
            if replaces := earlier is not None and earlier.active:
                journal.warn(earlier, f"It was taken over for `{_words(command)}`.")
                journal.move(earlier, "abandoned")
        warnings = _clean_up(host, tolerant=arguments.kind in REPAIRS) if replaces else []
        shutil.rmtree(host.next, ignore_errors=True)
        host.next.mkdir(parents=True, mode=0o700)
        release_files.install(source, host.next)
        operation = Operation(
            id=_new_id(arguments.kind, arguments.to_version, earlier),
            kind=arguments.kind,
            from_version=running.airflow_version,
            to_version=arguments.to_version,
            command=command,
            database=arguments.database,
            control=arguments.control,
            options=asdict(options),
            warnings=warnings,
        )
        journal.move(operation, "prepared")
        try:
            # A second time, for one that has read the journal just before it said so.
            playbooks.require_none(host, arguments.control)
        except ReleaseError:
            journal.move(operation, "abandoned")
            raise
    if arguments.json:
        print(json.dumps({"id": operation.id}))
    return 0


def _require_free(earlier: Operation | None, command: dict[str, str], take_over: str) -> None:
    """Refuse to replace an operation but for the one that was named, while it has changed nothing.

    Raises:
        ReleaseError: with both commands, and what to do.
    """
    if earlier is None or not earlier.active or (earlier.state == "prepared" and take_over == earlier.id):
        return
    text = (
        f"{_under_way(earlier)} It was asked for as `{_words(earlier.command)}`, "
        f"and nothing was begun for `{_words(command)}`."
    )
    if take_over and take_over != earlier.id:
        text += f" The operation to take over is another one: {take_over}."
    raise ReleaseError(text)


def _revision(host: Host, kind: str) -> str:
    """Return the live schema's revision; "" where it cannot be read and the operation is the remedy."""
    database = Database(host)
    if kind not in REPAIRS:
        return database.revision()
    stack.ensure_database(host)
    return database.revision_or_none()


def _new_id(kind: str, version: str, earlier: Operation | None) -> str:
    """Name an operation by its time; by more where that does not tell it from the one before."""
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{kind}-{version}"
    return f"{name}-{secrets.token_hex(3)}" if earlier and earlier.id.startswith(name) else name


def _clean_up(host: Host, *, tolerant: bool) -> list[str]:
    """Remove what a rehearsal left; return in words what stays, which may be nothing but for `tolerant`."""
    try:
        rehearsal.clean_up(host)
    except ReleaseError as error:
        if not tolerant:
            raise
        return [f"What the rehearsal left is not removed: {error}."]
    return []


def _files_of(host: Host, identifier: str) -> Path:
    """Return an earlier release's files.

    Raises:
        ReleaseError: it cannot run any more, for want of an image or because the secrets have changed since.
    """
    release = records.load(host, identifier)
    files = release.files(host)
    # By its files, which are what will run; its record may be of images from before site.yml built others.
    needed = {value for name, value in host.environment(project=files).items() if name.endswith("_IMAGE")}
    if not needed:
        raise ReleaseError(f"Release {identifier} cannot run: the host has no files of it.")
    missing = [image for image in sorted(needed) if not images.has_image(host, image)]
    if missing:
        raise ReleaseError(
            f"Release {identifier} cannot run: the host has no image {', '.join(missing)} any more."
        )
    changed = [
        name
        for name in ("env/airflow.env", "env/postgres.env", "env/redis.env")
        if host.environment(name, files) != host.environment(name)
    ]
    if changed:
        raise ReleaseError(
            f"Release {identifier} has other secrets than the platform has now ({', '.join(changed)}): "
            "they were rotated. Restore its backup instead."
        )
    return files


def abandon(host: Host, arguments: argparse.Namespace) -> int:
    """End an operation that has changed nothing. One that is switching goes to its end by itself."""
    message, log = _reason(arguments)
    return _abandon(host, arguments.operation, arguments.wait, message, log)


def _abandon(host: Host, identifier: str, wait_seconds: float, message: str, log: str) -> int:
    _require_unchanged(Journal(host).read(), identifier)
    # A rehearsal holds the lock, and a switch from before its first step: with it, neither is at work.
    with lock.exclusive(host.lock, wait_seconds, doing="the end of a preparation"):
        journal = Journal(host)
        with journal.changing() as operation:
            operation = _require_unchanged(operation, identifier)
            operation.warnings += _clean_up(host, tolerant=True)
            if message and not operation.failure:
                step = operation.phases[-1].name if operation.phases else "preparation"
                reason = ReleaseError(message, log)
                operation.failure = {"phase": step, "message": str(reason), "log": reason.log}
            journal.move(operation, "abandoned")
    return 0


def _require_unchanged(operation: Operation | None, identifier: str) -> Operation:
    """Return the operation, if nothing that runs was changed by it.

    Raises:
        ReleaseError: it is another one, it is over, or it has begun to switch.
    """
    operation = _require(operation, identifier)
    if operation.state == "prepared" or operation.never_began:
        return operation
    advice = f" {_remedy(operation)}" if operation.active else ""
    raise ReleaseError(f"{operation.title} ({operation.id}) is {operation.state}, not prepared.{advice}")


def phase(host: Host, arguments: argparse.Namespace) -> int:
    """Record the beginning or the end of a step that Ansible takes."""
    journal = Journal(host)
    with journal.changing() as operation:
        operation = _require(operation, arguments.operation, "prepared")
        journal.record(operation, arguments.name, arguments.result, arguments.note)
    return 0


def health(host: Host, arguments: argparse.Namespace) -> int:
    """Print what is wrong, a line each."""
    found = stack.problems(host)
    if not found:
        try:
            found = stack.pending_migrations(host)
        except ReleaseError as error:
            found = [f"the schema cannot be asked for: {error}"]
    print("\n".join(found) or "healthy")
    return 1 if found else 0


def space(host: Host, arguments: argparse.Namespace) -> int:
    """Compare free disk with what a switch needs: the database twice, backups of both, and the new images."""
    database = Database(host)
    # Where the live one is lost, what replaces it was weighed when it was examined.
    size = database.size() if LIVE in database.names() else 0
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


def guard(host: Host, arguments: argparse.Namespace) -> int:
    """Print which operation is active and what to do about it; other changes of the platform wait."""
    operation = Journal(host).read()
    if operation and operation.active:
        print(_under_way(operation))
        return 1
    print("No operation is active.")
    return 0


def rehearse(host: Host, arguments: argparse.Namespace) -> int:
    """Run phase `rehearse`, after a backup that is active, however large it is."""
    with lock.exclusive(host.lock, math.inf, doing="the rehearsal of a switch"):
        rehearsal.rehearse(host, _require(Journal(host).read(), arguments.operation, "prepared"))
    return 0


def start(host: Host, arguments: argparse.Namespace) -> int:
    """Hand the operation to systemd, which outlives this connection.

    Raises:
        ReleaseError: the unit does not start; then the operation is `prepared`, as before.
    """
    journal = Journal(host)
    with journal.changing() as operation:
        operation = _require(operation, arguments.operation, "prepared")
        (host.releases / "verdict.json").unlink(missing_ok=True)
        journal.move(operation, "switching")
        try:
            # Not `start`: a process of the unit that has seen nothing to do may still be about to end. Not
            # `--no-block`: a unit that cannot start is a failure. The new one waits in `run` for this lock.
            host.run(["systemctl", "restart", UNIT], doing=f"starting {UNIT}")
        except BaseException:
            journal.move(operation, "prepared")
            raise
    return 0


def run(host: Host, arguments: argparse.Namespace) -> int:
    """Take the operation to its end; at once when there is nothing to do."""
    with lock.exclusive(host.lock, math.inf):
        with Journal(host).changing() as operation:
            pass  # so `start` has its answer from systemd, and the operation is what it will be
        if operation and operation.active and operation.state != "prepared":
            engine.Engine(host, operation).run()
    return 0


def up(host: Host, arguments: argparse.Namespace) -> int:
    """Start what should run and does not. A switch decides itself what runs, until it is over."""
    # No lock: systemd has UNIT wait until this has ended, and by then the journal says that it switches.
    operation = Journal(host).read()
    if operation and operation.active and operation.state != "prepared":
        print(f"{operation.title} ({operation.id}) decides what runs: nothing is started.")
        return 0
    if not (missing := stack.missing(host)):
        print("Every service runs: nothing is started.")
        return 0
    print(f"{', '.join(missing)}: not running, and started now.", flush=True)
    problems = stack.resume(host, missing)
    print("\n".join(problems) or "Every service is started.")
    return 1 if problems else 0


def wait(host: Host, arguments: argparse.Namespace) -> int:
    """Wait for a phase and print its note, or why it failed."""
    seconds = arguments.seconds
    if seconds is None:
        seconds = POLL_SECONDS if arguments.json else float("inf")
    deadline = time.monotonic() + seconds
    while (end := _end_of(_require(Journal(host).read()), arguments.phase)) is None:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.2)  # a file that another process writes
    if arguments.json:
        said = end[1] if end else _require(Journal(host).read()).standing
        print(json.dumps({"over": bool(end), "failed": bool(end and end[0]), "said": said}))
        return 0
    if end is None:
        raise ReleaseError(f"{arguments.phase} did not end within {seconds:.0f} s")
    failed, said = end
    print(said)
    return 1 if failed else 0


def _end_of(operation: Operation, name: str) -> tuple[bool, str] | None:
    """Return whether a phase or, for `end`, the operation failed, and a sentence; None while it goes on."""
    if not operation.active:
        return operation.state != "succeeded", operation.outcome
    if name == "end":
        return None
    found = next((phase for phase in operation.phases if phase.name == name), None)
    if operation.state == "reverting" and name != "revert":
        return True, operation.outcome
    if found and found.state == "done":
        return False, f"{found.name}: {found.seconds} s" + (f", {found.note}" if found.note else "")
    if found and found.state == "failed" and operation.state == "prepared":
        return True, operation.outcome
    return None


def confirm(host: Host, arguments: argparse.Namespace) -> int:
    """Keep the new release."""
    return _give_verdict(host, arguments.operation, {"confirmed": True})


def refuse(host: Host, arguments: argparse.Namespace) -> int:
    """Go back to the old release; nothing to do where the host itself has found a reason to."""
    message, log = _reason(arguments)
    message = message or "It was refused, and no reason was given."
    operation = _require(Journal(host).read(), arguments.operation)
    if operation.state in ("reverting", "reverted"):
        print(operation.outcome)
        return 0
    if operation.never_began:
        return _abandon(host, operation.id, 0, message, log)
    return _give_verdict(host, operation.id, {"confirmed": False, "message": message, "log": log})


def _reason(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return why something is given up, and the log that shows it. A log is on no command line.

    Raises:
        ReleaseError: standard input has not what was announced.
    """
    if not arguments.reason_from_stdin:
        return arguments.message, ""
    try:
        given = json.loads(sys.stdin.read())
        message, log = given["message"], given.get("log", "")
        if not isinstance(message, str) or not isinstance(log, str):
            raise TypeError("message and log are texts")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ReleaseError(f"Standard input is no JSON with the texts `message` and `log`: {error}") from None
    return message, log


def status(host: Host, arguments: argparse.Namespace) -> int:
    """Show the operation, its phases with their times, its failure and its warnings."""
    operation = Journal(host).read()
    if arguments.json:
        version = host.environment().get("AIRFLOW_VERSION", "")
        print(json.dumps({"running_version": version, "operation": asdict(operation) if operation else None}))
    elif operation is None:
        print("Nothing was ever switched on this host.")
    else:
        print(operation.outcome)
        for one in operation.phases:
            seconds = time.time() - one.started if one.state == "running" else one.seconds
            print(f"  {one.name:<10} {one.state:<8} {seconds:>7.1f} s  {one.note}")
        for warning in operation.warnings:
            print(f"  warning: {warning}")
    return 0


def drain_worker(host: Host, arguments: argparse.Namespace) -> int:
    """Wait for the tasks of a worker that is removed, and say how far it is."""
    standing = worker.drain_worker(host, arguments.name, arguments.seconds)
    print(standing.json() if arguments.json else standing.said)
    return 0 if standing.over or arguments.json else 1


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


def _give_verdict(host: Host, identifier: str, verdict: dict[str, Any]) -> int:
    operation = _require(Journal(host).read(), identifier, "unconfirmed")
    replace_file(host.releases / "verdict.json", json.dumps({"operation": operation.id, **verdict}))
    return 0


def _require(operation: Operation | None, identifier: str = "", *states: str) -> Operation:
    """Return the operation, if it has this id and is in one of these states.

    Raises:
        ReleaseError: it is another one, in another state, or there is none.
    """
    if operation is None:
        raise ReleaseError("there is no operation on this host")
    if identifier and identifier != operation.id:
        raise ReleaseError(
            f"The operation of this host is another one than {identifier}: "
            f"{operation.title} ({operation.id}), {operation.standing}. Nothing was changed."
        )
    if states and operation.state not in states:
        raise ReleaseError(f"{operation.title} is {operation.state}, not {' or '.join(states)}")
    return operation


def _under_way(operation: Operation) -> str:
    """Say which operation is active, where it is and what to do."""
    return f"{operation.title} ({operation.id}) is active: {operation.standing}. {_remedy(operation)}"


def _remedy(operation: Operation) -> str:
    if operation.state == "prepared" or operation.never_began:
        return "Wait for it, or end it, since it has changed nothing: airflow-release abandon."
    if operation.state == "unconfirmed":
        return (
            "Run its command again, or judge it: "
            "airflow-release confirm, or airflow-release refuse --message TEXT."
        )
    if operation.state == "switching":
        return f"Wait for it: airflow-release wait end. To call it off and go back: systemctl restart {UNIT}."
    return "Wait for it: airflow-release wait end."


def _words(command: dict[str, str]) -> str:
    """Write a command as a person says it: `restore backup=latest`."""
    options = [f"{name}={value}" for name, value in command.items() if name != "kind" and value]
    return " ".join([command.get("kind", "unknown"), *options])
