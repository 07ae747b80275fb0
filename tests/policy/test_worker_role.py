"""A worker host: its files, made of the main host's, the images that it gets, and its tunnel in a HAProxy."""

from __future__ import annotations

import itertools
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_checker.gather.host import STOPPING

from plugins.filter.image_ids import image_ids
from tests.missing import needs
from tests.policy.conftest import CASES, ROOT, Rendered, ansible, load
from tests.policy.operations import said
from tests.releases import NEWEST
from tests.webhook.front import HAPROXY
from tests.webhook.network import free_port

MAIN = "srv/airflow"
WORKER = "worker/srv/airflow"
NAME = "atd-worker01"
USUAL = f"registry {NEWEST}"
REPOSITORY = "a repository"
SERVICES = {"tunnel", "airflow-worker", "docker-socket-proxy", "log-server", "log-copy"}
every_case = pytest.mark.parametrize("case", CASES)

Project = dict[str, Any]


def project(files: Rendered, host: str = WORKER) -> Project:
    """Return a host's Compose project."""
    document: Project = yaml.safe_load(files[f"{host}/docker-compose.yaml"])
    return document


def variables(text: str) -> dict[str, str]:
    """Return the variables of an env file."""
    return dict(re.findall(r"(?m)^(\w+)='?(.*?)'?$", text))


@every_case
def test_worker_has_its_services(rendered: dict[str, Rendered], case: str) -> None:
    """Without a repository there is no commit to follow."""
    follower = {"dag-follower"} if "repository" in CASES[case] else set()
    assert set(project(rendered[case])["services"]) == SERVICES | follower


@every_case
def test_every_service_is_confined_as_on_the_main_host(rendered: dict[str, Rendered], case: str) -> None:
    """And none starts where nobody has asked for a worker."""
    for definition in project(rendered[case])["services"].values():
        assert definition["profiles"] == ["worker"]
        assert definition["restart"] == "unless-stopped"
        assert definition["cap_drop"] == ["ALL"]
        assert definition["security_opt"] == ["no-new-privileges:true"]
        assert {"cap_add", "privileged"} & set(definition) == set()
        assert set(definition["logging"]["options"]) == {"max-size", "max-file"}
        assert re.fullmatch("[1-9][0-9]*m", definition["mem_limit"])
        assert definition["pids_limit"] >= 16
        assert {"test", "interval", "timeout", "retries", "start_period"} <= set(definition["healthcheck"])
        assert definition["image"].startswith("${")


@every_case
def test_only_what_runs_dags_may_write_its_root(rendered: dict[str, Rendered], case: str) -> None:
    services = project(rendered[case])["services"]
    assert [name for name, definition in services.items() if not definition.get("read_only")] == [
        "airflow-worker"
    ]


@every_case
def test_task_finds_what_it_finds_on_the_main_host(rendered: dict[str, Rendered], case: str) -> None:
    """But for the queues, the slots, and the name under which Airflow looks for logs."""
    main = project(rendered[case], MAIN)["services"]["airflow-worker"]
    worker = project(rendered[case])["services"]["airflow-worker"]
    slots = "AIRFLOW__CELERY__WORKER_CONCURRENCY"
    assert worker["environment"] == {**main["environment"], slots: "3"}
    assert worker["environment"]["PIN_TREE_PER_TASK"] == "1"
    assert worker["hostname"] == NAME
    # The main host's own queues come last, and only with worker hosts.
    shared = list(itertools.takewhile(lambda word: word != "--queues", main["command"]))
    assert worker["command"] == [
        *shared,
        *("--queues", f"default,{NAME}", "--concurrency", "3", "--skip-serve-logs"),
    ]
    other = {
        *("hostname", "command", "environment", "env_file", "networks", "depends_on", "profiles"),
        *("mem_limit", "pids_limit"),
    }
    assert {name: value for name, value in worker.items() if name not in other} == {
        name: value for name, value in main.items() if name not in other
    }
    limits = load(ROOT / "playbooks/group_vars/all/defaults.yml")["service_limits_default"]["airflow-worker"]
    limits |= CASES[case].get("limits", {}).get("airflow-worker", {})
    assert worker["mem_limit"] == f"{limits['memory_mib'] + 3 * limits['memory_mib_each']}m"
    assert worker["pids_limit"] == limits["pids"] + 3 * limits["pids_each"]


