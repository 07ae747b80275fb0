"""The command `airflow-release`: backups, switches and the way back, the clean-up, certificates."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from airflow_release.backup import commands as backup
from airflow_release.certificate import commands as certificate
from airflow_release.clean import commands as clean
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.report import commands as report
from airflow_release.switch import commands as switch

NOT_DONE = 3
UNEXPECTED = 4
CRASHES_KEPT = 2**20
"""Bytes after which crash.log begins anew: a unit that fails is started again and again."""


def parser() -> argparse.ArgumentParser:
    """Return the parser with every module's commands."""
    top = argparse.ArgumentParser(prog="airflow-release", description=__doc__, epilog=main.__doc__)
    top.add_argument(
        "--directory", type=Path, default=Host.directory, help="where the platform is (%(default)s)"
    )
    top.add_argument("--backups", type=Path, default=Host.backups, help="where backups are (%(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (backup, switch, report, clean, certificate):
        module.register(commands)
    return top


def main(given: Sequence[str] | None = None) -> int:
    """Exit codes: 0 yes or done, 1 the answer is no, 2 called wrongly, 3 could not be done, 4 unexpected."""
    arguments = parser().parse_args(given)
    host = Host(arguments.directory, arguments.backups)
    try:
        code = int(arguments.run(host, arguments))
        sys.stdout.flush()
        return code
    except ReleaseError as error:
        # An empty line is between what failed and its log, for whoever wants the first alone.
        _complain("\n\n".join(part for part in (str(error), error.log.strip("\n")) if part))
        return NOT_DONE
    except BrokenPipeError:
        # Python flushes once more when it exits, and would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _complain(f"airflow-release {arguments.command}: nobody read its answer to the end")
        return NOT_DONE
    except KeyboardInterrupt:
        _complain(f"airflow-release {arguments.command}: interrupted")
        return NOT_DONE
    except Exception as error:  # of any kind: a crash is one sentence, and never the answer "no"
        kept = _keep_traceback(host.releases / "crash.log", arguments.command)
        words = " ".join(str(error).split())[:500]
        _complain(
            f"airflow-release {arguments.command}: unexpected {type(error).__name__}: {words}"
            + (f"; details in {kept}" if kept else "")
        )
        return UNEXPECTED


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _keep_traceback(file: Path, command: str) -> Path | None:
    """Append the traceback of what is being handled; return where, None when there is no place for it."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        again = os.O_TRUNC if file.exists() and file.stat().st_size > CRASHES_KEPT else os.O_APPEND
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | again, 0o600)
        with open(descriptor, "w", errors="backslashreplace") as log:
            os.fchmod(descriptor, 0o600)
            log.write(f"{now} airflow-release {command}\n{traceback.format_exc()}\n")
    except OSError:
        return None
    return file
