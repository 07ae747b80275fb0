"""The faulty proxy refuses as many calls as it should, and changes nothing in the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flask import Flask, request
from flask.typing import ResponseReturnValue

from tests.served import served
from tests.webhook.network import free_port

SOURCE = Path(__file__).parents[2] / "sandbox" / "faulty_proxy.py"


@pytest.fixture
def target() -> Iterator[str]:
    app = Flask("target")

    @app.post("/<path:path>")
    def echo(path: str) -> ResponseReturnValue:
        return request.get_data(), 202, {"X-Heard": request.headers.get("X-Said", ""), "Location": f"/{path}"}

    with served(app) as url:
        yield url


def test_refuses_and_then_passes_on(target: str) -> None:
    port = free_port()
    # As it is started on the host, where no file of it is.
    command = [sys.executable, "-c", SOURCE.read_text(), str(port), target.rpartition(":")[2], "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        transport = httpx.HTTPTransport(retries=10)
        with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}") as http:
            codes = [http.post("/webhook", content=b"{}").status_code for _ in range(2)]
            other = http.post("/sync", content=b"a body", headers={"X-Said": "so"})
            last = http.post("/webhook", content=b"{}")
        proxy.kill()
        output, _ = proxy.communicate()
    assert codes == [503, 503]
    assert (other.status_code, other.content) == (202, b"a body")
    assert (other.headers["X-Heard"], other.headers["Location"]) == ("so", "/sync")
    assert last.status_code == 202
    assert output.splitlines() == ["/webhook 503", "/webhook 503", "/sync 202", "/webhook 202"]