@every_case
def test_filter_of_docker_is_the_main_hosts(rendered: dict[str, Rendered], case: str) -> None:
    main = project(rendered[case], MAIN)["services"]["docker-socket-proxy"]
    worker = project(rendered[case])["services"]["docker-socket-proxy"]
    assert worker == {**main, "profiles": ["worker"]}


@every_case
def test_worker_has_no_more_secrets_than_a_task_needs(
    rendered: dict[str, Rendered], secrets: dict[str, str], case: str
) -> None:
    """No key of sessions, no administrator, no owner of the database.

    The platform's token is there only without one of tasks: both hosts have the same file for that.
    """
    files = {path: text for path, text in rendered[case].items() if path.startswith("worker/")}
    main = variables(rendered[case][f"{MAIN}/env/airflow.env"])
    given = variables(files[f"{WORKER}/env/worker.env"])
    assert set(given) == {
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CELERY__RESULT_BACKEND",
        "AIRFLOW__CELERY__BROKER_URL",
    }
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__CELERY__BROKER_URL"):
        assert given[name] == main[name]
    for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CELERY__RESULT_BACKEND"):
        login = "airflow_worker:value-of-worker_database_password@postgres/airflow"
        assert given[name] == re.sub(r"airflow:[^@]*@postgres/airflow", login, main[name])
    allowed = {"fernet_key", "redis_password", "worker_database_password"}
    text = "\n".join(files.values())
    assert [name for name, value in secrets.items() if value in text and name not in allowed] == []


@every_case
def test_service_gets_the_env_files_of_its_level(rendered: dict[str, Rendered], case: str) -> None:
    services = project(rendered[case])["services"]
    found = {
        name: definition["env_file"] for name, definition in services.items() if "env_file" in definition
    }
    assert found.pop("airflow-worker") == ["env/worker.env", "env/onepassword.env", "env/slack.env"]
    assert found == ({"dag-follower": ["env/follower.env"]} if "repository" in CASES[case] else {})


def test_follower_is_told_where_it_is(rendered: dict[str, Rendered]) -> None:
    """The names are those that the webhook's package and the gateway know."""
    files = rendered[REPOSITORY]
    release = variables(files[f"{MAIN}/.env"])["WORKER_RELEASE"]
    webhook = variables(files[f"{MAIN}/env/webhook.env"])
    given = variables(files[f"{WORKER}/env/follower.env"])
    assert given == {
        "DAG_TREES_DIR": "/srv/airflow/trees",
        "DAG_STATE_DIR": "/srv/airflow/delivery",
        "FOLLOW_URL": "http://follow:8090",
        "DAG_MIRROR": "git://dags/mirror.git",
        "WORKER_NAME": NAME,
        "WORKER_RELEASE": release,
        "WORKER_QUEUES": f"default,{NAME}",
        "WORKER_SLOTS": "3",
        **{name: value for name, value in webhook.items() if name.startswith(("DAG_KEEP_", "DAG_DISK_"))},
    }
    assert len(given) == 12


@every_case
def test_names_of_images_are_the_main_hosts(rendered: dict[str, Rendered], case: str) -> None:
    """Everybody may read `.env`: what is made of the administrator's password is not in it."""
    main, worker = (variables(rendered[case][f"{host}/.env"]) for host in (MAIN, WORKER))
    assert worker.items() <= main.items()
    used = set(re.findall(r"\$\{(\w+)\}", rendered[case][f"{WORKER}/docker-compose.yaml"]))
    assert used <= set(worker)
    assert set(main) - set(worker) == {
        "POSTGRES_IMAGE",
        "REDIS_IMAGE",
        "INIT_FINGERPRINT",
        "WORKER_RELEASE",
    }


