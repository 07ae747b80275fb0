"""The gateway for worker hosts: a real HAProxy with its own configuration, between callers and servers."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.missing import needs
from tests.policy.conftest import ROOT
from tests.webhook.front import HAPROXY
from tests.webhook.network import free_port

pytestmark = needs("haproxy")

TEMPLATE = ROOT / "templates/srv/airflow/worker-gateway/haproxy.cfg.j2"
RELEASE, EARLIER = "2-11-2-d444c6765d29", "2-10-5-1f2e3d4c5b6a"
PATIENCE = 30.0


class Authority:
    """Signs certificates as the role worker_certificates has them signed."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("Airflow worker hosts", [], self.key, ca=True)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, file: Path, name: str, *alternatives: str) -> str:
        """Write a key and its certificate; return the certificate's fingerprint."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._sign(name, list(alternatives), key)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + issued.public_bytes(Encoding.PEM))
        return sha256(issued.public_bytes(Encoding.DER)).hexdigest()

    def _sign(
        self, name: str, alternatives: list[str], key: ec.EllipticCurvePrivateKey, ca: bool = False
    ) -> x509.Certificate:
        subject, authority = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
            for common in (name, "Airflow worker hosts")
        )
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        )
        if alternatives:
            names = [x509.DNSName(alternative) for alternative in alternatives]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Asked(BaseHTTPRequestHandler):
    """Answers with what it was asked, and who is said to have asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = ",".join(self.headers.get_all("X-Worker", []))
        text = f"{self.server.name} {self.path} {said}".encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def echo(name: str) -> int:
    """Serve a greeting, then whatever is sent, on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(name.encode() + b"\n")
            while data := connection.recv(1000):
                connection.sendall(data)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


class OnSocket(ThreadingHTTPServer):
    """Serves HTTP on a Unix socket."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        return connection, ("the socket", 0)


