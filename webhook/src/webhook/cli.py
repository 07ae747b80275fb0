"""`dag-sync`: the same sync as the webhook's, for timers, for boot and for people."""

import argparse
import dataclasses
import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from webhook import state, trees
from webhook.settings import Settings, SettingsError, from_environment
from webhook.sync import NoRepositoryError, Outcome, Result, Syncer
from webhook.trees import removals

EXIT_OK, EXIT_FAILED, EXIT_REFUSED = 0, 1, 3

EXIT_CODES = """\
exit codes:
  0  the right commit is live
  1  the sync failed; what was live stays live
  2  wrong usage, or a setting is missing
  3  the commit was refused; what was live stays live
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    removals.setLevel(logging.INFO)
    try:
        if options.env_file is not None:
            os.environ.update(read_env_file(options.env_file))
        settings = from_environment()
        become_owner(settings.state_dir)
        if options.command == "status":
            return _status(settings, options.json)
        syncer = Syncer(settings)
    except (SettingsError, NoRepositoryError, OSError, ValueError) as error:
        print(f"dag-sync: {error}", file=sys.stderr)
        return 2
    if options.command == "pin":
        result = syncer.pin(options.commit, with_gate=not options.no_gate)
    elif options.command == "unpin":
        result = syncer.unpin()
    else:
        result = syncer.sync(options.trigger)
    _print_result(result, options.json)
    return _exit_code(result.outcome)


def _exit_code(outcome: str) -> int:
    return {Outcome.FAILED: EXIT_FAILED, Outcome.REFUSED: EXIT_REFUSED}.get(Outcome(outcome), EXIT_OK)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dag-sync",
        description="Make the head of the production branch, or a pinned commit, live.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--env-file", type=Path, metavar="FILE", help="read the settings from this file of NAME=value"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    once = commands.add_parser("once", help="fetch, check, switch; then end")
    once.add_argument("--trigger", default="command line", help="what the status page says set it off")
    commands.add_parser("status", help="what is live, since when, and how the last sync ended")
    pin = commands.add_parser("pin", help="go to one commit and stay there: the rollback")
    pin.add_argument("commit", help="its id, or the first digits of it")
    pin.add_argument("--no-gate", action="store_true", help="do not check it: when the gate itself is broken")
    commands.add_parser("unpin", help="follow the branch again")
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON")
        command.epilog = EXIT_CODES
        command.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def read_env_file(path: Path) -> dict[str, str]:
    """Read NAME=value lines as Docker does: no quoting, no expansion, # begins a comment line.

    Raises:
        ValueError: a line has no =.
    """
    values = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, separator, value = line.partition("=")
            if not separator:
                raise ValueError(f"{path}, line {number}: not of the form NAME=value")
            values[name.strip()] = value
    return values


def become_owner(directory: Path) -> None:
    """Give up root for the owner of the state folder, so that the webhook can go on with what we write."""
    if os.geteuid() != 0 or not directory.exists():
        return
    status = directory.stat()
    if status.st_uid != 0:
        os.setgroups([])
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)


def _print_result(result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
        return
    print(f"{result.outcome}: {result.detail}")
    for reason in result.reasons:
        print(f"  {reason.kind}: {reason}")


def _status(settings: Settings, as_json: bool) -> int:
    current = state.load(settings.state_dir / "state.json")
    live = trees.commit_of(trees.Trees(settings.trees_dir).live())
    if as_json:
        print(json.dumps({**dataclasses.asdict(current), "current": live}, indent=2))
    else:
        _print_status(current, live)
    return _exit_code(current.last_sync.outcome) if current.last_sync else EXIT_FAILED


def _print_status(current: state.State, live: str | None) -> None:
    known = current.live if current.live and current.live.id == live else None
    print(f"live       {_commit(known) if known else live or 'nothing yet'}")
    if current.live_since:
        print(f"since      {_when(current.live_since)}")
    if current.pin:
        print(f"pinned     {current.pin} (dag-sync unpin follows the branch again)")
    if current.head and current.head.id != live:
        print(f"branch     {_commit(current.head)}")
    if current.last_sync:
        last = current.last_sync
        print(f"last sync  {_when(last.at)} by {last.trigger}, {last.seconds:.1f} s: {last.detail}")
    for refusal in current.refused:
        print(f"refused    {_commit(refusal.commit)}, {_when(refusal.at)}")
        for reason in refusal.reasons:
            print(f"           {reason.kind}: {reason}")
    if current.infrastructure_changed:
        print(f"site.yml   run it: {len(current.infrastructure_changed)} files outside the DAGs changed")


def _commit(commit: state.Commit) -> str:
    return f"{commit.id[:12]} {commit.author}: {commit.subject}"


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC ({(time.time() - at) / 60:.0f} min ago)"


if __name__ == "__main__":
    sys.exit(main())