@every_case
def test_nothing_but_the_tunnel_is_published_or_reaches_the_main_host(
    rendered: dict[str, Rendered], case: str
) -> None:
    found = project(rendered[case])
    services = found["services"]
    assert {name: definition["ports"] for name, definition in services.items() if "ports" in definition} == {
        "tunnel": ["8793:8793"]
    }
    assert found["networks"] == {"outside": {}, "tunnel": {"internal": True}, "logs": {"internal": True}}
    networks = {name: set(definition.get("networks", [])) for name, definition in services.items()}
    assert networks.pop("tunnel") == {"outside", "tunnel", "logs"}
    assert networks.pop("airflow-worker") == {"outside", "tunnel"}
    assert networks.pop("docker-socket-proxy") == set()
    assert networks.pop("log-server") == networks.pop("log-copy") == {"logs"}
    assert networks in ({}, {"dag-follower": {"tunnel"}})
    assert services["tunnel"]["networks"]["tunnel"] == {"aliases": ["postgres", "redis", "dags", "follow"]}


@pytest.mark.parametrize("service", ["log-server", "log-copy"])
def test_logs_are_read_only(rendered: dict[str, Rendered], service: str) -> None:
    volumes = project(rendered[USUAL])["services"][service]["volumes"]
    assert all(volume.endswith(":ro") for volume in volumes)


def test_tunnel_outlives_the_tasks(rendered: dict[str, Rendered]) -> None:
    """Compose stops in the order of what depends on what: a task that ends now can still say so."""
    services = project(rendered[REPOSITORY])["services"]
    for name in ("airflow-worker", "dag-follower"):
        assert services[name]["depends_on"]["tunnel"] == {"condition": "service_healthy"}


def unit(rendered: dict[str, Rendered], name: str, setting: str) -> list[str]:
    """Return the values of a unit's setting."""
    text = rendered[USUAL][f"worker/etc/systemd/system/{name}"]
    return re.findall(rf"(?m)^{setting}=(.*)$", text)


def test_unit_starts_what_is_there_and_stops_it_in_order(rendered: dict[str, Rendered]) -> None:
    compose = "/usr/bin/docker compose --project-directory=/srv/airflow --profile=worker"
    name = "airflow-worker.service"
    start = [f"{compose} up --detach --no-recreate --no-build --pull=never"]
    assert unit(rendered, name, "ExecStart") == unit(rendered, name, "ExecReload") == start
    # By the first the checker tells a shutdown from a power cut; where it fails, the worker is stopped, too.
    assert unit(rendered, name, "ExecStop") == [f"-/usr/bin/touch /srv/airflow/{STOPPING}", f"{compose} stop"]
    assert unit(rendered, name, "ReadWritePaths") == [f"-/srv/airflow/{Path(STOPPING).parent}"]
    assert unit(rendered, name, "RemainAfterExit") == ["true"]
    assert unit(rendered, name, "TimeoutStopSec") == ["infinity"]
    assert unit(rendered, name, "PrivateTmp") == []
    assert unit(rendered, name, "(?:Requires|Requisite|BindsTo|PartOf)") == []
    [command] = unit(rendered, "docker.service.d/airflow-worker.conf", "ExecStartPost")
    assert command == f"-/usr/bin/systemctl --no-block reload {name}"


# --- The name of a release

OF_WORKERS = ("fernet_key", "redis_password", "worker_database_password")
"""The secrets that a worker host has, of those that are the platform's own."""


