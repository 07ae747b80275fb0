"""The port for TLS: a real HAProxy with the platform's own configuration, asked as openssl and Python ask."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.missing import needs
from tests.webhook.front import HAPROXY, configuration
from tests.webhook.network import free_port

pytestmark = needs("haproxy", "openssl")

NAME = "airflow.example.org"
UNKNOWN = "unknown.example.org"
"""HAProxy itself answers for it, so that no service has to run."""
PATIENCE = 60.0


class Port(NamedTuple):
    """HAProxy's port for TLS, its process and the file of its certificate."""

    number: int
    process: int
    certificate: Path


def wait_for(what: str, answered: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not answered():
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE:.0f} s"
        time.sleep(0.05)  # another process' start; it cannot call us


def renew(pem: Path) -> None:
    """Put another certificate and its key, signed by itself, in the file's place."""
    names = ",".join(f"DNS:{name}" for name in (NAME, UNKNOWN))
    key, chain = pem.with_suffix(".key"), pem.with_suffix(".crt")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName={names}", "-days", "1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(chain)], capture_output=True, check=True)
    pem.write_text(chain.read_text() + key.read_text())


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """HAProxy as the stack runs it: a master, and a worker that a reload replaces."""
    folder = tmp_path_factory.mktemp("tls")
    text = configuration([], folder, {}, haproxy_certificate="given", haproxy_hostnames={"airflow": NAME})
    tls = free_port()
    text = text.replace("bind :443", f"bind 127.0.0.1:{tls}").replace(
        "bind :80\n", f"bind 127.0.0.1:{free_port()}\n"
    )
    (folder / "haproxy.cfg").write_text(text)
    pem = folder / "certificate.pem"
    renew(pem)
    with (folder / "log").open("w") as log:
        command = [HAPROXY, "-W", "-db", "-f", str(folder / "haproxy.cfg")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for("HAProxy's port", lambda: socket_opens(tls) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield Port(tls, process.pid, pem)
    finally:
        process.terminate()
        process.wait()


def socket_opens(number: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", number), 5).close()
    except OSError:
        return False
    return True


def handshake(port: Port, *options: str) -> subprocess.CompletedProcess[str]:
    """Shake hands once, as `openssl s_client` does; it would itself refuse what is weak without the level."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port.number}", "-servername", NAME, *options],
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def status(port: Port) -> int:
    """Return what HAProxy answers to somebody who trusts the certificate that is in the file."""
    context = ssl.create_default_context(cafile=str(port.certificate))
    plain = socket.create_connection(("127.0.0.1", port.number), PATIENCE)
    with contextlib.closing(http.client.HTTPConnection(UNKNOWN, port.number, timeout=PATIENCE)) as connection:
        connection.sock = context.wrap_socket(plain, server_hostname=UNKNOWN)
        connection.request("GET", "/")
        return connection.getresponse().status


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_version_is_refused(port: Port, version: str) -> None:
    answer = handshake(port, version, "-cipher", "ALL:@SECLEVEL=0")
    assert answer.returncode != 0
    assert "alert protocol version" in answer.stderr


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_newer_version_is_taken(port: Port, version: str) -> None:
    answer = handshake(port, version)
    assert answer.returncode == 0, answer.stderr
    assert "Verify return code" in answer.stdout


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-CCM"]
)
def test_cipher_of_no_intermediate_profile_is_refused(port: Port, cipher: str) -> None:
    """Mozilla's profile takes ciphers that authenticate each record, and of those the common ones."""
    answer = handshake(port, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert answer.returncode != 0
    assert "handshake failure" in answer.stderr


@pytest.mark.parametrize(
    "cipher",
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"],
)
def test_cipher_of_the_intermediate_profile_is_taken(port: Port, cipher: str) -> None:
    answer = handshake(port, "-tls1_2", "-cipher", cipher)
    assert answer.returncode == 0, answer.stderr
    assert f"Cipher is {cipher}" in answer.stdout


@pytest.mark.parametrize(("offered", "chosen"), [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")])
def test_protocol_is_http2_where_both_know_it(port: Port, offered: str, chosen: str) -> None:
    assert f"ALPN protocol: {chosen}\n" in handshake(port, "-alpn", offered).stdout


def test_reload_puts_another_certificate_in_force(port: Port) -> None:
    """By the signal that the role sends when the file differs. The process that goes ends what it has."""
    assert status(port) == 404
    renew(port.certificate)
    os.kill(port.process, signal.SIGHUP)

    def served() -> bool:
        try:
            return status(port) == 404  # it verifies by the new file
        except (OSError, http.client.HTTPException):
            return False

    wait_for("the new certificate", served)
