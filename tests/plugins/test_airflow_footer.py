"""The module that reads the footer: it needs the session that the form begins, and says when it has none."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest
from airflow_footer import VERSION, footer
from ansible.module_utils import airflow_login
from ansible.module_utils.airflow_login import LoginError
from flask import Flask, Response, redirect, request
from werkzeug.serving import make_server

PAGE = '<footer class="footer"><div>Version: <a href="#">v2.6.1</a></div></footer>'


@pytest.fixture
def pages() -> Iterator[str]:
    """Airflow's login: a form with a token, a new session after it, and a footer for that session alone."""
    app = Flask(__name__)

    @app.get("/login/")
    def form() -> Response:
        answer = Response('<input id="csrf_token" name="csrf_token" type="hidden" value="t0ken">')
        answer.set_cookie("session", "stranger")
        return answer

    too_many = iter([429, 503])

    @app.post("/login/")
    def login() -> Response:
        if request.form.get("username") == "impatient" and (code := next(too_many, 0)):
            return Response(status=code)
        good = request.form.get("csrf_token") == "t0ken" and request.form.get("password") == "right"
        good = good and request.referrer == request.url
        answer = redirect("/home" if good and request.cookies.get("session") == "stranger" else "/login/")
        answer.set_cookie("session", "known" if good else "stranger")
        return answer  # type: ignore[return-value]

    @app.get("/home")
    def home() -> str:
        return PAGE if request.cookies.get("session") == "known" else "<p>Log in</p>"

    server = make_server("127.0.0.1", 0, app)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_footer_is_read_with_the_session(pages: str) -> None:
    assert VERSION.findall(footer(pages, "admin", "right")) == ["2.6.1"]


def test_login_that_came_too_soon_is_tried_again(pages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts on the host log in by the same form; a good upgrade must not fail for that."""
    monkeypatch.setattr(airflow_login, "PAUSE", 0.01)
    assert VERSION.findall(footer(pages, "impatient", "right")) == ["2.6.1"]


def test_stranger_is_refused(pages: str) -> None:
    with pytest.raises(LoginError, match="does not let admin in"):
        footer(pages, "admin", "wrong")