def test_release_has_another_name_once_a_worker_hosts_secrets_are_others(tmp_path: Path) -> None:
    """Else the gateway would let in, after a rotation, a worker that stores what nobody else can read."""
    names = (*OF_WORKERS, "postgres_password", "webserver_secret_key")
    earlier = {name: f"earlier {name}" for name in names}
    rotated = {name: {**earlier, name: f"new {name}"} for name in names} | {"none": earlier}
    hosts = {name: {"ansible_connection": "local", "stack_secrets": given} for name, given in rotated.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    say = {"msg": "{{ inventory_hostname }} is {{ __stack_worker_release }}."}
    play = {
        "name": "Name the release",
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROOT / "roles/stack/vars/main.yml")],
        "tasks": [
            {
                "name": "Say it",
                "ansible.builtin.debug": say,
                "vars": {
                    "__stack_images": {"airflow": "airflow-platform/airflow:2.11.2-d444"},
                    "stack_workers": [{"name": NAME}],
                },
            }
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run = ansible("ansible-playbook", f"--inventory={tmp_path}/hosts.yml", str(tmp_path / "play.yml"))
    assert run.returncode == 0, said(run)
    found = dict(re.findall(r"(\w+) is (2-11-2-d444[a-z0-9-]*)[.]", run.stdout))
    assert {name for name in names if found[name] != found["none"]} == set(OF_WORKERS)
    assert len(set(found.values())) == len(OF_WORKERS) + 1
    # A part of a name of DNS has 63 characters at most.
    assert all(len(f"postgres-{name}") <= 63 for name in found.values())


# --- The tunnel

AUTHORITY = "authority"
SNI = re.compile(r"sni str\(([^)]*)\)")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)


def authority(folder: Path, name: str = AUTHORITY) -> None:
    """Make an authority's key and certificate."""
    openssl(
        folder,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )


def certificate(folder: Path, file: str, name: str, alternatives: str, issuer: str = AUTHORITY) -> Path:
    """Make a key and a certificate of the authority, in one file."""
    (folder / "extensions").write_text(f"subjectAltName={alternatives}\n")
    openssl(
        folder,
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", f"{file}.key", "-out", f"{file}.csr"),
    )
    openssl(
        folder,
        *(
            "x509",
            "-req",
            "-in",
            f"{file}.csr",
            "-CA",
            f"{issuer}.pem",
            "-CAkey",
            f"{issuer}.key",
            "-days",
            "1",
        ),
        *("-CAcreateserial", "-extfile", "extensions", "-out", f"{file}.crt"),
    )
    path = folder / f"{file}.pem"
    path.write_text((folder / f"{file}.key").read_text() + (folder / f"{file}.crt").read_text())
    return path


def wait_for(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)  # another process' start; it cannot call us


def opens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


