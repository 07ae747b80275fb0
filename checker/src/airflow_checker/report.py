"""status/health.json, which the status page, `airflow-checker status` and status.yml read. Its schema:

    schema       1
    generated    when, ISO 8601 in UTC
    environment, host, airflow_version
                 which platform this is
    overall      ok, warning or critical; notices change nothing
    state        running; stopped (on purpose); switching (an operation changes what runs)
    doing        the operation in words, "" for none
    findings     the gravest first: id, severity (critical, warning, notice), since, subject, what (one
                 sentence), advice (one sentence), anchor (in docs/when-something-is-wrong.md)
    services     name, state, health, since, restarts, for each that should run
    figures      disks (path, size, free, inodes, inodes_free, days_until_full; 0 inodes: they have no fixed
                 number), database_bytes, database_growth_bytes (within a day), tasks_running,
                 tasks_queued, hours (from, succeeded, failed, seconds, longest: the tasks that ended in each
                 of the last 24, how long they ran all together, and the longest of them; oldest first),
                 queues, queue_ages (by queue: for how many seconds its oldest task has been queued), overdue
                 (by DAG: how many seconds ago its next run should have been created), workers (service,
                 queues, slots), worker_hosts (name, state, release, commit, queues, slots,
                 heard_seconds_ago), unconsumed (by queue that nobody consumes: for how many seconds
                 something has waited in it), refusals (by field: what DAGs were refused of Docker since the
                 filter was started), dag_commit, certificate_ends, token_ends, last_backup, last_copy (when
                 the last good backup was taken, and the last one that has a copy elsewhere), checker_seconds

Times are ISO 8601 in UTC, sizes bytes; what is not known is null. A new field goes into webhook's health.py,
too, which checks the form of each.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from airflow_checker import judge
from airflow_checker.facts import OUTCOME_HOURS, Facts, Hour
from airflow_checker.lights import CRITICAL, WARNING, Finding, verdict
from airflow_checker.memory import Memory
from airflow_checker.settings import Settings

SCHEMA = 1
SILENT_SECONDS = 180
"""A health.json that is older says nothing any more."""
DATES = {
    "certificate_ends": "certificate ends",
    "token_ends": "Connect token ends",
    "last_backup": "last good backup",
    "last_copy": "last backup with a copy",
}
_ORDER = (CRITICAL, WARNING)


def build(facts: Facts, findings: Sequence[Finding], memory: Memory, settings: Settings) -> dict[str, Any]:
    """Return the document."""
    documents = [finding.document(iso(memory.episodes[finding.key].since) or "") for finding in findings]
    documents.sort(
        key=lambda one: (_ORDER.index(one["severity"]) if one["severity"] in _ORDER else 2, one["id"])
    )
    operation = facts.operation
    switching = judge.switching(operation)
    versions = " -> ".join(
        dict.fromkeys(str(operation.get(name, "")) for name in ("from_version", "to_version"))
    )
    return {
        "schema": SCHEMA,
        "generated": iso(facts.now),
        "environment": settings.environment,
        "host": settings.host,
        "airflow_version": facts.version,
        "overall": verdict([finding.severity for finding in findings]),
        "state": "stopped" if facts.stopped else "switching" if switching else "running",
        "doing": f"{operation.get('kind', 'operation')} {versions}, {operation['state']}"
        if switching
        else "",
        "findings": documents,
        "services": [service(name, facts) for name in sorted({*(facts.services or {}), *facts.containers})],
        "figures": {**figures(facts, memory), "unconsumed": unconsumed(facts, findings, memory)},
    }


def service(name: str, facts: Facts) -> dict[str, Any]:
    """Return one row of the table of services."""
    container = facts.containers.get(name)
    if container is None:
        return {"name": name, "state": "missing", "health": "", "since": None, "restarts": 0}
    since = container.started if container.state == "running" else container.finished
    return {
        "name": name,
        "state": container.state,
        "health": container.health,
        "since": iso(since),
        "restarts": container.restarts,
    }


def figures(facts: Facts, memory: Memory) -> dict[str, Any]:
    """Return the numbers."""
    database = facts.database
    growth = memory.database_growth()
    backup = facts.backup or {}
    return {
        "disks": [
            {
                "path": disk.path,
                "size": disk.size,
                "free": disk.free,
                "inodes": disk.inodes,
                "inodes_free": disk.inodes_free,
                "days_until_full": memory.days_until_full(disk),
            }
            for disk in facts.disks
        ],
        "database_bytes": database.size if database else None,
        "database_growth_bytes": growth[0] if growth else None,
        "tasks_running": database.running if database else None,
        "tasks_queued": database.queued if database else None,
        "hours": hours(facts),
        "queues": facts.queues,
        "queue_ages": ages(database.oldest_queued) if database else None,
        "overdue": ages(database.overdue) if database else None,
        "workers": [
            {"service": name, "queues": judge.queues_of(worker), "slots": judge.concurrency(worker)}
            for name, worker in sorted(facts.containers.items())
            if judge.is_worker(worker) and worker.state == "running"
        ],
        "worker_hosts": None
        if facts.worker_hosts is None
        else [{**dataclasses.asdict(host), "queues": list(host.queues)} for host in facts.worker_hosts],
        "refusals": facts.refusals,
        "dag_commit": facts.dag_commit,
        "certificate_ends": iso(facts.certificate_ends),
        "token_ends": iso(facts.connect.token_ends if facts.connect else None),
        "last_backup": iso(taken(backup.get("last_good"))),
        "last_copy": iso(taken(backup.get("last_copied"))),
        "checker_seconds": round(time.process_time(), 3),
    }


def unconsumed(facts: Facts, findings: Sequence[Finding], memory: Memory) -> dict[str, float]:
    """Return for how long something has waited in each queue that nobody consumes, in seconds."""
    queued = facts.database.oldest_queued if facts.database else {}
    found = [finding for finding in findings if finding.light == "queue-without-worker"]
    seen = {finding.subject: facts.now - memory.episodes[finding.key].since for finding in found}
    return ages({queue: max(since, queued.get(queue, 0.0)) for queue, since in seen.items()})


def taken(backup: Any) -> float | None:
    """Return when a backup was taken, as its host wrote it down; None for none."""
    at = backup.get("at") if isinstance(backup, dict) else None
    return float(at) if isinstance(at, (int, float)) else None


def ages(known: dict[str, float]) -> dict[str, float]:
    """Return ages as they are told; a clock that went back makes none of them negative."""
    return {name: max(0.0, round(age, 1)) for name, age in known.items()}


def hours(facts: Facts) -> list[dict[str, Any]] | None:
    """Return the outcomes of tasks for each of the last hours; None while they are unknown."""
    if facts.outcomes is None:
        return None
    last = int(facts.now // judge.HOUR)
    counted = []
    for start in (hour * int(judge.HOUR) for hour in range(last - OUTCOME_HOURS + 1, last + 1)):
        counted.append({"from": iso(start), **vars(facts.outcomes.get(start, Hour()))})
    return counted


def iso(at: float | None) -> str | None:
    """Return a time in ISO 8601 and UTC; None for none."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) if at else None


