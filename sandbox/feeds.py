"""The public feeds that the weather DAG reads: NOAA's forecast and the city's street camera, on one port."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

from flask import Flask, Response, jsonify, request

from sandbox.forecast import forecast
from sandbox.street_picture import street_picture
from sandbox.web import log_requests

OFFICE = re.compile(r"[A-Z]{3}")
GRID = re.compile(r"\d{1,3},\d{1,3}")


def create_app() -> Flask:
    """Return the feeds, with paths and refusals like those of api.weather.gov and cctv.austinmobility.io."""
    app = Flask("sandbox.feeds")

    @app.get("/gridpoints/<office>/<grid>/forecast")
    def gridpoint_forecast(office: str, grid: str) -> Response:
        # The real service refuses clients that do not say who they are:
        # https://www.weather.gov/documentation/services-web-api
        if not request.headers.get("User-Agent", "").strip():
            return _problem(403, "Forbidden", "A User-Agent is required to identify the application")
        if not (OFFICE.fullmatch(office) and GRID.fullmatch(grid)):
            return _problem(404, "InvalidPoint", f"'{office}/{grid}' is not a forecast grid point")
        response = jsonify(forecast(office, grid, datetime.now(UTC)))
        response.mimetype = "application/geo+json"
        response.cache_control.max_age = 60
        return response

    @app.get("/image/<int:camera>.jpg")
    def camera_image(camera: int) -> Response:
        now = datetime.now(UTC)
        file = io.BytesIO()
        street_picture(now, camera).save(file, "JPEG", quality=85)
        response = Response(file.getvalue(), mimetype="image/jpeg")
        response.last_modified = now
        response.cache_control.no_cache = True
        return response

    log_requests(app)
    return app


def _problem(status: int, kind: str, detail: str) -> Response:
    """Return an RFC 7807 problem in the form api.weather.gov uses."""
    response = jsonify(
        type=f"https://api.weather.gov/problems/{kind}", title=kind, status=status, detail=detail
    )
    response.status_code = status
    response.mimetype = "application/problem+json"
    return response
