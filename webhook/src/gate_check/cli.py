"""The command line.

gate-check check TREE                   print the report as JSON; exit 3 when the tree is refused
gate-check serve SOCKET --root DIR      answer requests for trees below DIR
gate-check ping SOCKET                  exit 0 when the server answers
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from gate_check.children import Limits
from gate_check.gate import Gate
from gate_check.server import ping, serve

EXIT_REFUSED = 3


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="gate-check", description="Check a tree of DAGs on this Airflow.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "serve", "ping"):
        command = commands.add_parser(name)
        command.add_argument(
            "path", type=Path, help="the tree" if name == "check" else "the server's unix socket"
        )
        if name == "ping":
            command.add_argument("--seconds", type=float, default=10, help="time limit for the answer")
        else:
            command.add_argument(
                "--seconds", type=float, default=Limits.seconds, help="time limit for each file"
            )
            command.add_argument(
                "--memory-mib", type=int, default=Limits.memory // 2**20, help="for each file"
            )
        if name == "check":
            command.add_argument("--dags", default="dags", help="folder of the DAGs in the tree")
            command.add_argument("--requirements", default="images/airflow/requirements.txt")
        if name == "serve":
            command.add_argument("--root", type=Path, required=True, help="folder of the trees")
            command.add_argument(
                "--scratch",
                type=Path,
                nargs="+",
                default=[],
                metavar="DIR",
                help="folders that are emptied after each request of what a commit's code left in them",
            )
    options = parser.parse_args()
    if options.command == "ping":
        ping(options.path, options.seconds)
        return 0
    limits = Limits(options.seconds, options.memory_mib * 2**20)
    if options.command == "serve":
        serve(options.path, options.root, limits, options.scratch)
        return 0
    report = Gate(limits).check(options.path, options.dags, options.requirements)
    print(json.dumps(dataclasses.asdict(report), indent=2))
    return EXIT_REFUSED if report.problems else 0
