"""The command `airflow-checker`: is the platform well, what is wrong, what to do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow_checker import judge, mend, messages, report
from airflow_checker.files import replace_json
from airflow_checker.gather import everything, host
from airflow_checker.lights import table
from airflow_checker.memory import Memory
from airflow_checker.memory import load as load_memory
from airflow_checker.settings import FILE, Settings, SettingsError
from airflow_checker.settings import load as load_settings

LOOK = 2
FAILED = 3


def main(given: Sequence[str] | None = None) -> int:
    """Exit codes: 0 well or done, 1 no, 2 something needs a look or a wrong call, 3 it failed."""
    parser = argparse.ArgumentParser(prog="airflow-checker", description=__doc__, epilog=main.__doc__)
    parser.add_argument("--settings", type=Path, default=FILE, help="the host's settings (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "check", help="look at everything, write the findings down, restart and report; the timer does this"
    )
    status = commands.add_parser("status", help="show what the last check found")
    status.add_argument("--json", action="store_true", help="as it is in status/health.json")
    commands.add_parser("record", help="record the host's files as rendered")
    commands.add_parser("may-restart", help="exit with 1 while an operation changes what runs")
    commands.add_parser("lights", help="print the table of all lights")
    commands.add_parser("rules", help="print the alerting rules for Prometheus")
    arguments = parser.parse_args(given)
    if arguments.command == "lights":
        print(table(), end="")
        return 0
    if arguments.command == "rules":
        from airflow_checker import rules  # The timer's look every 30 seconds does without.

        print(rules.text(), end="")
        return 0
    try:
        settings = load_settings(arguments.settings)
        if arguments.command == "check":
            return check(settings)
        operation = host.document(settings.directory / "releases/operation.json")
        if arguments.command == "may-restart":
            return int(judge.switching(operation))
        if arguments.command == "record":
            print("recorded" if everything.record(settings, operation) else "unchanged")
            return 0
    except (SettingsError, OSError) as error:
        print(f"airflow-checker {arguments.command}: {error}", file=sys.stderr)
        return FAILED
    document, now = host.document(settings.health), time.time()
    print(json.dumps(document, indent=2) if arguments.json else report.screen(document, now))
    return LOOK if report.needs_a_look(document, now) else 0


def check(settings: Settings, run: host.Run = host.run) -> int:
    """Look, judge, mend, write and tell; return 0 also when something is wrong: the unit did not fail.

    A disk that takes no file, or a systemd that starts nothing, keeps nobody from being told.

    Raises:
        OSError: one or the other; all else was done.
    """
    failed: list[OSError] = []
    memory = load_memory(settings.memory, settings.spare_memory)
    facts = everything.observe(settings, memory, run=run)
    memory.observe(facts)
    findings = judge.judge(facts, memory)
    blind = facts.stopped or judge.switching(facts.operation) or not facts.docker
    over = memory.see(findings, blind=blind)
    for service, asking in mend.wanted(facts, findings, memory, settings.never_restart).items():
        memory.restart(service)
        try:
            mend.restart(service, run)
        except OSError as error:
            failed.append(error)
            continue
        print(f"restarted {service}: {asking[0].what}")
        for finding in asking:
            memory.episodes[finding.key].restarts += 1
    document = report.build(facts, findings, memory, settings)
    try:
        replace_json(settings.health, document, mode=0o644)
    except OSError as error:
        failed.append(error)
    tell(settings, messages.news(findings, over, memory), memory, document)
    try:
        memory.save(settings.memory, settings.spare_memory)
    except OSError as error:
        failed.append(error)
    if failed:
        raise failed[0]
    return 0


def tell(settings: Settings, news: messages.News, memory: Memory, document: dict[str, Any]) -> None:
    """Send what is to be told, and call the heartbeat while all is well and tasks run, or will in a moment.

    What Slack did not take is told by the next run.
    """
    if news:
        title = f"{settings.environment} {settings.host}".strip() or "airflow"
        message = messages.message(news, memory, title=title, page=settings.status_page)
        print(message["text"])
        failed = messages.post(settings.slack, message) if settings.slack else ""
        if failed:
            print(f"Slack did not take the message: {failed}", file=sys.stderr)
            memory.owe(news.over)
        else:
            messages.note(news, memory)
    if document["overall"] == "ok" and document["state"] != "stopped" and settings.heartbeat:
        failed = messages.beat(settings.heartbeat)
        if failed:
            print(f"the heartbeat was not taken: {failed}", file=sys.stderr)