def age(document: dict[str, Any], now: float) -> float:
    """Return how old a document is in seconds; infinity when it does not say."""
    import calendar

    try:
        return now - calendar.timegm(time.strptime(str(document["generated"]), "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, ValueError):
        return float("inf")


def screen(document: dict[str, Any], now: float) -> str:
    """Return it as one screen for a person."""
    if not document:
        return "The checker has written nothing yet: systemctl status airflow-checker.timer"
    old = age(document, now)
    overall, state = document["overall"], document["state"]
    words = {"stopped": "the platform is stopped on purpose, so no task runs", "switching": document["doing"]}
    first = overall if state == "running" else state if overall == "ok" else f"{state}, {overall}"
    lines = [f"{first}: {words.get(state, f'the platform is {state}')}"]
    if old > SILENT_SECONDS:
        silent = f"unknown: the checker is silent since {document.get('generated')}"
        lines = [f"{silent}: systemctl status airflow-checker.timer"]
    for finding in document.get("findings", []):
        lines.append(f"  {finding['severity']:8}  {finding['what']} (since {finding['since']})")
        lines.append(f"            {finding['advice']}  docs/when-something-is-wrong.md#{finding['anchor']}")
    lines += ["", f"{'service':24} {'state':10} {'health':10} {'since':21} restarts"]
    lines += [
        f"{row['name']:24} {row['state']:10} {row['health']:10} {row['since'] or '':21} {row['restarts']}"
        for row in document.get("services", [])
    ]
    numbers = document.get("figures", {})
    for worker in numbers.get("workers") or []:
        lines.append(f"{worker['service']}: {worker['slots']} slots, consumes {', '.join(worker['queues'])}")
    for host in numbers.get("worker_hosts") or []:
        lines.append(worker_host(host, old))
    for queue, waiting in (numbers.get("queues") or {}).items():
        lines.append(f"queue {queue}: {waiting} waiting")
    refusals = sorted((numbers.get("refusals") or {}).items())
    if refusals:
        fields = ", ".join(f"{field} {count}" for field, count in refusals)
        lines.append(f"DAGs were refused of Docker: {fields}; see `docker compose logs docker-socket-proxy`")
    for disk in numbers.get("disks", []):
        full = f", full in {disk['days_until_full']:.0f} days" if disk["days_until_full"] else ""
        inodes = f", {disk['inodes_free'] / disk['inodes']:.0%} of its inodes" if disk.get("inodes") else ""
        lines.append(f"disk {disk['path']}: {disk['free'] / max(disk['size'], 1):.0%} free{inodes}{full}")
    if any(numbers.get(name) is not None for name in ("tasks_running", "database_bytes", "hours")):
        lines.append(tasks(numbers))
    lines += [f"{name}: {numbers[key]}" for key, name in DATES.items() if numbers.get(key)]
    if numbers.get("dag_commit"):
        lines.append(f"DAG commit: {numbers['dag_commit']}")
    return "\n".join(lines)


def tasks(numbers: dict[str, Any]) -> str:
    """Return the line of what the database says."""
    ended = numbers.get("hours") or []
    outcomes = [f"{sum(hour[name] for hour in ended)} {name}" for name in ("succeeded", "failed")]
    grown = numbers.get("database_growth_bytes")
    growth = "" if grown is None else f", {grown / 2**20:+.0f} MiB within a day"
    return (
        f"tasks: {numbers.get('tasks_running')} running, {numbers.get('tasks_queued')} queued"
        f"{f', in {len(ended)} hours ' + ', '.join(outcomes) if ended else ''}; "
        f"database: {(numbers.get('database_bytes') or 0) / 2**20:.0f} MiB{growth}"
    )


def worker_host(host: dict[str, Any], more: float) -> str:
    """Return the line of a worker host; `more` is the age of what is known of it, in seconds."""
    heard = host["heard_seconds_ago"]
    ago = "not heard yet" if heard is None else f"heard {judge.minutes(heard + more)} ago"
    said = [f"release {host['release']}"] if host["release"] else []
    said += [f"commit {host['commit'][:12]}"] if host["commit"] else []
    said += [f"{host['slots']} slots, consumes {', '.join(host['queues'])}"] if host["queues"] else []
    return f"worker host {host['name']}: {', '.join([host['state'], ago, *said])}"


def needs_a_look(document: dict[str, Any], now: float) -> bool:
    """Say whether somebody has to look: all is not `ok`, no task would run, or nothing fresh is known."""
    fresh = -SILENT_SECONDS < age(document, now) <= SILENT_SECONDS
    return document.get("overall") != "ok" or document.get("state") == "stopped" or not fresh
