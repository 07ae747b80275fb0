"""The module http_endpoints, run by the real Ansible against a server on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, redirect, request

from tests.plugins.conftest import ROOT
from tests.served import served

PASSWORD = "sentinel-value-that-nobody-may-print"


@pytest.fixture
def url() -> Iterator[str]:
    """A server with an open address, one that needs a login, and one that redirects to the open one."""
    app = Flask(__name__)

    @app.get("/open")
    def opened() -> dict[str, Any]:
        return {"accept": request.headers["Accept"]}

    @app.get("/closed")
    def closed() -> tuple[str, int]:
        login = request.authorization
        known = login is not None and (login.username, login.password) == ("admin", PASSWORD)
        return ("welcome", 200) if known else ("who are you?", 401)

    @app.get("/moved")
    def moved() -> Any:
        return redirect("/open")

    with served(app) as address:
        yield address


def ask(*endpoints: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Run the module on this machine; return its result and everything that was printed."""
    arguments = json.dumps({"endpoints": list(endpoints), "headers": {"Accept": "application/json"}})
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    run = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible"),
            *(
                "--inventory=localhost,",
                "--connection=local",
                "-vvv",
                "localhost",
                "--module-name=http_endpoints",
            ),
            f"--args={arguments}",
        ],
        cwd=ROOT,
        env=environment
        | {
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    document, _ = json.JSONDecoder().raw_decode(run.stdout, run.stdout.index("{\n"))
    [result] = [play["tasks"][0]["hosts"]["localhost"] for play in document["plays"]]
    return result, run.stdout + run.stderr


def test_answers_come_in_the_order_of_the_endpoints(url: str) -> None:
    """With the headers that were given, and the login where there is one."""
    login = {"url_username": "admin", "url_password": PASSWORD}
    result, _ = ask(
        {"url": f"{url}/closed", "status": 401}, {"url": f"{url}/open"}, {"url": f"{url}/closed", **login}
    )
    assert result["contents"][0] == "who are you?"
    assert json.loads(result["contents"][1]) == {"accept": "application/json"}
    assert result["contents"][2] == "welcome"
    assert not result.get("failed", False)
    assert not result["changed"]


def test_every_endpoint_that_answers_otherwise_is_named(url: str) -> None:
    """One that is open and should be closed is as wrong as the other way round."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        deaf = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    result, _ = ask(
        {"url": f"{url}/open", "status": 401},
        {"url": f"{url}/closed"},
        {"url": f"{url}/open"},
        {"url": deaf},
    )
    assert result["failed"]
    assert f"{url}/open should answer 401: 200" in result["msg"]
    assert f"{url}/closed should answer 200: 401, who are you?" in result["msg"]
    assert f"{deaf} should answer 200: no answer, " in result["msg"]
    assert result["msg"].count("should answer") == 3


def test_one_of_several_statuses_is_enough(url: str) -> None:
    """A redirect is an answer and is not followed: a login page with 200 is not what was asked for."""
    result, _ = ask(
        {"url": f"{url}/closed", "status": [302, 401]}, {"url": f"{url}/moved", "status": [302, 401]}
    )
    assert not result.get("failed", False)
    result, _ = ask({"url": f"{url}/open", "status": [302, 401]}, {"url": f"{url}/moved"})
    assert f"{url}/open should answer 302 or 401: 200" in result["msg"]
    assert f"{url}/moved should answer 200: 302" in result["msg"]


def test_password_is_in_no_output(url: str) -> None:
    """At the highest verbosity that operators use, whether it succeeds or fails."""
    login = {"url_username": "admin", "url_password": PASSWORD}
    for status in (200, 500):
        result, output = ask({"url": f"{url}/closed", "status": status, **login})
        assert result.get("failed", False) == (status == 500)
        assert PASSWORD not in output
