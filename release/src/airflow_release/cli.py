"""The command `airflow-release`: backups, switches between releases, and the way back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_release.backup import commands as backup
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.report import commands as report
from airflow_release.switch import commands as switch


def parser() -> argparse.ArgumentParser:
    """Return the parser with every module's commands."""
    top = argparse.ArgumentParser(prog="airflow-release", description=__doc__)
    top.add_argument(
        "--directory", type=Path, default=Host.directory, help="where the platform is (%(default)s)"
    )
    top.add_argument("--backups", type=Path, default=Host.backups, help="where backups are (%(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (backup, switch, report):
        module.register(commands)
    return top


def main(given: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it did its work, 1 when it could not, 2 when it was called wrongly."""
    arguments = parser().parse_args(given)
    host = Host(arguments.directory, arguments.backups)
    try:
        return int(arguments.run(host, arguments))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        if error.log:
            print(error.log, file=sys.stderr)
        return 1
