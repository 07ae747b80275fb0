"""A dead man's switch: takes the calls of a checker that finds all well, at an address that is a secret."""

from __future__ import annotations

from flask import Flask, Response, abort, jsonify

from sandbox.web import log_requests


def create_app(secret: str) -> Flask:
    """Return the switch: ``/ping/<secret>`` counts a call, ``GET /calls`` shows how many there were."""
    app = Flask("sandbox.heartbeat")
    calls = 0

    @app.route("/ping/<given>", methods=["GET", "POST"])
    def call(given: str) -> Response:
        nonlocal calls
        if given != secret:
            abort(404)
        calls += 1
        return Response("OK", mimetype="text/plain")

    @app.get("/calls")
    def count() -> Response:
        return jsonify(calls=calls)

    log_requests(app)
    return app
