"""What a real HAProxy with the platform's configuration tells browsers with each answer, whoever gives it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from flask import Flask, Response

from tests.endpoints import ENDPOINTS
from tests.policy.conftest import ROOT, Rendered, load
from tests.served import served
from tests.webhook.front import configuration, haproxy
from tests.webhook.network import free_port

NAMES = [endpoint["name"] for endpoint in ENDPOINTS]
ROLE = load(ROOT / "roles/haproxy/vars/main.yml")
HEADERS: dict[str, str] = ROLE["__haproxy_headers"]
POLICIES: dict[str, str] = {
    endpoint["name"]: endpoint.get("content_security_policy", ROLE["__haproxy_policy"])
    for endpoint in ENDPOINTS
}
ADDED = "base-uri 'none'; frame-ancestors 'none'; object-src 'none'"

Policy = dict[str, set[str]]


def parsed(policy: str) -> Policy:
    """Return a policy's sources by directive."""
    directives = [directive.split() for directive in policy.split(";")]
    return {name: set(sources) for name, *sources in directives}


def service() -> Flask:
    """Return a service that says other things than HAProxy, as Airflow may in some version."""
    app = Flask("service")

    @app.get("/", defaults={"path": ""})
    @app.get("/<path:path>")
    def answer(path: str) -> Response:
        theirs = {"Content-Security-Policy": "default-src *", "X-Frame-Options": "SAMEORIGIN"}
        return Response(path, 404 if path == "missing" else 200, theirs)

    return app


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """HAProxy's ports before a service for each endpoint."""
    folder = tmp_path_factory.mktemp("headers")
    with ExitStack() as stack:
        servers = dict.fromkeys(NAMES, int(stack.enter_context(served(service())).rpartition(":")[2]))
        yield stack.enter_context(haproxy(servers, folder / "haproxy"))


@pytest.fixture(scope="module")
def ports_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """HAProxy's ports where no service answers."""
    with haproxy(dict.fromkeys(NAMES, free_port()), tmp_path_factory.mktemp("nobody")) as ports:
        yield ports


def ask(port: int, path: str = "/", **options: Any) -> httpx.Response:
    """Return an answer, once HAProxy listens."""
    transport = httpx.HTTPTransport(retries=5)
    with httpx.Client(transport=transport, trust_env=False, timeout=30) as client:
        return client.request(options.pop("method", "GET"), f"http://127.0.0.1:{port}{path}", **options)


def assert_headers(answer: httpx.Response, endpoint: str) -> None:
    """Each once: of two policies a browser obeys both, of two other headers whichever it likes."""
    wanted = {**HEADERS, "Content-Security-Policy": f"{POLICIES[endpoint]}; {ADDED}"}
    assert {name: answer.headers.get_list(name) for name in wanted} == {
        name: [value] for name, value in wanted.items()
    }
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize("endpoint", NAMES)
@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/missing", 404)])
def test_answer_has_the_headers(ports: dict[str, int], endpoint: str, path: str, status: int) -> None:
    """Those of the platform, in the place of the service's own."""
    answer = ask(ports[endpoint], path)
    assert answer.status_code == status
    assert_headers(answer, endpoint)


@pytest.mark.parametrize("endpoint", NAMES)
def test_page_for_maintenance_has_the_headers(ports_of_nobody: dict[str, int], endpoint: str) -> None:
    """And may have its style."""
    answer = ask(ports_of_nobody[endpoint])
    assert answer.status_code == 503
    assert "<style>" in answer.text
    assert_headers(answer, endpoint)
    assert "'unsafe-inline'" in parsed(POLICIES[endpoint])["style-src"]


def test_refusals_have_the_headers(ports: dict[str, int]) -> None:
    refused = ask(ports["flower"], "/metrics")
    assert refused.status_code == 403
    assert_headers(refused, "flower")
    too_large = ask(ports["weather"], method="POST", content=b"x" * 20_000)
    assert too_large.status_code == 413
    assert_headers(too_large, "weather")


@pytest.mark.parametrize("endpoint", NAMES)
def test_policy_lets_in_no_other_site(endpoint: str) -> None:
    """Neither a site nor a scheme that leads to any; data: and blob: are of the page itself."""
    policy = parsed(POLICIES[endpoint])
    sources = set().union(*policy.values())
    within = {"'self'", "'none'", "'unsafe-inline'", "data:", "blob:"}
    assert sources - within == ({"'unsafe-eval'"} if endpoint == "airflow" else set())
    assert {"default-src", "style-src", "form-action"} <= set(policy)
    assert not policy.get("script-src", set()) & {"data:", "blob:"}


@pytest.mark.parametrize("endpoint", ["webhook", "weather"])
def test_pages_without_scripts_run_none(endpoint: str) -> None:
    assert parsed(POLICIES[endpoint])["default-src"] == {"'none'"}
    assert "script-src" not in parsed(POLICIES[endpoint])


def test_endpoint_that_says_nothing_runs_files_of_its_own_alone(tmp_path: Path) -> None:
    silent = {name: value for name, value in ENDPOINTS[-1].items() if name != "content_security_policy"}
    text = configuration([silent], tmp_path, {})
    [policy] = re.findall(
        r'^  http-after-response set-header Content-Security-Policy "(.*)"$', text, re.MULTILINE
    )
    assert parsed(policy)["default-src"] == {"'self'"}
    assert "script-src" not in parsed(policy)


def test_only_tls_tells_browsers_to_stay_with_tls(rendered: dict[str, Rendered]) -> None:
    """On its own port, with every answer; and it has the other headers, too."""
    for case, files in rendered.items():
        text = files["srv/airflow/haproxy/haproxy.cfg"]
        sections = dict(re.findall(r"^((?:frontend|backend) \w+)\n((?:  .*\n|\n)*)", text, re.MULTILINE))
        having = [name for name, section in sections.items() if "Strict-Transport-Security" in section]
        assert having == (["frontend by_name"] if case == "TLS" else [])
        served_sections = [f"backend {name}" for name in NAMES]
        if case in ("TLS", "host names"):
            served_sections.append("backend unknown_name")
        for name in served_sections:
            assert sections[name].count("http-after-response set-header") == len(HEADERS) + 1


def test_session_is_sent_over_tls_alone_where_there_is_tls(rendered: dict[str, Rendered]) -> None:
    """With plain HTTP a browser would never send such a cookie, and nobody could log in."""
    for case, files in rendered.items():
        services = yaml.safe_load(files["srv/airflow/docker-compose.yaml"])["services"]
        environment = services["airflow-webserver"]["environment"]
        assert environment["AIRFLOW__WEBSERVER__COOKIE_SECURE"] == ("true" if case == "TLS" else "false")
        assert environment["AIRFLOW__WEBSERVER__COOKIE_SAMESITE"] == "Lax"