def web(name: str, context: ssl.SSLContext | None = None, path: Path | None = None) -> ThreadingHTTPServer:
    """Serve `Asked` on a port of its own or on a Unix socket, over TLS if there is a context."""
    server = OnSocket(str(path), Asked) if path else ThreadingHTTPServer(("127.0.0.1", 0), Asked)  # type: ignore[arg-type]
    server.name = name  # type: ignore[attr-defined]
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def wait_for(what: str, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(0.02)  # another process' doing; it cannot call us


class Gateway:
    """HAProxy as the stack runs it, with two worker hosts, and those who call it."""

    def __init__(self, folder: Path, is_admitting: bool = False) -> None:
        self.folder = folder
        self.is_admitting = is_admitting  # the webhook lets worker hosts take tasks
        web("webhook", path=folder / "follow.sock")
        self.authority = Authority()
        (folder / "authority.pem").write_text(self.authority.pem)
        self.authority.issue(folder / "gateway.pem", "gateway", "*.workers.airflow.internal")
        self.lines = {
            name: f"{self.authority.issue(folder / f'{name}.pem', name, *self.names(name))} {name}\n"
            for name in ("one", "two")
        }
        self.allow("one", "two")
        self.contexts = {name: self.server_context(name) for name in ("one", "two")}
        self.logs = {name: web(f"logs of {name}", context) for name, context in self.contexts.items()}
        self.ports = {name: free_port() for name in ("workers", "logs", "health", "copy_one", "copy_two")}
        (folder / "haproxy.cfg").write_text(self.configuration())
        with (folder / "log").open("w") as log:
            command = [HAPROXY, "-W", "-db", "-f", str(folder / "haproxy.cfg")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for("HAProxy's start", self.answers)

    @staticmethod
    def names(worker: str) -> list[str]:
        return [f"{worker}.hosts.airflow.internal", f"{worker}-copy.hosts.airflow.internal"]

    def allow(self, *workers: str) -> None:
        """Write the map."""
        (self.folder / "workers.map").write_text("".join(self.lines[name] for name in workers))

    def configuration(self) -> str:
        """Return the configuration with the ports of this machine in it."""
        environment = jinja2.Environment(
            trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
        )
        environment.filters["comment"] = lambda text: f"# {text}"
        workers = [
            {"name": name, "address": "127.0.0.1", "log_port": server.server_port}
            for name, server in self.logs.items()
        ]
        text = environment.from_string(TEMPLATE.read_text()).render(
            ansible_managed="a test",
            stack_worker_port=self.ports["workers"],
            stack_workers=workers,
            stack_workers_are_admitted=self.is_admitting,
            __stack_worker_release=RELEASE,
            __stack_copy_port=self.ports["copy_one"] - 1,
        )
        self.ports["copy_two"] = self.ports["copy_one"] + 1
        servers = {
            "postgres:5432": echo("postgres"),
            "redis:6379": echo("redis"),
            "dag-mirror:9418": echo("dags"),
        }
        for name, port in servers.items():
            assert f"server main {name} resolvers docker init-addr none" in text
            text = text.replace(
                f"server main {name} resolvers docker init-addr none", f"server main 127.0.0.1:{port}"
            )
        text = text.replace("bind :8793", f"bind :{self.ports['logs']}").replace("bind :", "bind 127.0.0.1:")
        text = text.replace("127.0.0.1:8404", f"127.0.0.1:{self.ports['health']}")
        text = text.replace("/usr/local/etc/haproxy", str(self.folder))
        return text.replace("/run/gateway", str(self.folder))

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError):
            return self.get("health", "/healthz", "health")[0] == 200
        return False

    def server_context(self, worker: str) -> ssl.SSLContext:
        """Return what a worker host has for those who call it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{worker}.pem")
        context.load_verify_locations(self.folder / "authority.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def call(self, service: str, certificate: str = "one", release: str = RELEASE) -> ssl.SSLSocket:
        """Connect as the tunnel of a worker host, which checks the gateway's name; "" is no certificate."""
        context = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        if certificate:
            context.load_cert_chain(self.folder / f"{certificate}.pem")
        plain = socket.create_connection(("127.0.0.1", self.ports["workers"]), PATIENCE)
        return context.wrap_socket(plain, server_hostname=f"{service}-{release}.workers.airflow.internal")

    def greeting(self, service: str, **given: str) -> str:
        """Return what the server behind says first, "" if the connection ends before it."""
        try:
            with self.call(service, **given) as connection:
                return connection.recv(100).decode().strip()
        except (ssl.SSLError, ConnectionError):
            return ""

    def get(self, port: str, path: str, host: str, method: str = "GET") -> tuple[int, str]:
        """Ask by plain HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def order(self, command: str) -> str:
        """Speak to the admin socket, as the webhook does."""
        with socket.socket(socket.AF_UNIX) as speaker:
            speaker.settimeout(PATIENCE)
            speaker.connect(str(self.folder / "admin.sock"))
            speaker.sendall(command.encode() + b"\n")
            return speaker.makefile().read()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        yield gateway
    finally:
        gateway.process.terminate()
        gateway.process.wait()


def lives(connection: socket.socket) -> bool:
    """Say whether what is sent comes back."""
    try:
        connection.sendall(b"?")
        return connection.recv(10) == b"?"
    except OSError:
        return False


@pytest.mark.parametrize("worker", ["one", "two"])
@pytest.mark.parametrize("service", ["postgres", "redis", "dags"])
def test_worker_host_reaches_each_service(gateway: Gateway, worker: str, service: str) -> None:
    assert gateway.greeting(service, certificate=worker) == service


@pytest.mark.parametrize("service", ["postgres", "redis", "dags", "follow"])
def test_whoever_is_not_known_reaches_nothing(gateway: Gateway, service: str) -> None:
    """Nor does one with a known name of another authority, or one whose certificate is in no map."""
    Authority().issue(gateway.folder / "stranger.pem", "one", *gateway.names("one"))
    gateway.authority.issue(gateway.folder / "unknown.pem", "one", *gateway.names("one"))
    for certificate in ("stranger", "unknown", "gateway", ""):
        assert gateway.greeting(service, certificate=certificate) == ""


@pytest.mark.parametrize("service", ["postgres", "redis", "dags", "follow"])
def test_release_that_does_not_run_reaches_nothing(gateway: Gateway, service: str) -> None:
    """A worker host that was away in a switch must neither write a row nor take a message."""
    assert gateway.greeting(service, release=EARLIER) == ""


@pytest.mark.parametrize("service", ["logs", "postgres_one", "health"])
def test_name_of_something_else_reaches_nothing(gateway: Gateway, service: str) -> None:
    assert gateway.greeting(service) == ""


def test_plain_text_reaches_nothing(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.ports["workers"]), PATIENCE) as plain:
        plain.sendall(b"PING\r\n" * 20)
        with contextlib.suppress(ConnectionError):
            assert b"redis" not in plain.recv(100)


def test_caller_without_a_word_is_dropped(gateway: Gateway) -> None:
    """Anybody reaches the port: only who has a certificate may stay."""
    with socket.create_connection(("127.0.0.1", gateway.ports["workers"]), PATIENCE) as plain:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert plain.recv(1) == b""
        assert time.monotonic() - began < PATIENCE / 2


def test_connection_stays_for_longer_than_a_handshake_may_take(gateway: Gateway) -> None:
    """A task is silent towards the database for hours; 24 days are the most that HAProxy takes."""
    assert re.search(r"^  timeout tunnel 24d$", TEMPLATE.read_text(), re.MULTILINE)
    with gateway.call("postgres") as connection:
        assert connection.recv(100) == b"postgres\n"
        connection.settimeout(12)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE)
        assert lives(connection)


def test_webhook_learns_who_asks_and_nobody_can_say_otherwise(gateway: Gateway) -> None:
    """In each request of a connection."""
    with gateway.call("follow", certificate="two") as connection:
        reader = connection.makefile("rb")
        for number in range(3):
            request = f"GET /{number} HTTP/1.1\r\nHost: follow\r\nX-Worker: one\r\nx-worker: one\r\n\r\n"
            connection.sendall(request.encode())
            head = b"".join(iter(reader.readline, b"\r\n"))
            [length] = re.findall(rb"content-length: (\d+)", head.lower())
            assert reader.read(int(length)) == f"webhook /{number} two".encode()


def test_worker_host_takes_no_message_until_the_webhook_lets_it(tmp_path: Path) -> None:
    """After each start: the gateway does not know which commit is live."""
    gateway = Gateway(tmp_path, is_admitting=True)
    try:
        assert gateway.greeting("redis") == ""
        assert gateway.greeting("postgres") == "postgres"
        assert gateway.order("enable server redis_one/main").strip() == ""
        assert gateway.greeting("redis") == "redis"
        assert gateway.greeting("redis", certificate="two") == ""
    finally:
        gateway.process.terminate()
        gateway.process.wait()


def test_worker_host_that_is_fenced_takes_no_message(gateway: Gateway) -> None:
    """At once; the database and its other services stay, so that its tasks end."""
    with (
        gateway.call("redis") as fenced,
        gateway.call("redis", "two") as other,
        gateway.call("postgres") as database,
    ):
        for connection in (fenced, other, database):
            connection.recv(100)
            assert lives(connection)
        gateway.order("disable server redis_one/main; shutdown sessions server redis_one/main")
        wait_for("the end of the connection", lambda: not lives(fenced))
        assert lives(other)
        assert lives(database)
        assert gateway.greeting("redis") == ""
        assert gateway.greeting("postgres") == "postgres"
        gateway.order("enable server redis_one/main")
        assert gateway.greeting("redis") == "redis"


def test_line_that_is_removed_shuts_out(gateway: Gateway) -> None:
    """By a reload, which a person may ask for; what the process before it served ends soon, too."""
    with gateway.call("redis", "two") as revoked:
        assert revoked.recv(100) == b"redis\n"
        gateway.allow("one")
        try:
            os.kill(gateway.process.pid, signal.SIGHUP)
            wait_for("the end of the connection", lambda: not lives(revoked))
            wait_for("the new process", lambda: gateway.greeting("redis") == "redis")
            assert gateway.greeting("redis", certificate="two") == ""
        finally:
            gateway.allow("one", "two")
            os.kill(gateway.process.pid, signal.SIGHUP)
    wait_for("the line's return", lambda: gateway.greeting("redis", certificate="two") == "redis")


@pytest.mark.parametrize("worker", ["one", "two"])
def test_logs_come_from_the_host_that_is_asked_for(gateway: Gateway, worker: str) -> None:
    """Over TLS, with the gateway's certificate: the worker host lets nobody else in."""
    path = "/log/dag_id=a/attempt=1.log"
    assert gateway.get("logs", path, f"{worker}:8793") == (200, f"logs of {worker} {path} ")
    assert gateway.get("logs", path, worker.upper())[0] == 200


def test_logs_of_an_unknown_host_are_refused(gateway: Gateway) -> None:
    assert gateway.get("logs", "/log/a", "three:8793")[0] == 404


def test_nothing_but_logs_is_read(gateway: Gateway) -> None:
    assert gateway.get("logs", "/", "one")[0] == 404
    assert gateway.get("logs", "/log/a", "one", "POST")[0] == 405


def test_worker_host_with_the_certificate_of_another_is_not_believed(gateway: Gateway) -> None:
    """One that was taken over could else pretend to have another's logs, or resume a TLS session."""
    often = range(10)  # so that each thread of HAProxy has had a session
    for _ in often:
        assert gateway.get("logs", "/log/a", "one")[0] == 200
        assert gateway.get("copy_one", "/log", "any")[0] == 200
    gateway.contexts["one"].load_cert_chain(gateway.folder / "two.pem")
    try:
        for _ in often:
            assert gateway.get("logs", "/log/a", "one")[0] == 503
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                gateway.get("copy_one", "/log", "any")
    finally:
        gateway.contexts["one"].load_cert_chain(gateway.folder / "one.pem")
    assert gateway.get("logs", "/log/a", "one")[0] == 200


def test_each_worker_host_has_a_port_for_copies(gateway: Gateway) -> None:
    for worker in ("one", "two"):
        assert gateway.get(f"copy_{worker}", "/log", "any") == (200, f"logs of {worker} /log ")


def test_socket_of_the_webhook_is_closed_to_others(gateway: Gateway) -> None:
    assert (gateway.folder / "admin.sock").stat().st_mode & 0o777 == 0o660
