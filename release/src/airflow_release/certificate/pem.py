"""Whether browsers will take a certificate chain with its key: a handshake in memory, with their checks."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from pathlib import Path

from airflow_release.core.errors import ReleaseError

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PARTIAL_CHAIN = 0x80000
"""X509_V_FLAG_PARTIAL_CHAIN of OpenSSL, which Python names from 3.10 on: any certificate can be trusted."""


def check(path: Path, names: Iterable[str]) -> str:
    """Check a chain and its key in one PEM file for these host names; return when the certificate ends.

    Trusted is the chain's last certificate, whoever signed that: the chain has to lead there, and each of its
    certificates has to be valid now.

    Raises:
        ReleaseError: browsers would refuse it, with the reason.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= _PARTIAL_CHAIN
    try:
        # Without the password OpenSSL would ask for that of an encrypted key at the terminal.
        server.load_cert_chain(path, password=lambda: "")
        client.load_verify_locations(cadata=_CERTIFICATE.findall(path.read_text("ascii"))[-1])
    except (ssl.SSLError, OSError, ValueError, IndexError) as error:
        reason = (getattr(error, "reason", None) or "").lower().replace("_", " ")
        raise ReleaseError(
            "the file has no certificate with its own unencrypted key, both in PEM"
            + (f" ({reason})" if reason else "")
        ) from None
    ends = ""
    for name in names:
        try:
            ends = _handshake(server, client, name)
        except ssl.SSLCertVerificationError as error:
            raise ReleaseError(f"browsers would refuse it for {name}: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise ReleaseError(f"there is no TLS with it for {name}: {error.reason}") from None
    return ends


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Shake hands as a browser that asks for this name does; return when the certificate ends."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    browser = client.wrap_bio(to_client, to_server, server_hostname=name)
    service = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [browser, service]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return str((browser.getpeercert() or {})["notAfter"])
