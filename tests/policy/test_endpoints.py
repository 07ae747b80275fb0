"""A fifth endpoint is one entry and a service: all that depends on the endpoints sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from flask import Flask, Response, request

from tests.endpoints import ENDPOINTS
from tests.missing import needs
from tests.policy.conftest import ROOT, ansible, load
from tests.releases import NEWEST
from tests.served import served
from tests.webhook.front import HAPROXY, haproxy

FIFTH: dict[str, Any] = {
    "name": "handbook",
    "purpose": "the team's handbook",
    "port": 1 + max(endpoint["port"] for endpoint in ENDPOINTS),
    "service": "handbook:8000",
    "health": "/ready",
    "access": "login",
    "private": "/pages",
}
SERVICE = """
  handbook:
    <<: *service
    image: registry.example.org/handbook:1.0
    networks: [edge-handbook]
"""
ALL = [*ENDPOINTS, FIFTH]
NAMES = [endpoint["name"] for endpoint in ALL]
OFFSET = 10_000

JANE = {
    "username": "jane",
    "first_name": "Jane",
    "last_name": "O'Doe",
    "email": "jane@example.org",
    "role": "Op",
}
CERTIFICATE = {"tls_certificate": "the text of a certificate and its key"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "lacks fields": (
        {"project_endpoints": [{"name": "airflow", "port": 8080, "access": "login"}]},
        "project_endpoints: the endpoint airflow has no purpose, service, health, private.",
    ),
    "has a name twice": (
        {"project_endpoints": [*ALL, {**FIFTH, "port": FIFTH["port"] + 1}]},
        "project_endpoints: handbook is the name of more than one endpoint.",
    ),
    "has a port twice": (
        {"project_endpoints": [*ENDPOINTS, {**FIFTH, "port": 8082}]},
        "project_endpoints: 8082 is the port of more than one endpoint, or taken by the host names.",
    ),
    "takes a port of the host names": (
        {
            "project_endpoints": [*ENDPOINTS, {**FIFTH, "port": 80}],
            "hostnames": {"handbook": "handbook.example.org"},
        },
        "project_endpoints: 80 is the port of more than one endpoint, or taken by the host names.",
    ),
    "names what is no endpoint": (
        {"hostnames": {"airflwo": "airflow.example.org"}},
        f"hostnames has airflwo, and there is no such endpoint: {', '.join(NAMES[:-1])} are known.",
    ),
    "has a certificate and too few names": (
        {"hostnames": {"airflow": "airflow.example.org", "flower": ""}, **CERTIFICATE},
        "tls_certificate is set, and hostnames has no flower: its plain port would have nowhere",
    ),
    "has an account without fields": (
        {"airflow_accounts": [{"username": "jane", "role": "Op", "password": "x"}]},
        "airflow_accounts: the account jane has no first_name, last_name, email"
        " and has password, which is unknown.",
    ),
    "has an account of an unknown role": (
        {"airflow_accounts": [{**JANE, "role": "Boss"}]},
        "airflow_accounts: jane has the role Boss; Admin, Op, User, Viewer, Public are known.",
    ),
    "has an account in upper case": (
        {"airflow_accounts": [{**JANE, "username": "Jane"}]},
        "airflow_accounts: Jane is no username; lower-case letters, digits and . _ - are expected,",
    ),
    "has an account of the platform": (
        {"airflow_accounts": [{**JANE, "username": "smoke-test"}]},
        "airflow_accounts: smoke-test is an account of the platform itself; choose another username.",
    ),
    "has an account without an address": (
        {"airflow_accounts": [{**JANE, "email": "jane"}]},
        "airflow_accounts: jane has the e-mail address jane; one such as jane@example.org is expected.",
    ),
    "has an account with no name": (
        {"airflow_accounts": [{**JANE, "last_name": ""}]},
        "airflow_accounts: jane has no last_name of 1 to 64 characters.",
    ),
    "has an account twice": (
        {"airflow_accounts": [JANE, {**JANE, "email": "JANE@example.org"}]},
        "airflow_accounts: jane is the username of more than one account. "
        "airflow_accounts: jane@example.org is the e-mail address of more than one account.",
    ),
    "has the earlier list": (
        {"haproxy_doors": []},
        "These variables have another name now: haproxy_doors -> project_endpoints.",
    ),
    "has the earlier address": (
        {"smoke_weather_url": "http://127.0.0.1:8083"},
        "These variables have another name now: smoke_weather_url -> smoke_addresses.weather.",
    ),
    "has a team's name": (
        {"AIRFLOW_UID": 50000},
        "These variables have another name now: AIRFLOW_UID -> airflow_uid.",
    ),
}

SOCKETS = {
    "docker-proxy": ('LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* users:(("docker-proxy",pid=842,fd=4))', False),
    "docker-proxy on IPv6": ('LISTEN 0 4096 [::]:80 [::]:* users:(("docker-proxy",pid=849,fd=4))', False),
    "dockerd": ('LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* users:(("dockerd",pid=672,fd=31))', False),
    "no program": ("LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:*  ", False),
    "another port": ('LISTEN 0 128 127.0.0.1:18080 0.0.0.0:* users:(("java",pid=913,fd=9))', False),
    "a web server": ('LISTEN 0 511 *:80 *:* users:(("nginx",pid=7,fd=6),("nginx",pid=6,fd=6))', True),
    "a local program": ('LISTEN 0 128 127.0.0.1:8080 0.0.0.0:* users:(("java",pid=913,fd=9))', True),
}
"""Lines of ss by what they show, and whether they are in the way of HAProxy on the ports 80 and 8080."""


def platform(name: str, asked: list[tuple[str, str]]) -> Flask:
    """Return a stand-in for an endpoint's service. It notes the paths that the smoke test asks for."""
    app = Flask(name)
    [endpoint] = [one for one in ALL if one["name"] == name]
    said = {
        ("airflow", "/health"): {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}},
        ("webhook", "/"): {"airflow_version": NEWEST},
    }

    @app.get("/")
    @app.get("/<path:rest>")
    def answer(rest: str = "") -> Response:
        if (
            request.accept_mimetypes.best == "application/json"
        ):  # the health checks of HAProxy ask for nothing
            asked.append((name, request.path))
        if request.path == endpoint.get("private") and not request.authorization:
            return Response(status={"airflow": 302, "flower": 401}.get(name, 403))
        if (name, request.path) in said:
            return Response(json.dumps(said[name, request.path]))
        return Response(status=200 if request.path in ("/", endpoint["health"]) else 404)

    return app


