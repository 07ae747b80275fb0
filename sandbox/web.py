"""What every stand-in needs of HTTP: a strict JSON reader and a one-line access log."""

from __future__ import annotations

import json
import logging
from typing import Any, NoReturn

from flask import Flask, Response, request

MAX_BODY_BYTES = 1024 * 1024


def parse_json(body: bytes) -> Any:
    """Read a JSON document.

    Raises ValueError for anything that is not JSON by RFC 8259: Python alone would let NaN pass, and would
    end a deeply nested document in a RecursionError.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None


def log_requests(app: Flask) -> None:
    """Log method, path and status of each request; bodies and headers carry secrets and stay out."""
    logger = logging.getLogger(app.name)

    @app.after_request
    def log(response: Response) -> Response:
        logger.info("%s %s %d", request.method, request.path, response.status_code)
        return response


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
