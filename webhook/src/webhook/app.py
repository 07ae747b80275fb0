"""The Flask application: wires the parts together. Run by gunicorn, one process with threads (see
webhook.gunicorn).
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from webhook import calls, operations, status, worker_reports
from webhook.airflow_status import AirflowClient
from webhook.coordinator import Coordinator
from webhook.gateway import Gateway
from webhook.jobs import Jobs
from webhook.keys import Keys
from webhook.limits import FailureLimiter
from webhook.metrics import Metrics
from webhook.services import Services
from webhook.settings import Settings, from_environment
from webhook.store import Store, StoreError
from webhook.sync import Syncer
from webhook.vault import ConnectVault, Vault, VaultUnavailableError


def create_app(test_config: Mapping[str, Any] | None = None) -> Flask:
    """Create the app from the environment; tests give `SETTINGS` and `VAULT` in its stead."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a Slack address is a secret
    config = dict(test_config or {})
    settings: Settings = config.pop("SETTINGS", None) or from_environment()
    vault: Vault = config.pop("VAULT", None) or _vault(settings)

    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=settings.body_limit, MAX_FORM_MEMORY_SIZE=settings.body_limit)
    app.config.update(config)
    # HAProxy is the only way in, and appends the caller to X-Forwarded-For.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]

    store = Store(settings.state_dir / "webhook.sqlite3")
    metrics = Metrics()
    keys = Keys(vault, settings.state_dir / "webhook.key", store, settings.signature_window)
    jobs = Jobs(Syncer(settings), store, metrics) if settings.repository else None
    parts = Services(
        settings=settings,
        store=store,
        keys=keys,
        jobs=jobs,
        metrics=metrics,
        airflow=AirflowClient(settings.airflow_url),
        failures=FailureLimiter(settings.failures_per_minute),
        coordinator=_coordinator(settings),
    )
    app.extensions["webhook"] = parts
    app.register_blueprint(status.blueprint)
    app.register_blueprint(calls.blueprint)
    app.register_blueprint(operations.blueprint)
    if settings.workers:
        app.register_blueprint(worker_reports.blueprint)
    app.register_error_handler(HTTPException, _as_json)
    app.register_error_handler(StoreError, _come_again)
    operations.add_gauges(parts.metrics, parts.settings, parts.store)
    if parts.coordinator is not None:
        parts.coordinator.start()
    # Outside production nothing that others rely on is touched: no rotation, and no sync but one that is
    # asked for.
    if settings.is_production:
        keys.start()
        if jobs is not None:
            jobs.start()
    return app


def _coordinator(settings: Settings) -> Coordinator | None:
    """Return what has worker hosts follow, where there are any and something to follow."""
    if settings.repository is None or settings.worker_gateway_socket is None:
        return None
    return Coordinator(settings, Gateway(settings.worker_gateway_socket))


def _vault(settings: Settings) -> Vault:
    return _NoVault() if settings.connect is None else ConnectVault(settings.connect)


class _NoVault:
    """Stands where no 1Password is configured: no call can be verified."""

    def read(self) -> str:
        raise VaultUnavailableError("OP_CONNECT is not set")

    def write(self, key: str) -> None:
        raise VaultUnavailableError("OP_CONNECT is not set")


def _as_json(error: HTTPException) -> ResponseReturnValue:
    headers = [(name, value) for name, value in error.get_headers() if name.lower() not in _BODY_HEADERS]
    return jsonify(error=error.description or error.name), error.code or 500, headers


def _come_again(error: StoreError) -> ResponseReturnValue:
    """Say that it is not the caller's fault; the relay then tries again."""
    return jsonify(error=str(error)), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "3"}


_BODY_HEADERS = ("content-type", "content-length")
