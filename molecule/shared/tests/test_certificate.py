"""A certificate is replaced by dropping a file: checked, served without a dropped connection, or refused.

The platform under test has no certificate. What is dropped there is refused, which the unit, its log and the
status page have to say. The replacement is shown on a second Compose project, whose HAProxy has the
configuration of the platform with TLS; the command is the one that the unit runs.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import wait_for
from expected import DIRECTORY
from test_tls import NAMES, SETTINGS, UNKNOWN, configuration
from testinfra.host import Host

from tests.certificates import certificate

DROPPED = f"{DIRECTORY}/certificate/new.pem"
ALL = [*NAMES.values(), UNKNOWN]
PORT = 18443
LIGHT = "certificate-refused"


def put(host: Host, path: str, text: str) -> None:
    """Write a file on the host and give it its name when it is complete."""
    encoded = base64.b64encode(text.encode()).decode()
    host.check_output(f"echo {encoded} | base64 --decode > {path}.part && mv {path}.part {path}")


def refusals(host: Host) -> list[str]:
    """Return what the checker reports of a dropped certificate, now."""
    host.check_output("systemctl start airflow-checker.service")
    document = json.loads(host.file(f"{DIRECTORY}/status/health.json").content_string)
    return [one["what"] for one in document["findings"] if one["id"] == LIGHT]


@pytest.fixture
def _nothing_stays(host: Host) -> Iterator[None]:
    """Remove what a test has dropped, and its refusal."""
    yield
    host.check_output(f"rm --force {DROPPED} && systemctl start airflow-certificate.service")


@pytest.mark.usefixtures("_nothing_stays")
def test_file_that_cannot_be_served_is_refused_and_told(host: Host) -> None:
    """By the unit that watches the place; the journal and the checker have the reason, and nobody a key."""
    assert host.service("airflow-certificate.path").is_running
    assert host.service("airflow-certificate.path").is_enabled
    text = certificate(ALL)
    put(host, DROPPED, text)
    failed = "systemctl is-failed airflow-certificate.service"
    wait_for("the unit to refuse the file", lambda: host.run(failed).rc == 0, 60)
    log = host.check_output("journalctl --unit airflow-certificate --lines 20 --no-pager")
    assert "this platform has no TLS" in log
    assert text.splitlines()[-3] not in log
    [told] = refusals(host)
    assert "this platform has no TLS" in told
    assert host.file(DROPPED).exists
    host.check_output(f"rm {DROPPED}")
    wait_for("the refusal to be over", lambda: refusals(host) == [], 60)


@pytest.fixture(scope="module")
def project(host: Host, containers: dict[str, Any]) -> Iterator[str]:
    """A directory with a Compose project: HAProxy with a certificate, on a port of the host."""
    directory = host.check_output("mktemp --directory")
    service = {
        "image": containers["haproxy"]["Config"]["Image"],
        "command": ["haproxy", "-W", "-db", "-f", f"{SETTINGS}/haproxy.cfg"],
        "ports": [f"127.0.0.1:{PORT}:443"],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "volumes": [f"./haproxy:{SETTINGS}:ro"],
    }
    settings = {"keep_days": 7, "keep_count": 1, "remote": "", "fernet_key": {}, "hostnames": ALL}
    try:
        host.check_output(
            f"cd {directory} && mkdir certificate haproxy releases status && chmod 755 . haproxy"
        )
        host.check_output(f"cp {DIRECTORY}/haproxy/maintenance.html {directory}/haproxy")
        put(host, f"{directory}/haproxy/haproxy.cfg", configuration())
        put(host, f"{directory}/haproxy/certificate.pem", certificate(ALL))
        host.check_output(f"cd {directory}/haproxy && chown 99 certificate.pem && chmod 440 certificate.pem")
        compose = {"name": "certificate-test", "services": {"haproxy": service}}
        put(host, f"{directory}/docker-compose.yaml", json.dumps(compose))
        put(host, f"{directory}/settings.json", json.dumps(settings))
        host.check_output(f"docker compose --project-directory {directory} up --detach")
        wait_for("HAProxy to answer", lambda: served(host), 60)
        yield directory
    finally:
        host.run(f"docker compose --project-directory {directory} down --timeout 1; rm -r {directory}")


def served(host: Host) -> str:
    """Return the certificate that `openssl s_client` is shown, "" if nothing answers."""
    command = f"openssl s_client -connect 127.0.0.1:{PORT} -servername {UNKNOWN} </dev/null"
    result = host.run(f"{command} 2>/dev/null | openssl x509")
    return str(result.stdout).strip() if result.rc == 0 else ""


def first(pem: str) -> str:
    """Return the certificate of a file with its key, as openssl prints it."""
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem.partition("-----BEGIN PRIVATE")[0])).strip()


RENEW = """
import socket, ssl, subprocess, sys
port, name, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname=name)
# HAProxy waits for the rest of the body while it is reloaded.
connection.sendall(f"POST / HTTP/1.1\\r\\nHost: {name}\\r\\nContent-Length: 10\\r\\n\\r\\nfirst".encode())
done = subprocess.run(command, capture_output=True, text=True)
connection.sendall(b"parts")
print(done.returncode, connection.recv(4096).decode().splitlines()[0], done.stdout + done.stderr, sep="\\n")
"""


def renew(host: Host, project: str) -> tuple[int, str, str]:
    """Run the command during a request; return its code, the request's status line and what was said."""
    command = f"airflow-release --directory {project} certificate --settings {project}/settings.json"
    text = host.check_output(f"timeout 120 python3 -c %s {PORT} {NAMES['flower']} {command}", RENEW)
    code, status, *said = text.splitlines()
    return int(code), status, "\n".join(said)


def test_good_one_is_served_and_drops_no_connection(host: Host, project: str) -> None:
    """The request that was under way gets its answer: nothing runs behind HAProxy here, so it is 503."""
    before, pem = served(host), certificate(ALL)
    put(host, f"{project}/certificate/new.pem", pem)
    code, status, said = renew(host, project)
    assert code == 0, said
    assert status.startswith("HTTP/1.1 503")
    assert served(host) == first(pem) != before
    assert not host.file(f"{project}/certificate/new.pem").exists
    file = host.file(f"{project}/haproxy/certificate.pem")
    assert (file.uid, file.mode) == (99, 0o440)


def test_bad_one_changes_nothing(host: Host, project: str) -> None:
    before = served(host)
    put(host, f"{project}/certificate/new.pem", certificate(ALL[:-1]))
    code, status, said = renew(host, project)
    assert code == 3
    assert status.startswith("HTTP/1.1 503")
    assert f"browsers would refuse it for {UNKNOWN}" in said
    assert served(host) == before
