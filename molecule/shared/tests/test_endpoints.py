"""The endpoints as people and programs meet them: through HAProxy, from the host and from outside."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from airflow_api import AirflowApi
from conftest import ROOT, Http
from expected import ENDPOINT_LIST, ENDPOINTS
from testinfra.host import Host

Login = tuple[str, str]

ROLE = yaml.safe_load((ROOT / "roles/haproxy/vars/main.yml").read_text(encoding="utf-8"))

STRANGER = {"airflow": 302, "webhook": 200, "flower": 401, "weather": 200}
"""What each endpoint answers to somebody without a login. A new one needs a line here and in test_tls.py."""

ASK = """
import json, sys, urllib.error, urllib.request
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None
opener = urllib.request.build_opener(Stay, urllib.request.ProxyHandler({}))
statuses = {}
for name, url in json.loads(sys.argv[1]).items():
    try:
        statuses[name] = opener.open(url, timeout=10).status
    except urllib.error.HTTPError as error:
        statuses[name] = error.code
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def from_host(
    host: Host, containers: dict[str, Any], weather_run: dict[str, Any]
) -> dict[str, dict[str, int]]:
    """The status of each endpoint as the host itself gets it, by name of the address that it was asked on."""
    addresses = {"loopback": "127.0.0.1", "network": host.check_output("hostname -I").split()[0]}
    return {
        name: json.loads(
            host.check_output(
                "python3 -c %s %s",
                ASK,
                json.dumps({endpoint: f"http://{address}:{port}/" for endpoint, port in ENDPOINTS.items()}),
            )
        )
        for name, address in addresses.items()
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("address", ["loopback", "network"])
def test_endpoint_answers_on_the_host(
    from_host: dict[str, dict[str, int]], address: str, endpoint: str
) -> None:
    """An operator on the host and a colleague in the office reach the same endpoint."""
    assert from_host[address][endpoint] == STRANGER[endpoint]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoint_answers_from_outside(
    http: Http, endpoints: dict[str, str], weather_run: dict[str, Any], endpoint: str
) -> None:
    """Nothing between here and the service needs to be known but host and port."""
    assert http("GET", f"{endpoints[endpoint]}/").status_code == STRANGER[endpoint]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_unknown_path_is_not_found(
    http: Http, endpoints: dict[str, str], logins: dict[str, Login], endpoint: str
) -> None:
    """A wrong address says so; it leads to no other service. Some services first ask for the login (401)."""
    login = logins[endpoint] if STRANGER[endpoint] == 401 else None
    assert http("GET", f"{endpoints[endpoint]}/no/such/page", auth=login).status_code == 404


def test_airflow_leads_to_its_login_page(http: Http, endpoints: dict[str, str]) -> None:
    """Through a redirect that stays on this endpoint, whatever port it is published on."""
    home = http("GET", f"{endpoints['airflow']}/home")
    assert home.status_code == 302
    address = urlsplit(home.headers["Location"])
    assert address.netloc in ("", urlsplit(endpoints["airflow"]).netloc)
    assert address.path == "/login/"
    page = http("GET", f"{endpoints['airflow']}/login/")
    assert page.status_code == 200
    assert 'name="password"' in page.text


@pytest.mark.parametrize("part", ["metadatabase", "scheduler"])
def test_airflow_is_healthy(http: Http, endpoints: dict[str, str], part: str) -> None:
    """The webserver knows of the parts that it cannot work without."""
    assert http("GET", f"{endpoints['airflow']}/health").json()[part]["status"] == "healthy"


@pytest.mark.parametrize("path", ["dags", "users", "variables", "connections", "config"])
@pytest.mark.parametrize(
    "login",
    [None, ("admin", "admin"), ("airflow", "airflow")],
    ids=["no login", "admin:admin", "airflow:airflow"],
)
def test_airflow_api_refuses_strangers(
    http: Http, endpoints: dict[str, str], path: str, login: Login | None
) -> None:
    """Nor do the logins of Airflow's own examples open anything."""
    assert http("GET", f"{endpoints['airflow']}/api/v1/{path}", auth=login).status_code in (401, 403)


@pytest.mark.parametrize("path", ["dags", "users"])
def test_airflow_api_takes_no_password_with_a_request(
    http: Http, endpoints: dict[str, str], administrator: Login, path: str
) -> None:
    """Not even the administrator's, unless the inventory asks for it: nobody counts how often one tries."""
    response = http("GET", f"{endpoints['airflow']}/api/v1/{path}", auth=administrator)
    assert response.status_code in (401, 403)


def test_airflow_api_shows_no_configuration(airflow: AirflowApi) -> None:
    """Not even to the administrator: it has the keys and passwords of the whole platform."""
    assert airflow.ask("GET", "config").status_code == 403


def test_session_stays_with_airflows_pages(http: Http, endpoints: dict[str, str]) -> None:
    """No script reads its cookie and no other site's form sends it. Without TLS it cannot ask for TLS."""
    [cookie] = [
        value
        for value in http("GET", f"{endpoints['airflow']}/login/").raw.headers.getlist("Set-Cookie")
        if value.startswith("session=")
    ]
    attributes = {part.strip() for part in cookie.split(";")[1:]}
    assert {"HttpOnly", "SameSite=Lax"} <= attributes
    assert "Secure" not in attributes


def test_webhook_names_the_version_that_runs(
    http: Http, endpoints: dict[str, str], execute: Any, settings: dict[str, str]
) -> None:
    """Asked of Airflow, not written by hand: what the page says is what the scheduler's own program says."""
    answer = http("GET", f"{endpoints['webhook']}/").json()
    version = execute("airflow-scheduler", "airflow version").stdout.strip().splitlines()[-1]
    assert answer["airflow_version"] == version == settings["AIRFLOW_VERSION"]
    assert version in answer["status"]


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"])
@pytest.mark.parametrize(
    "login", [None, ("admin", "admin"), ("", "")], ids=["no login", "admin:admin", "empty login"]
)
def test_flower_refuses_strangers(
    http: Http, endpoints: dict[str, str], path: str, login: Login | None
) -> None:
    """It shows the arguments of every task, and can stop them."""
    assert http("GET", f"{endpoints['flower']}{path}", auth=login).status_code == 401


def test_flower_metrics_are_closed(http: Http, endpoints: dict[str, str]) -> None:
    """Flower gives them to anybody, whatever its login: they name every task and worker."""
    assert http("GET", f"{endpoints['flower']}/metrics").status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_flower_lets_no_stranger_control_a_worker(http: Http, endpoints: dict[str, str], method: str) -> None:
    """The addresses that stop a worker ask for the login as the pages do."""
    response = http(method, f"{endpoints['flower']}/api/worker/shutdown/celery@nobody")
    assert response.status_code in (401, 405)
    assert method == "GET" or response.status_code == 401


def test_flower_opens_with_its_login(http: Http, endpoints: dict[str, str], flower_login: Login) -> None:
    """The login of the vault, the same in every environment."""
    response = http("GET", f"{endpoints['flower']}/workers", auth=flower_login)
    assert response.status_code == 200
    assert "Flower" in response.text


def test_airflows_administrator_is_nobody_to_flower(
    http: Http, endpoints: dict[str, str], administrator: Login
) -> None:
    """Two logins: whoever may see workers may not thereby change DAGs, nor the other way round."""
    assert http("GET", f"{endpoints['flower']}/", auth=administrator).status_code == 401


@pytest.mark.parametrize("path", ["/", "/no/such/page"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_answer_has_the_headers(
    http: Http, endpoints: dict[str, str], endpoint: str, path: str
) -> None:
    """What a page may load and run, that no other site may show it in a frame, and so on. HSTS needs TLS."""
    headers = http("GET", f"{endpoints[endpoint]}{path}").headers
    [entry] = [entry for entry in ENDPOINT_LIST if entry["name"] == endpoint]
    policy = entry.get("content_security_policy", ROLE["__haproxy_policy"])
    assert headers["Content-Security-Policy"].startswith(f"{policy}; ")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in headers


@pytest.mark.parametrize("what", ["the page", "its picture", "nothing"])
def test_weather_page_is_asked_for_anew(
    http: Http, endpoints: dict[str, str], weather_run: dict[str, Any], what: str
) -> None:
    """A browser shows no old picture."""
    answer = http("GET", f"{endpoints['weather']}/" + ("no/such/page" if what == "nothing" else ""))
    if what == "its picture":
        [address] = re.findall(r'<img [^>]*src="([^"]+)"', answer.text)
        answer = http("GET", f"{endpoints['weather']}/{address}")
        assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_weather_page_is_only_read(http: Http, endpoints: dict[str, str], method: str) -> None:
    """The DAG writes to the volume; nobody writes through the endpoint."""
    assert http(method, f"{endpoints['weather']}/index.html", data="x").status_code in (403, 405)


@pytest.mark.parametrize("path", ["/../etc/passwd", "/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd"])
def test_weather_page_leads_nowhere_else(endpoints: dict[str, str], host: Host, path: str) -> None:
    """The server shows one volume."""
    # A client with manners would tidy such a path up before asking.
    port = ENDPOINTS["weather"]
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    answer = host.check_output(
        "bash -c %s",
        f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request.replace('%', '%%')}' >&3; head -1 <&3",
    )
    assert answer.split()[1] in ("400", "403", "404")


@pytest.mark.parametrize("endpoint", ["webhook", "weather"])
def test_server_does_not_tell_its_version(http: Http, endpoints: dict[str, str], endpoint: str) -> None:
    """Whoever looks for old software should have to try."""
    assert not any(
        digit in http("GET", f"{endpoints[endpoint]}/").headers["Server"] for digit in "0123456789"
    )
