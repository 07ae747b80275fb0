"""The status page: is it all right, what runs, since when. HTML for people, JSON for programs, no secrets."""

import dataclasses
import time
from typing import Any

from flask import Blueprint, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from webhook import backups, health, state, trees
from webhook.services import services
from webhook.settings import RepositorySettings
from webhook.state import State, StateError

blueprint = Blueprint("status", __name__)

# The relay reports every 30 s; with less than three reports missing it may be a restart.
RELAY_SILENT_SECONDS = 120


@blueprint.get("/")
def page() -> ResponseReturnValue:
    """Show the state of the stack."""
    content = collect()
    # A browser names text/html; curl takes anything, and whoever calls it can read JSON.
    best = request.accept_mimetypes.best_match(["application/json", "text/html"])
    if best == "text/html":
        return render_template("status.html", **content)
    return jsonify(content)


def collect() -> dict[str, Any]:
    """Gather the page's content; `attention` says in words what is not as it should be."""
    parts = services()
    settings = parts.settings
    now = time.time()
    airflow = parts.airflow.status()
    attention = [airflow.error] if airflow.error else []
    attention += [f"{name} is {value}" for name, value in airflow.components.items() if value != "healthy"]
    checked = None
    if settings.health_file is not None:
        checked = health.read(settings.health_file, now)
        attention += health.attention(checked)
    delivery = None
    if settings.repository is not None:
        try:
            current = state.load(settings.state_dir / "state.json")
        except StateError as error:
            current = State()
            attention.append(str(error))
        delivery = _delivery(settings.repository, current, now)
        attention += _delivery_attention(current)
    backup = None
    if settings.backup_state_file is not None:
        backup = backups.read(settings.backup_state_file, now)
        attention += backups.attention(backup, now)
    relay = parts.store.recall("relay")
    if relay is not None:
        relay["age_seconds"] = now - relay["at"]
        relay["silent"] = relay["age_seconds"] > RELAY_SILENT_SECONDS
        if relay["silent"]:
            attention.append("the relay has gone silent: pushes arrive with the timer, every 5 minutes")
        elif relay["state"] != "connected":
            attention.append("the relay is reconnecting to its channel")
    elif settings.is_production and settings.relay_token_file is not None:
        attention.append("the relay has not been heard yet")
    return {
        "status": f"Airflow {airflow.version} is running" if airflow.version else "Airflow does not answer",
        "environment": settings.environment,
        "attention": attention,
        "airflow_version": airflow.version,
        "components": airflow.components,
        "health": checked,
        "delivery": delivery,
        "relay": relay,
        "backup": backup,
        "generated_at": now,
    }


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


def _delivery_attention(current: State) -> list[str]:
    attention = []
    last = current.last_sync
    if last is None:
        attention.append("no commit has been synced yet")
    elif last.outcome == "failed":
        attention.append(f"the last sync failed: {last.detail}")
    if current.head and current.refusal_of(current.head.id):
        attention.append("the newest commit is refused; the one before it stays live")
    if current.pin:
        attention.append(f"pinned to {current.pin[:12]}: pushes do not go live until dag-sync unpin")
    if current.infrastructure_changed:
        attention.append("files outside the DAGs changed: run ansible-playbook site.yml")
    return attention


@blueprint.app_template_filter("ago")
def ago(at: float | None) -> str:
    """Return how long ago a time was, in words."""
    if at is None:
        return "never"
    seconds = max(0, int(time.time() - at))
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} s ago"


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
