"""The endpoints with a certificate: what an inventory that has one gets, from the same image, as confined.

The platform under test has no certificate. So a second HAProxy stands beside its own for a moment, with the
configuration that the same template makes of a certificate and a host name for each endpoint. Behind it is a
second webserver, since Airflow has a setting for that case, too. It costs about 20 s.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from airflow_api import wait_for
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from conftest import ROOT
from expected import DIRECTORY, ENDPOINT_LIST, ENDPOINTS, PROJECT
from testinfra.host import Host

from tests.certificates import certificate

NAMES = {endpoint: f"{endpoint}.example.org" for endpoint in ENDPOINTS}
CONTAINER = "haproxy-with-certificate"
WEBSERVER = "webserver-behind-certificate"
SETTINGS = "/usr/local/etc/haproxy"
UNKNOWN = "unknown.example.org"

# What each service answers over TLS to somebody who has no login.
STRANGER = {"airflow": ("/health", 200), "webhook": ("/", 200), "flower": ("/", 401), "weather": ("/", 200)}
UNKNOWN_PATH = "/some/path?and=query"

# Host name; https, http or the port that speaks plain HTTP; path.
REQUESTS = [
    *((NAMES[endpoint], "https", path) for endpoint, (path, _) in STRANGER.items()),
    *((NAMES[endpoint], "http", UNKNOWN_PATH) for endpoint in ENDPOINTS),
    *((NAMES[endpoint], str(port), UNKNOWN_PATH) for endpoint, port in ENDPOINTS.items()),
    (NAMES["airflow"], "https", "/home"),
    (NAMES["airflow"], "https", "/login/"),
    (UNKNOWN, "https", "/"),
]

ASK = """
import http.client, json, socket, ssl, sys
address, certificate, requests = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
context = ssl.create_default_context(cafile=certificate)
answers = []
for name, scheme, path in requests:
    port = {"https": 443, "http": 80}.get(scheme) or int(scheme)
    connection = http.client.HTTPConnection(name, port, timeout=10)
    connection.sock = socket.create_connection((address, port), 10)
    if scheme == "https":
        context.check_hostname = not name.startswith("unknown")
        connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
    connection.request("GET", path)
    answer = connection.getresponse()
    headers = {key.lower(): value for key, value in answer.getheaders()}
    cookies = answer.headers.get_all("Set-Cookie") or []
    answers.append({"status": answer.status, "cookies": cookies, **headers})
