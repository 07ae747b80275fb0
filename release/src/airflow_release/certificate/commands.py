"""The command `airflow-release certificate`, which a unit of systemd runs when a file is dropped."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from airflow_release.certificate import pem
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file, replacing
from airflow_release.core.host import Host
from airflow_release.core.lock import exclusive, may_wait
from airflow_release.core.services import HAPROXY
from airflow_release.core.settings import SETTINGS_FILE, Settings, load
from airflow_release.switch import haproxy

DROPPED = "certificate/new.pem"
"""Where an operator puts a chain and its key, below the platform's directory."""
SERVED = "haproxy/certificate.pem"
STATUS = "certificate.json"

QUIET_SECONDS = 1.0
"""A file that nobody has written to for so long is complete."""
REASON_LIMIT = 300
"""Characters of what is written down of a refusal."""

CHECK = """
umask 077
cd /usr/local/etc/haproxy
cat > /tmp/certificate.pem
sed "s,$PWD/certificate.pem,/tmp/certificate.pem," haproxy.cfg > /tmp/haproxy.cfg
haproxy -c -f /tmp/haproxy.cfg
code=$?
rm /tmp/certificate.pem /tmp/haproxy.cfg
exit $code
"""
"""Has HAProxy in its container check its own configuration with the certificate from standard input."""


def register(subparsers: Any) -> None:
    """Add the command to the program's parser."""
    text = (
        f"check the certificate and key in {DROPPED}, have HAProxy serve it without dropping a connection, "
        "and remove the file; a bad one changes nothing and stays there, code 3"
    )
    command: argparse.ArgumentParser = subparsers.add_parser("certificate", help=text, description=text)
    command.add_argument("--settings", type=Path, default=SETTINGS_FILE, help=argparse.SUPPRESS)
    may_wait(command)
    command.set_defaults(run=renew)


def renew(host: Host, arguments: argparse.Namespace) -> int:
    """Put what was dropped in force; if nothing was, forget the last refusal.

    Raises:
        ReleaseError: it is refused; HAProxy serves what it served before.
    """
    dropped = host.directory / DROPPED
    while (text := _read(dropped)) is not None:
        try:
            # A reload during a switch would undo what that has told HAProxy.
            with exclusive(host.lock, arguments.wait, doing="a change of the certificate"):
                ends = _serve(host, text, load(arguments.settings))
        except ReleaseError as error:
            if _read(dropped) == text:
                _record(host, str(error))
                what = f"{dropped} is refused, and nothing was changed: {error}"
                raise ReleaseError(what, error.log) from None
            continue  # another one came meanwhile
        print(f"HAProxy serves the certificate from {dropped}, which ends on {ends}.", flush=True)
        if _read(dropped) == text:
            dropped.unlink()
    _record(host, "")
    return 0


def _read(path: Path) -> bytes | None:
    """Return what is in a file once it is complete, None if there is none."""
    try:
        while 0 <= time.time() - path.stat().st_mtime < QUIET_SECONDS:
            time.sleep(0.1)  # a file that another process writes
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _serve(host: Host, text: bytes, settings: Settings) -> str:
    """Check a certificate and have HAProxy serve it; return when it ends."""
    served = host.directory / SERVED
    if not (served.exists() and settings.hostnames):
        raise ReleaseError("this platform has no TLS: set tls_certificate and hostnames, and run site.yml")
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(text)
        copy.flush()
        ends = pem.check(Path(copy.name), settings.hostnames)
    command = host.compose_command("exec", "--no-TTY", HAPROXY, "bash", "-c", CHECK)
    host.run(command, input=text.decode(), timeout=60, doing="HAProxy's own check of it")
    before = served.read_bytes()
    _replace(served, text)
    try:
        haproxy.reload(host)
    except ReleaseError:
        _replace(served, before)
        with contextlib.suppress(ReleaseError):
            haproxy.reload(host)
        raise
    return ends


def _replace(path: Path, text: bytes) -> None:
    """Replace a file by another of the same owner and mode."""
    status = path.stat()
    with replacing(path) as file:
        file.write(text)
        # In this order: whoever has given a file away cannot change its mode any more.
        os.fchmod(file.fileno(), status.st_mode & 0o7777)
        os.fchown(file.fileno(), status.st_uid, status.st_gid)


def _record(host: Host, refused: str) -> None:
    """Write down for the host's checker why the dropped file is refused, "" if it is not."""
    document = {"at": time.time(), "refused": " ".join(refused.split())[:REASON_LIMIT]}
    # On a full disk the rest has been done all the same.
    with contextlib.suppress(OSError):
        replace_file(host.status / STATUS, json.dumps(document) + "\n", mode=0o644)
