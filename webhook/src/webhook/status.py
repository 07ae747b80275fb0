"""The status page: is it all right, what runs, since when. HTML for people, JSON for programs, no secrets."""

import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Blueprint, jsonify, make_response, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup, escape

from webhook import backups, health, lights, state, trees
from webhook.airflow_status import AirflowStatus
from webhook.health import Need
from webhook.services import services
from webhook.settings import RepositorySettings, Settings
from webhook.state import State, StateError

blueprint = Blueprint("status", __name__)

VERDICTS = {
    "ok": "All is well",
    "warning": "Needs a look",
    "critical": "Needs a look now",
    "unknown": "Needs a look: the checker is silent",
    "switching": "An operation is active",
    "stopped": "Stopped on purpose",
}

BACKUPS = "docs/back-up-and-restore.md"
# Airflow's name of a component: the service that it is, and the checker's light of the same fault.
COMPONENTS = {
    "metadatabase": ("postgres", "light-database-silent"),
    "scheduler": ("airflow-scheduler", "light-scheduler-silent"),
    "triggerer": ("airflow-triggerer", "light-triggerer-silent"),
}


@blueprint.get("/")
def page() -> ResponseReturnValue:
    """Show the state of the stack."""
    content = collect()
    # A browser names text/html; curl takes anything, and whoever calls it can read JSON.
    best = request.accept_mimetypes.best_match(["application/json", "text/html"])
    if best == "text/html":
        text = render_template("status.html", **content, **view(content["health"]))
        # A file's name need not be UTF-8.
        return make_response(text.encode(errors="backslashreplace"))
    return jsonify({name: value for name, value in content.items() if name != "needs"})


@blueprint.get("/lights")
def own_lights() -> ResponseReturnValue:
    """Tell the host's checker what only the webhook knows."""
    lit = [{"id": light.id, "what": light.sentence} for light in lights.lit(services(), time.time())]
    return jsonify(lights=lit, workers=_workers())


def _workers() -> list[dict[str, Any]]:
    """Return what the coordinator knows of worker hosts."""
    coordinator = services().coordinator
    return [] if coordinator is None else coordinator.workers()


def collect() -> dict[str, Any]:
    """Gather the page's content; `attention` says in words what is not as it should be.

    What the checker knows, such as disks, comes by `health.py`, which checks the form of each value.
    """
    parts = services()
    settings = parts.settings
    now = time.time()
    airflow = parts.airflow.status()
    checked = None
    needs: list[Need] = []
    told: dict[str, Need] = {}
    if settings.health_file is not None:
        checked = health.read(settings.health_file, now)
        needs = health.needs(checked)
        # The webhook itself knows better, by half a minute, whether these are still there.
        told = {need.document: need for need in needs if need.document in map(_line, lights.ON_THE_PAGE)}
        needs = [need for need in needs if need.document not in told]
    # What an operation or stop.yml does on purpose needs no look; nor is it green.
    on_purpose = checked["state"] if checked and checked["state"] in ("switching", "stopped") else None
    if on_purpose is None:
        needs += _airflow_needs(airflow, needs)
    delivery = None
    if settings.repository is not None:
        try:
            current = state.load(settings.state_dir / "state.json")
        except StateError as error:
            current = State()
            needs += _needs([lights.unreadable(error)], told)
        delivery = _delivery(settings.repository, current, now)
        needs += _needs(lights.of_delivery(current), told)
    backup = None
    if settings.backup_state_file is not None:
        backup = backups.read(settings.backup_state_file, now)
        # The checker judges the same file.
        if checked is None or checked["error"]:
            needs += [Need(line, document=BACKUPS) for line in backups.attention(backup, now)]
    relay = lights.relay(parts, now)
    needs += _needs(lights.of_relay(relay, settings), told)
    needs += _needs(lights.of_store(parts.store), told)
    needs.sort(key=lambda need: health.SEVERITIES.index(need.severity))
    level = "unknown" if checked and checked["error"] else _gravest(need.severity for need in needs)
    return {
        "status": f"Airflow {airflow.version} is running" if airflow.version else "Airflow does not answer",
        "environment": settings.environment,
        "level": on_purpose if on_purpose and level == "ok" else level,
        "attention": [str(need) for need in needs],
        "needs": needs,
        "airflow_version": airflow.version,
        "components": airflow.components,
        "health": checked,
        "delivery": delivery,
        "workers": _workers(),
        "relay": relay,
        "backup": backup,
        "manual": manual(settings),
        "generated_at": now,
    }


def _gravest(severities: Iterable[str]) -> str:
    """Return the gravest of them; notices are none."""
    known = (severity for severity in severities if severity in health.LEVELS)
    return max(known, key=health.LEVELS.__getitem__, default="ok")


def _airflow_needs(airflow: AirflowStatus, known: list[Need]) -> list[Need]:
    """Say what Airflow says of itself, but for what the checker has found, too."""
    found = []
    if airflow.error:
        remedy = "Run `docker compose ps --all`, and read `docker compose logs airflow-webserver`."
        found.append(Need(f"{airflow.error}.", remedy, "critical", document=_line("webserver-silent")))
    for name, value in airflow.components.items():
        if value != "healthy":
            service, light = COMPONENTS.get(name, ("airflow-webserver", "check-that-all-is-well"))
            document = f"{health.OPERATIONS}#{light}"
            if document not in {need.document for need in known}:
                remedy = f"Read `docker compose logs {service}`."
                found.append(Need(f"{name} is {value}.", remedy, "critical", document=document))
    return found


