"""The site where Airflow publishes a Compose file with each version."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, abort

from sandbox.web import log_requests

FILES = Path(__file__).with_name("upstream")
"""One file for a version, with the services and settings by which the real ones differ."""


def create_app() -> Flask:
    """Return the site, with the paths of airflow.apache.org."""
    app = Flask("sandbox.upstream", static_folder=None)
    files = {path.stem: path.read_bytes() for path in FILES.glob("*.yaml")}

    @app.get("/docs/apache-airflow/<version>/docker-compose.yaml")
    def compose_file(version: str) -> Response:
        if version not in files:
            abort(404)
        return Response(files[version], mimetype="application/octet-stream")

    log_requests(app)
    return app
