"""A stand-in for Airflow's webserver: two processes of gunicorn, each with one request at a time."""

import time
from collections.abc import Callable, Iterable
from typing import Any

LARGE = b"x" * 32 * 2**20
"""More than all buffers on the way keep."""


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Read the whole body, then answer; on one path after some time."""
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [LARGE if environ["PATH_INFO"] == "/large" else b"ok"]