class Answering(threading.Thread):
    """A server on this machine that says its name and whom TLS asked for, one connection after the other.

    Attributes:
        asked: the names that connections gave, in the order of connections; None for a plain one.
    """

    def __init__(self, name: str, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(daemon=True)
        self.asked: list[str | None] = []
        self._name, self._context = name, context
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        if context:
            context.sni_callback = lambda _, asked, __: self.asked.append(asked)
        self.start()

    def run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            try:
                with connection:
                    connection.settimeout(20)
                    if self._context:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    with connection:
                        connection.sendall(self._name.encode())
            except OSError:
                continue


def heard(connection: socket.socket) -> str:
    """Return what the other side says until it closes; "" if it closes without a word."""
    try:
        with connection:
            connection.settimeout(20)
            return b"".join(iter(lambda: connection.recv(1000), b"")).decode()
    except OSError:
        return ""


class Tunnel:
    """A worker's HAProxy, and the ports of this machine that stand for those of its containers."""

    def __init__(self, text: str, folder: Path, gateway: int) -> None:
        """Start it.

        Args:
            text: the worker's haproxy.cfg.
            folder: with worker.pem and authority.pem.
            gateway: the port that stands for the main host's.
        """
        services = re.findall(r"(?m)^listen (\w+)$", text)
        self.ports = {name: free_port() for name in [*services, "logs"]}
        self.names = dict(zip(services, SNI.findall(text), strict=True))
        for name, port in self.ports.items():
            text = re.sub(rf"(?m)(^(?:listen|frontend) {name}\n  bind )\S+", rf"\g<1>127.0.0.1:{port}", text)
        self.log_server, self.log_copy = Answering("logs"), Answering("copies")
        for server, port in (
            ("main.example.org:8443", gateway),
            ("log-server:8080", self.log_server.port),
            ("log-copy:8730", self.log_copy.port),
        ):
            assert server in text
            text = text.replace(server, f"127.0.0.1:{port}")
        # 127.0.0.1 is no name to ask Docker for.
        text = text.replace(" init-addr none", "").replace("127.0.0.1:8404", f"127.0.0.1:{free_port()}")
        text = text.replace(" resolvers docker", "").replace("/usr/local/etc/haproxy", str(folder))
        (folder / "haproxy.cfg").write_text(text)
        with (folder / "log").open("w") as log:
            command = [HAPROXY, "-W", "-db", "-f", str(folder / "haproxy.cfg")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for("the tunnel", lambda: opens(self.ports["redis"]) or self._process.poll() is not None)
            assert self._process.poll() is None, (folder / "log").read_text()
        except BaseException:
            self.stop()
            raise

    def ask(self, service: str) -> str:
        """Connect to a service as a task does, and return what it says."""
        return heard(socket.create_connection(("127.0.0.1", self.ports[service]), 20))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's and the worker's certificates, as the platform issues them, and such as it does not."""
    folder = tmp_path_factory.mktemp("keys")
    authority(folder)
    authority(folder, "stranger")
    own = "DNS:{0}.hosts.airflow.internal,DNS:{0}-copy.hosts.airflow.internal"
    certificate(folder, "worker", NAME, own.format(NAME))
    certificate(folder, "other-worker", "atd-worker02", own.format("atd-worker02"))
    services = "DNS:*.workers.airflow.internal"
    certificate(folder, "gateway", "gateway", services)
    certificate(folder, "stranger-gateway", "gateway", services, issuer="stranger")
    return folder


def server_context(keys: Path, file: str) -> ssl.SSLContext:
    """Return what the main host's side has: a certificate, and the wish for one of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / f"{file}.pem")
    context.load_verify_locations(keys / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="module")
def start(rendered: dict[str, Rendered], keys: Path) -> Iterator[Callable[[int], Tunnel]]:
    """Start a tunnel to a port of this machine; it ends with the tests."""
    tunnels: list[Tunnel] = []

    def begin(gateway: int) -> Tunnel:
        tunnels.append(Tunnel(rendered[USUAL][f"{WORKER}/tunnel/haproxy.cfg"], keys, gateway))
        return tunnels[-1]

    yield begin
    for tunnel in tunnels:
        tunnel.stop()


needs_haproxy = needs("haproxy", "openssl")
SERVICE_NAMES = ("postgres", "redis", "dags", "follow")


@needs_haproxy
def test_tunnel_asks_the_gateway_for_a_service_of_this_release(
    rendered: dict[str, Rendered], keys: Path, start: Callable[[int], Tunnel]
) -> None:
    """With the worker's certificate, which the gateway asks for."""
    gateway = Answering("the gateway", server_context(keys, "gateway"))
    tunnel = start(gateway.port)
    release = variables(rendered[USUAL][f"{MAIN}/.env"])["WORKER_RELEASE"]
    for service in SERVICE_NAMES:
        assert tunnel.ask(service) == "the gateway"
        assert gateway.asked[-1] == f"{service}-{release}.workers.airflow.internal"


@needs_haproxy
@pytest.mark.parametrize("file", ["other-worker", "worker", "stranger-gateway"])
def test_tunnel_speaks_to_nobody_but_the_gateway(
    keys: Path, start: Callable[[int], Tunnel], file: str
) -> None:
    """Neither to another worker, whose authority is the same, nor to another authority's gateway."""
    impostor = Answering("an impostor", server_context(keys, file))
    tunnel = start(impostor.port)
    for service in SERVICE_NAMES:
        assert tunnel.ask(service) == ""
    assert impostor.asked


@needs_haproxy
def test_tunnel_speaks_to_nobody_without_tls(start: Callable[[int], Tunnel]) -> None:
    """Whoever takes the main host's address gets no password: that would be the first that Redis is told."""
    plain = Answering("a plain server")
    assert start(plain.port).ask("redis") == ""


def ask_for_logs(tunnel: Tunnel, keys: Path, file: str, name: str) -> str:
    """Ask a worker's port as the main host does."""
    context = ssl.create_default_context(cafile=str(keys / "authority.pem"))
    if file:
        context.load_cert_chain(keys / f"{file}.pem")
    plain = socket.create_connection(("127.0.0.1", tunnel.ports["logs"]), 20)
    try:
        return heard(context.wrap_socket(plain, server_hostname=name))
    except OSError:
        plain.close()
        return ""


@pytest.fixture(scope="module")
def tunnel(start: Callable[[int], Tunnel]) -> Tunnel:
    """One whose gateway is away."""
    return start(free_port())


@needs_haproxy
def test_gateway_reaches_logs_by_name(tunnel: Tunnel, keys: Path) -> None:
    assert ask_for_logs(tunnel, keys, "gateway", f"{NAME}.hosts.airflow.internal") == "logs"
    assert ask_for_logs(tunnel, keys, "gateway", f"{NAME}-copy.hosts.airflow.internal") == "copies"


@needs_haproxy
@pytest.mark.parametrize("file", ["", "other-worker", "worker", "stranger-gateway"])
def test_nobody_else_reaches_logs(tunnel: Tunnel, keys: Path, file: str) -> None:
    assert ask_for_logs(tunnel, keys, file, f"{NAME}.hosts.airflow.internal") == ""


@needs_haproxy
def test_port_of_logs_answers_to_nothing_plain(tunnel: Tunnel) -> None:
    connection = socket.create_connection(("127.0.0.1", tunnel.ports["logs"]), 20)
    connection.sendall(b"GET /log/any HTTP/1.0\r\nHost: atd-worker01\r\n\r\n")
    assert heard(connection) == ""


@needs_haproxy
def test_service_is_away_while_the_gateway_is(tunnel: Tunnel) -> None:
    """At once, and not after minutes: Celery and libpq then try again."""
    started = time.monotonic()
    assert tunnel.ask("postgres") == ""
    assert time.monotonic() - started < 15


# --- Images, and what a run says

IMAGES = {"airflow:1-a": "sha256:1", "haproxy:2": "sha256:2", "policy:1": "sha256:3", "nginx:1": "sha256:4"}
IMAGES |= {"webhook:1": "sha256:5", "annotate:1": "sha256:6"}
SETTINGS = dict(
    zip(["AIRFLOW", "HAPROXY", "DOCKER_POLICY", "WEATHER", "WEBHOOK"], list(IMAGES)[:5], strict=True)
)

MODULE = """
import json, os
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({argument: {"type": "raw"} for argument in ("name", "names", "path")})
host = Path(os.environ["FAKE_DOCKER"])
images = json.loads((host / "images.json").read_text())
given = module.params
"""
MODULES = {
    "docker_image_info": """
there = [{"Id": images[name], "RepoTags": [name]} for name in given["name"] if name in images]
module.exit_json(changed=False, images=there)
""",
    "docker_image_export": """
Path(given["path"]).write_text(json.dumps({name: images[name] for name in given["names"]}))
(host / "exported").write_text(json.dumps(given["names"]))
module.exit_json(changed=True)
""",
    "docker_image_load": """
archive = json.loads(Path(given["path"]).read_text())
if (host / "other-store").exists():
    archive = {name: "sha256:of-another-store" for name in archive}
(host / "images.json").write_text(json.dumps(images | archive))
(host / "loaded").write_text(json.dumps(sorted(archive)))
module.exit_json(changed=True)
""",
}
"""Stand-ins for the modules of community.docker, with a folder for a host's Docker."""


class Hosts:
    """A main host and two workers on this machine, and their Dockers."""

    def __init__(self, folder: Path, workers: dict[str, dict[str, str]]) -> None:
        """Give each host its images, by name and id."""
        self._folder = folder
        modules = folder / "collections/ansible_collections/community/docker/plugins/modules"
        modules.mkdir(parents=True)
        for name, text in MODULES.items():
            (modules / f"{name}.py").write_text(MODULE + text)
        self.inventory: dict[str, Any] = {"airflow": {"hosts": {}}, "airflow_workers": {"hosts": {}}}
        for name, images in {"main": IMAGES, **workers}.items():
            self.place(name).mkdir()
            (self.place(name) / "images.json").write_text(json.dumps(images))
            interpreter = self.place(name) / "python"
            interpreter.write_text(f'#!/bin/sh\nFAKE_DOCKER={self.place(name)} exec {sys.executable} "$@"\n')
            interpreter.chmod(0o755)
            group = "airflow" if name == "main" else "airflow_workers"
            self.inventory[group]["hosts"][name] = {
                "ansible_connection": "local",
                "ansible_become": False,
                "ansible_python_interpreter": str(interpreter),
            }

    def place(self, name: str) -> Path:
        return self._folder / name

    def has(self, name: str, what: str) -> Any:
        """Return what a host's Docker has noted; None for nothing."""
        path = self.place(name) / what
        return json.loads(path.read_text()) if path.exists() else None

    def hand_over(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the role's tasks for images on the workers."""
        compose = {
            "services": {
                "airflow-worker": {"environment": {"AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE": "annotate:1"}}
            }
        }
        settings = "".join(f"{name}_IMAGE={image}\n" for name, image in SETTINGS.items())
        files = {"docker-compose.yaml": json.dumps(compose), ".env": settings}
        role = {"name": "worker", "tasks_from": "images"}
        play = {
            "name": "Hand images over",
            "hosts": "airflow_workers",
            "gather_facts": False,
            "vars": {"worker_main_host": "main", "__worker_main_files": files},
            "tasks": [
                {
                    "name": "Run the tasks",
                    "ansible.builtin.include_role": role,
                    # What the role reads of the main host; its own variables would win over the play's.
                    "vars": {"__worker_main_files": files},
                }
            ],
        }
        (self._folder / "play.yml").write_text(yaml.safe_dump([play]))
        (self._folder / "hosts.yml").write_text(yaml.safe_dump(self.inventory))
        return ansible(
            "ansible-playbook",
            f"--inventory={self._folder}/hosts.yml",
            str(self._folder / "play.yml"),
            *options,
            environment={"ANSIBLE_COLLECTIONS_PATH": str(self._folder / "collections")},
        )


def archives() -> set[Path]:
    """Return what a hand-over that goes wrong could leave on this machine, which is all three."""
    return set(Path("/var/tmp").glob("airflow-images-*"))


def test_image_is_known_by_its_id_and_not_by_its_name() -> None:
    images: list[dict[str, Any]] = [
        {"Id": "sha256:1", "RepoTags": ["a:1", "a:latest"]},
        {"Id": "sha256:2", "RepoTags": None},
        {"Id": "sha256:3", "RepoTags": ["c:1"]},
    ]
    assert image_ids(images, ["a:1", "b:1"]) == {"a:1": "sha256:1"}
    assert image_ids([], ["a:1"]) == {}


def test_nothing_is_sent_to_workers_that_have_all(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, {"one": IMAGES})
    run = hosts.hand_over()
    assert run.returncode == 0, run.stdout + run.stderr
    assert "changed=0" in run.stdout
    assert hosts.has("main", "exported") is hosts.has("one", "loaded") is None


def test_one_archive_serves_all_workers(tmp_path: Path) -> None:
    """Each gets what it lacks or has another of; the one that has all gets nothing."""
    before = archives()
    lacking = {name: image for name, image in IMAGES.items() if name != "haproxy:2"}
    hosts = Hosts(
        tmp_path, {"one": {**IMAGES, "airflow:1-a": "sha256:other"}, "two": lacking, "three": IMAGES}
    )
    run = hosts.hand_over()
    assert run.returncode == 0, run.stdout + run.stderr
    assert hosts.has("main", "exported") == ["airflow:1-a", "haproxy:2"]
    assert hosts.has("one", "images.json") == hosts.has("two", "images.json") == IMAGES
    assert hosts.has("three", "loaded") is None
    assert archives() == before


def test_worker_whose_docker_stores_images_in_another_way_is_refused(tmp_path: Path) -> None:
    """Another id would be sent at each run, and nobody could say that both hosts have the same."""
    before = archives()
    hosts = Hosts(tmp_path, {"one": {}})
    (hosts.place("one") / "other-store").touch()
    run = hosts.hand_over()
    assert run.returncode != 0
    assert "one got airflow:1-a" in said(run)
    assert "from main, and has another id for it" in said(run)
    assert "{{.ServerVersion}}" in said(run)
    assert archives() == before


def test_worker_that_does_not_follow_says_what_to_run(tmp_path: Path) -> None:
    """The main host's part is over by then, and stays."""
    hosts = Hosts(tmp_path, {"one": {}})
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts.inventory))
    run = ansible("ansible-playbook", f"--inventory={tmp_path}/hosts.yml", "playbooks/workers.yml")
    assert run.returncode != 0
    assert "one did not follow main: this run has fetched no secrets for main" in said(run)
    assert "main is not affected: what this run did there stays done." in said(run)
    assert "then run: ansible-playbook site.yml" in said(run)


@pytest.mark.parametrize(
    ("limit", "left"), [("main", "one, two"), ("main,one", "two"), ("two", ""), ("all", "")]
)
def test_worker_that_a_run_leaves_out_is_named(tmp_path: Path, limit: str, left: str) -> None:
    """Else the run is green, and the worker runs no task from then on if the release is another one."""
    hosts = Hosts(tmp_path, {"one": {}, "two": {}})
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts.inventory))
    text = load(ROOT / "playbooks/workers.yml")
    # That workers follow is for other tests.
    text[0]["tasks"] = []
    (tmp_path / "play.yml").write_text(yaml.safe_dump(text, sort_keys=False))
    (tmp_path / "group_vars").symlink_to(ROOT / "playbooks/group_vars")
    run = ansible(
        "ansible-playbook",
        f"--inventory={tmp_path}/hosts.yml",
        f"--limit={limit}",
        str(tmp_path / "play.yml"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = re.findall(r"WARNING: with this --limit (.*?) did not follow main[.]", said(run))
    assert found == ([left] if left else [])


def test_platform_without_workers_hears_nothing_of_them(tmp_path: Path) -> None:
    """No warning, and no error, of a group that there is not."""
    hosts = Hosts(tmp_path, {})
    del hosts.inventory["airflow_workers"]
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts.inventory))
    run = ansible("ansible-playbook", f"--inventory={tmp_path}/hosts.yml", "playbooks/workers.yml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "skipping: no hosts matched" in run.stdout


@pytest.mark.parametrize("playbook", ["site", "upgrade", "rollback", "restore", "rotate"])
def test_command_ends_with_the_workers(playbook: str) -> None:
    *_, last = load(ROOT / f"playbooks/{playbook}.yml")
    assert last["import_playbook"] == "workers.yml"
