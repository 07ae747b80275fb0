"""The Flask application: one page that names the Airflow version that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx
from flask import Flask, Response, jsonify


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Build the application.

    Args:
        config: overrides of `AIRFLOW_URL` (base address of the Airflow webserver; its default comes from the
            environment variable of that name) and `AIRFLOW_TIMEOUT` (seconds).
    """
    app = Flask(__name__)
    app.config.from_mapping(
        AIRFLOW_URL=os.environ.get("AIRFLOW_URL", "http://airflow-webserver:8080"),
        AIRFLOW_TIMEOUT=5.0,
    )
    app.config.from_mapping(config or {})

    @app.get("/")
    def status() -> tuple[Response, int]:
        try:
            version = airflow_version(app.config["AIRFLOW_URL"], app.config["AIRFLOW_TIMEOUT"])
        except httpx.HTTPError as error:
            return jsonify(status="Airflow does not answer", reason=type(error).__name__), 503
        return jsonify(status=f"Airflow {version} is running", airflow_version=version), 200

    @app.get("/healthz")
    def healthz() -> Response:
        """Answer for this process alone: Airflow's trouble must not restart the webhook."""
        return jsonify(status="ok")

    return app


def airflow_version(url: str, timeout: float) -> str:
    """Ask Airflow which version it is.

    The endpoint is open in Airflow's REST API: https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html

    Args:
        url: base address of the webserver.
        timeout: seconds for the whole request.

    Raises:
        httpx.HTTPError: Airflow cannot be reached, or its answer is not the version document.
    """
    response = httpx.get(f"{url}/api/v1/version", timeout=timeout).raise_for_status()
    try:
        return str(response.json()["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise httpx.DecodingError("the answer is not Airflow's version document") from error