def _line(light: str) -> str:
    """Return where a light of the checker is described."""
    return f"{health.OPERATIONS}#light-{light}"


def _needs(lit: Iterable[lights.Light], told: Mapping[str, Need]) -> Iterator[Need]:
    """Yield what the webhook knows by itself; since when, once the checker was told."""
    for light in lit:
        line = _line(light.id)
        known = told.get(line, Need("", light.advice, document=line))
        yield dataclasses.replace(known, what=f"{light.what}.")


def manual(settings: Settings) -> str | None:
    """Return what stands before the path of a document: its address at GitHub, when what is live has it.

    None where nothing is known that a browser could open.
    """
    live = trees.Trees(settings.trees_dir).live()
    commit = trees.commit_of(live)
    if live is None or commit is None or settings.repository is None or not settings.github_repository:
        return None
    of_github = re.match(r"(?:[a-z+]+://)?(?:[^/@]+@)?github\.com[:/]", settings.repository.url)
    if of_github is None or not (live / health.OPERATIONS).is_file():
        return None
    return f"https://github.com/{settings.github_repository}/blob/{commit}/"


def view(checked: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the page shows of the checker's figures: rows and shares in percent."""
    if checked is None or checked["error"]:
        return {"verdicts": VERDICTS, "strip": None, "disks": [], "queues": [], "notices": []}
    figures = checked["figures"]
    return {
        "verdicts": VERDICTS,
        "strip": _strip(figures["hours"], figures["tasks_running"] or 0),
        "disks": [_disk(disk, checked["findings"]) for disk in figures["disks"]],
        "queues": _queues(figures),
        "notices": [finding for finding in checked["findings"] if finding["severity"] == "notice"],
    }


def _strip(hours: list[dict[str, Any]] | None, running: int) -> dict[str, Any] | None:
    """Return a cell for each hour, as high as its tasks are many; what runs now is in the last one."""
    if not hours:
        return None
    most = max(1, *(hour["succeeded"] + hour["failed"] for hour in hours))
    cells = [
        {
            "start": health.seconds(hour["from"]),
            "succeeded": hour["succeeded"],
            "failed": hour["failed"],
            "running": running if hour is hours[-1] else 0,
            "succeeded_height": round(100 * hour["succeeded"] / most, 1),
            "failed_height": round(100 * hour["failed"] / most, 1),
        }
        for hour in hours
    ]
    totals = {name: sum(hour[name] for hour in hours) for name in ("succeeded", "failed")}
    return {"cells": cells, "running": running, **totals}


def _disk(disk: dict[str, Any], findings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a disk with its free share, and with how grave the checker finds that."""
    free = 100 * min(1.0, disk["free"] / disk["size"]) if disk["size"] else 0.0
    level = _gravest(finding["severity"] for finding in findings if finding["subject"] == disk["path"])
    return {**disk, "free_percent": round(free, 1), "used_percent": round(100 - free, 1), "level": level}


def _queues(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each queue with what waits in it, None when that is not known, and who consumes it."""
    waiting = figures["queues"]
    hosts = [
        {**host, "service": host["name"]} for host in figures["worker_hosts"] if health.takes_tasks(host)
    ]
    workers = [*figures["workers"], *hosts]
    names = {*(waiting or {}), *(queue for worker in workers for queue in worker["queues"])}
    return [
        {
            "name": name,
            "waiting": None if waiting is None else waiting.get(name, 0),
            "workers": [worker for worker in workers if name in worker["queues"]],
        }
        for name in sorted(names)
    ]


def _delivery(repository: RepositorySettings, current: State, now: float) -> dict[str, Any]:
    live = trees.commit_of(trees.Trees(services().settings.trees_dir).live())
    known = current.live if current.live and current.live.id == live else None
    return {
        "branch": repository.branch,
        "live": None
        if live is None
        else {
            **(dataclasses.asdict(known) if known else {"id": live}),
            "age_seconds": now - known.committed_at if known else None,
            "since": current.live_since,
        },
        "head": dataclasses.asdict(current.head) if current.head else None,
        "pin": current.pin,
        "last_sync": dataclasses.asdict(current.last_sync) if current.last_sync else None,
        "last_success": current.last_success,
        "refused": [dataclasses.asdict(refusal) for refusal in current.refused],
        "forced_push": dataclasses.asdict(current.forced_push) if current.forced_push else None,
        "infrastructure_changed": current.infrastructure_changed,
    }


@blueprint.app_template_filter("code")
def code(words: str) -> Markup:
    """Return text as HTML, with what stands between two backquotes as code."""
    parts = words.split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape(words)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


@blueprint.app_template_filter("moment")
def moment(at: str) -> float:
    """Return a time of the checker's in seconds since the epoch."""
    return health.seconds(at)


@blueprint.app_template_filter("ago")
def ago(at: float | None) -> str:
    """Return how long ago a time was, in words."""
    if at is None:
        return "never"
    return f"{_duration(time.time() - at)} ago"


@blueprint.app_template_filter("ahead")
def ahead(at: float) -> str:
    """Return in how long a time is, or how long ago it was, in words."""
    left = at - time.time()
    return f"in {_duration(left)}" if left > 0 else ago(at)


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if whole >= size:
            count = whole // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{whole} s"


@blueprint.app_template_filter("size")
def size(count: float) -> str:
    """Return a number of bytes in a unit that people read."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


@blueprint.app_template_filter("utc")
def utc(at: float) -> str:
    """Return a time in ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
