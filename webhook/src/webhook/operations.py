"""What machines ask: is it alive, and the numbers."""

import math
from collections.abc import Callable
from http import HTTPStatus

from flask import Blueprint, Response, jsonify
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST

from webhook import state
from webhook.callers import require_token, token_in
from webhook.metrics import Metrics
from webhook.services import services
from webhook.settings import Settings
from webhook.store import Store

blueprint = Blueprint("operations", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer 200 while calls are worked on, 503 when a thread that does it is gone or stuck."""
    parts = services()
    if parts.settings.is_production:
        threads = {"sync": parts.jobs, "key rotation": parts.keys}
        for name, thread in threads.items():
            if thread is not None and not thread.alive:
                return jsonify(status=f"the {name} thread is gone or stuck"), HTTPStatus.SERVICE_UNAVAILABLE
    return jsonify(status="ok")


@blueprint.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Return the Prometheus page, to whoever has the token; where the vault has none, to anybody.

    401 missing or wrong token; 429 too many failures.
    """
    path = services().settings.metrics_token_file
    # An empty file says that there is no token. A missing one says nothing, and lets nobody in.
    if path is not None and (token := token_in(path)) != "":
        require_token(token, "Prometheus")
    return Response(services().metrics.page(), content_type=CONTENT_TYPE_LATEST)


def add_gauges(metrics: Metrics, settings: Settings, store: Store) -> None:
    """Add what the state file and the store know; 0 stands for never, NaN for a file that cannot be read."""
    path = settings.state_dir / "state.json"

    def of_state(value: Callable[[state.State], float]) -> Callable[[], float]:
        def read() -> float:
            try:
                return value(state.load(path))
            except (state.StateError, OSError):
                return math.nan

        return read

    def relay_heard() -> float:
        return float((store.recall("relay") or {"at": 0})["at"])

    metrics.gauge(
        "webhook_last_successful_sync_timestamp_seconds",
        "Start of the last sync that did not fail",
        of_state(lambda current: current.last_success or 0),
    )
    metrics.gauge(
        "webhook_live_commit_timestamp_seconds",
        "When the live commit was committed",
        of_state(lambda current: current.live.committed_at if current.live else 0),
    )
    metrics.gauge("webhook_pinned", "1 while pinned", of_state(lambda current: current.pin is not None))
    metrics.gauge(
        "webhook_refused_commits", "Refused commits", of_state(lambda current: len(current.refused))
    )
    if settings.health_file is not None:
        metrics.platform(settings.health_file)
    metrics.gauge("webhook_relay_heard_timestamp_seconds", "When the relay was last heard", relay_heard)