def inventory(ports: dict[str, int]) -> dict[str, Any]:
    """Return an inventory with a host that has the fifth endpoint, and one for each mistake."""
    complete = {
        "project_endpoints": [{**endpoint, "port": ports[endpoint["name"]]} for endpoint in ALL],
        "airflow_accounts": [JANE],
    }
    hosts = {
        "complete": complete,
        **{name.replace(" ", "-"): mistake for name, (mistake, _) in WRONG.items()},
    }
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "airflow_version": NEWEST,
        "hostnames": {},
    }
    return {"airflow": {"hosts": hosts, "vars": variables}}


class Made:
    """What Ansible made of the test inventory."""

    def __init__(
        self, folder: Path, run: subprocess.CompletedProcess[str], asked: set[tuple[str, str]]
    ) -> None:
        self.run, self.asked = run, asked
        document, _ = json.JSONDecoder().raw_decode(run.stdout, run.stdout.index("{\n"))
        self.tasks: dict[str, dict[str, Any]] = {}
        for play in document["plays"]:
            for task in play["tasks"]:
                self.tasks.setdefault(task["task"]["name"], {}).update(task["hosts"])
        assert (folder / "made.json").exists(), run.stdout + run.stderr
        made = json.loads((folder / "made.json").read_text())
        self.haproxy: str = made["haproxy"]
        self.compose: dict[str, Any] = yaml.safe_load(made["compose"])
        self.sandbox: list[str] = made["sandbox"]
        self.table: list[str] = made["table"]

    def failures(self, host: str) -> list[str]:
        """Return what was refused on a host."""
        results = [hosts[host] for hosts in self.tasks.values() if host in hosts]
        each = [one for result in results for one in result.get("results", [result])]
        return [one["msg"] for one in each if one.get("failed")]


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Made]:
    """The inventory's files rendered, its endpoints asked through a real HAProxy, and its inputs checked."""
    folder = tmp_path_factory.mktemp("endpoints")
    shutil.copytree(ROOT / "templates", folder / "templates")
    compose = folder / "templates/srv/airflow/docker-compose.yaml.j2"
    compose.write_text(compose.read_text().replace("\nnetworks:\n", f"{SERVICE}\nnetworks:\n", 1))
    asked: list[tuple[str, str]] = []
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(served(platform(name, asked))) for name in NAMES}
        servers = {name: urlsplit(address).port or 0 for name, address in addresses.items()}
        ports.update(stack.enter_context(haproxy(servers, folder / "haproxy", endpoints=ALL)))
        (folder / "inventory.json").write_text(json.dumps(inventory(ports)))
        variables = {
            "folder": str(folder),
            "project_root": str(ROOT),
            "project_templates": str(folder / "templates"),
            "airflow_directory": str(folder),
            "docker_engine_available": True,
            "stack_available": True,
            "secrets": {"flower_username": "flower", "flower_password": "value-of-password"},
            "op_connect": "http://connect.example.org",
            "op_api_token": "value-of-token",
            "op_vault_id": "value-of-vault",
            "sockets": [line for line, _ in SOCKETS.values()],
            "preflight_memory_mb": 0,
            "preflight_disk_mb": 0,
        }
        (folder / "variables.json").write_text(json.dumps(variables))
        # Ansible reads group_vars beside the playbook.
        (folder / "playbooks").mkdir()
        (folder / "playbooks/group_vars").symlink_to(ROOT / "playbooks/group_vars")
        plays = load(ROOT / "tests/policy/endpoints.yml")
        plays[0]["vars_files"] = [
            str((ROOT / "tests/policy" / file).resolve()) for file in plays[0]["vars_files"]
        ]
        (folder / "playbooks/endpoints.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
        run = ansible(
            "ansible-playbook",
            f"--inventory={folder}/inventory.json",
            f"--extra-vars=@{folder}/variables.json",
            str(folder / "playbooks/endpoints.yml"),
            environment={
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "SANDBOX_PORT_OFFSET": str(OFFSET),
            },
        )
        yield Made(folder, run, set(asked))


def test_haproxy_takes_its_configuration(made: Made, tmp_path: Path) -> None:
    """HAProxy itself says so; it would refuse an endpoint that comes twice or leads nowhere."""
    (tmp_path / "maintenance.html").write_text("away")
    file = tmp_path / "haproxy.cfg"
    file.write_text(made.haproxy.replace("/usr/local/etc/haproxy", str(tmp_path)))
    run = subprocess.run([HAPROXY, "-c", "-f", file], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("endpoint", ALL, ids=NAMES)
def test_haproxy_leads_to_the_service(made: Made, ports: dict[str, int], endpoint: dict[str, Any]) -> None:
    """From the port, with the check of its health."""
    name = endpoint["name"]
    sections = dict(re.findall(r"^((?:frontend|backend) \w+)\n((?:  .*\n|\n)*)", made.haproxy, re.MULTILINE))
    assert f"  bind :{ports[name]}\n" in sections[f"frontend {name}"]
    assert f"  default_backend {name}\n" in sections[f"frontend {name}"]
    assert f"  server {name} {endpoint['service']} check " in sections[f"backend {name}"]
    assert f"  option httpchk GET {endpoint['health']}\n" in sections[f"backend {name}"]
    assert ("deny_status 429" in sections[f"backend {name}"]) == (endpoint["access"] == "limited")


def test_compose_publishes_the_ports(made: Made, ports: dict[str, int]) -> None:
    assert made.compose["services"]["haproxy"]["ports"] == [f"{port}:{port}" for port in ports.values()]


@pytest.mark.parametrize("endpoint", ALL, ids=NAMES)
def test_service_can_be_reached_by_haproxy(made: Made, endpoint: dict[str, Any]) -> None:
    """A service of the project, on a network that it and its standby share with HAProxy alone.

    The webhook is there, too, where Airflow is: its status page asks Airflow.
    """
    addresses = [endpoint["service"], *filter(None, [endpoint.get("standby")])]
    services = {address.partition(":")[0] for address in addresses}
    network = f"edge-{endpoint['name']}"
    on_it = {name for name, one in made.compose["services"].items() if network in one.get("networks", ())}
    assert on_it == {"haproxy", *services} | ({"webhook"} if endpoint["name"] == "airflow" else set())
    assert made.compose["networks"][network] == {"internal": True}


def test_networks_of_haproxy_lead_to_services_alone(made: Made) -> None:
    """What it does not publish it cannot reach."""
    published = {f"edge-{name}" for name in NAMES}
    assert set(made.compose["services"]["haproxy"]["networks"]) == {"public", *published}


def test_sandbox_publishes_the_ports(made: Made, ports: dict[str, int]) -> None:
    """On the loopback address, moved by SANDBOX_PORT_OFFSET."""
    assert made.sandbox == [f"127.0.0.1:{port + OFFSET}:{port}" for port in ports.values()]
    play, *_ = load(ROOT / "sandbox/playbooks/create.yml")
    assert "../../playbooks/group_vars/all/endpoints.yml" in play["vars_files"]


@pytest.mark.parametrize("endpoint", ALL, ids=NAMES)
def test_smoke_test_asks_the_endpoint(made: Made, endpoint: dict[str, Any]) -> None:
    """Whether it is well and, where it has a login, whether it shows anything without one."""
    answers = made.tasks["smoke : endpoints | Ask each endpoint"]["complete"]
    assert not answers.get("failed"), answers
    paths = {endpoint["health"], endpoint.get("private", endpoint["health"])}
    assert {path for name, path in made.asked if name == endpoint["name"]} >= paths


def test_smoke_test_shows_the_endpoint(made: Made, ports: dict[str, int]) -> None:
    address = f"http://127.0.0.1:{ports['handbook']}"
    shown = [line for line in made.table if address in line]
    assert shown == [
        f"passed  {address}/ready  service is healthy",
        f"passed  {address}/pages  asks for a login",
    ]


@pytest.mark.parametrize("mistake", WRONG)
def test_preflight_names_what_is_wrong(made: Made, mistake: str) -> None:
    failures = made.failures(mistake.replace(" ", "-"))
    assert any(WRONG[mistake][1] in failure for failure in failures), failures


@needs("ss")
def test_preflight_refuses_a_port_that_is_taken(made: Made, ports: dict[str, int]) -> None:
    """HAProxy of this test listens on each, and is none of Docker's. Nothing else is wrong with this host."""
    [failure] = made.failures("complete")
    assert [name for name, port in ports.items() if f":{port} " not in failure] == []


@pytest.mark.parametrize("shown", SOCKETS)
def test_preflight_knows_the_sockets_of_the_platform(made: Made, shown: str) -> None:
    """A later run finds the ports taken by Docker, which publishes them for HAProxy."""
    line, in_the_way = SOCKETS[shown]
    results = made.tasks["Tell which sockets are another program's"]["complete"]["results"]
    [found] = [result["msg"] for result in results if result["item"] == line]
    assert found == ([line] if in_the_way else [])


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=NAMES[:-1])
def test_entry_is_complete(endpoint: dict[str, Any]) -> None:
    """As the role that takes the list says."""
    options = load(ROOT / "roles/haproxy/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    fields = options["haproxy_endpoints"]["options"]
    assert set(endpoint) <= set(fields)
    assert {name for name, field in fields.items() if field.get("required")} <= set(endpoint)
    assert endpoint["access"] in fields["access"]["choices"]
    assert ("private" in endpoint) == (endpoint["access"] == "login")


def test_preflight_asks_for_the_fields_that_haproxy_needs() -> None:
    options = load(ROOT / "roles/haproxy/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    fields = options["haproxy_endpoints"]["options"]
    needed = load(ROOT / "roles/preflight/vars/main.yml")["__preflight_endpoint_fields"]
    assert set(needed) == {name for name, field in fields.items() if field.get("required")}