print(json.dumps(answers))
"""

Answers = dict[tuple[str, str, str], dict[str, Any]]


def configuration() -> str:
    """Return what haproxy.cfg.j2 makes of a certificate and a host name for each endpoint."""
    variables = {
        **yaml.safe_load((ROOT / "roles/haproxy/vars/main.yml").read_text(encoding="utf-8")),
        "ansible_managed": "Ansible managed",
        "haproxy_certificate": "given",
        "haproxy_endpoints": [
            {**endpoint, "service": endpoint["service"].replace("airflow-webserver:", f"{WEBSERVER}:")}
            for endpoint in ENDPOINT_LIST
        ],
        "haproxy_hostnames": NAMES,
    }
    template = (ROOT / "templates/srv/airflow/haproxy/haproxy.cfg.j2").read_text(encoding="utf-8")
    text: str = Templar(DataLoader(), variables).template(trust_as_template(template))
    return text


@pytest.fixture(scope="module")
def answers(host: Host, containers: dict[str, Any], weather_run: dict[str, Any]) -> Iterator[Answers]:
    """The answer to each of the requests above, asked on the host."""
    directory = host.check_output("mktemp --directory")
    image = containers["haproxy"]["Config"]["Image"]
    names = NAMES.values()
    networks = [f"{PROJECT}_edge-{endpoint}" for endpoint in ENDPOINTS]
    compose = f"docker compose --project-directory {DIRECTORY}"
    # What a certificate changes in the settings of Airflow: tests/policy/test_headers.py.
    with_tls = "--env AIRFLOW__WEBSERVER__COOKIE_SECURE=true"
    try:
        host.check_output(
            f"{compose} run --detach --no-deps --name {WEBSERVER} {with_tls} airflow-webserver 2>&1"
        )
        for file, text in (
            ("haproxy.cfg", configuration()),
            ("certificate.pem", certificate(names)),
        ):
            encoded = base64.b64encode(text.encode()).decode()
            host.check_output(f"echo {encoded} | base64 --decode > {directory}/{file}")
        host.check_output(f"cp {DIRECTORY}/haproxy/maintenance.html {directory}")
        # For HAProxy's user in its image alone, as the role does it.
        host.check_output(f"cd {directory} && chmod 755 . && chown 99 *.pem && chmod 400 *.pem")
        host.check_output(
            f"docker create --name {CONTAINER} --network {networks[0]} --read-only --tmpfs /tmp"
            f" --cap-drop ALL --security-opt no-new-privileges:true --volume {directory}:{SETTINGS}:ro"
            f" {image} haproxy -W -db -f {SETTINGS}/haproxy.cfg"
        )
        for network in networks[1:]:
            host.check_output(f"docker network connect {network} {CONTAINER}")
        host.check_output(f"docker start {CONTAINER}")
        [document] = json.loads(host.check_output(f"docker inspect {CONTAINER}"))
        address = document["NetworkSettings"]["Networks"][networks[0]]["IPAddress"]

        def ask() -> list[dict[str, Any]]:
            result = host.run(
                "timeout 60 python3 -c %s %s %s %s",
                ASK,
                address,
                f"{directory}/certificate.pem",
                json.dumps(REQUESTS),
            )
            found: list[dict[str, Any]] = json.loads(result.stdout) if result.rc == 0 else []
            # It lets nobody in to a service that it has not yet found well.
            return [] if any(answer["status"] == 503 for answer in found) else found

        found = wait_for("HAProxy with a certificate to answer", ask, 120)
        yield dict(zip(REQUESTS, found, strict=True))
    finally:
        host.run(f"docker rm --force {CONTAINER} {WEBSERVER}; rm -r {directory}")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_name_leads_to_the_service_over_tls(answers: Answers, endpoint: str) -> None:
    """One address, one certificate, all services; and browsers remember that it is TLS."""
    path, status = STRANGER[endpoint]
    answer = answers[NAMES[endpoint], "https", path]
    assert answer["status"] == status
    assert answer["strict-transport-security"] == "max-age=63072000"
    assert answer["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer["content-security-policy"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_plain_name_redirects_to_tls(answers: Answers, endpoint: str) -> None:
    """An old bookmark arrives, with all of its path."""
    answer = answers[NAMES[endpoint], "http", UNKNOWN_PATH]
    assert (answer["status"], answer["location"]) == (308, f"https://{NAMES[endpoint]}{UNKNOWN_PATH}")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_plain_port_redirects_to_tls(answers: Answers, endpoint: str) -> None:
    """The ports that people know lead to the names, and carry no password in the clear."""
    answer = answers[NAMES[endpoint], str(ENDPOINTS[endpoint]), UNKNOWN_PATH]
    assert (answer["status"], answer["location"]) == (308, f"https://{NAMES[endpoint]}{UNKNOWN_PATH}")


def test_airflow_knows_that_it_is_behind_tls(answers: Answers) -> None:
    """Otherwise its links lead back to plain HTTP."""
    answer = answers[NAMES["airflow"], "https", "/home"]
    assert answer["status"] == 302
    assert "https://airflow.example.org/home" in answer["location"].replace("%3A", ":").replace("%2F", "/")


def test_session_is_for_tls_alone(answers: Answers) -> None:
    """A browser sends its cookie over TLS only, and shows it to no script; plain HTTP hands out none."""
    cookies = answers[NAMES["airflow"], "https", "/login/"]["cookies"]
    [session] = [cookie for cookie in cookies if cookie.startswith("session=")]
    attributes = {part.strip() for part in session.split(";")[1:]}
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= attributes
    plain = {request: answer["cookies"] for request, answer in answers.items() if request[1] != "https"}
    assert len(plain) == 2 * len(ENDPOINTS)
    assert all(cookies == [] for cookies in plain.values()), plain


def test_unknown_name_leads_nowhere(answers: Answers) -> None:
    """Whoever points a name of their own at the host gets no service under it."""
    assert answers[UNKNOWN, "https", "/"]["status"] == 404
