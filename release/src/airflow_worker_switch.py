#!/usr/bin/python3 -I
"""Switches a worker host to the release that the main host serves, once that release is laid out here.

An operation lays the next release out before the main host's switch begins. From then on this host needs
nobody: the main host's gateway knows one release at a time, by the name that a worker host asks for.

Below the platform's directory:

    release.json          which release the files beside it are, and where its gateway is
    releases/<name>/      the files of a release that the host can switch to, release.json among them
    releases/live         the name of the release that runs, nothing while the host switches
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMED = "release.json"
LIVE = "live"
RUNS_TASKS = "airflow-worker"
"""The service that does; it goes before the files of another release come."""
PAUSE_SECONDS = 2.0
PAUSE_AFTER_FAILURE_SECONDS = 10.0
STOP_SECONDS = 30
ANSWER_SECONDS = 5.0
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""What a client of Postgres may ask before all else, and what Postgres answers then, before any login."""
SSL_ANSWERS = (b"N", b"S")


@dataclass(frozen=True)
class Release:
    """A release, the folder of its files, and the gateway that serves it."""

    folder: Path
    name: str
    address: str
    port: int

    @classmethod
    def of(cls, folder: Path) -> Release:
        """Return the release whose files are in a folder."""
        said = json.loads((folder / NAMED).read_text(encoding="utf-8"))
        return cls(folder, str(said["name"]), str(said["address"]), int(said["port"]))

    def files(self) -> Iterator[str]:
        """Yield the paths of its files; the one that names it comes last."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        yield from sorted(str(path) for path in found if str(path) != NAMED)
        yield NAMED


class Worker:
    """The worker host's part of the platform, by its directory."""

    def __init__(self, directory: Path) -> None:
        """Change nothing yet."""
        self.directory = directory
        self._releases = directory / "releases"
        self._live = self._releases / LIVE

    def laid_out(self) -> list[Release]:
        """Return the releases that this host can switch to."""
        return [Release.of(path.parent) for path in sorted(self._releases.glob(f"*/{NAMED}"))]

    def follow(self) -> None:
        """Switch if the main host serves another release than the one that runs, and it is laid out here.

        Raises:
            OSError, ValueError: a file cannot be read or written, or says nothing of use.
            subprocess.CalledProcessError: Docker failed. Once more, it goes on from there.
        """
        if not self._live.exists():
            self._keep_what_runs()
        live = self._live.read_text(encoding="utf-8").strip()
        for release in self.laid_out():
            if release.name != live and self._is_served(release):
                self._switch(release, live)
                return

    def _keep_what_runs(self) -> None:
        """Lay the running release out, too, so that this host can go back. One of an older version cannot."""
        if not (self.directory / NAMED).exists():
            _write(self._live, b"")
            return
        running = Release.of(self.directory)
        target = self._releases / running.name
        for name in dict.fromkeys(name for other in self.laid_out() for name in other.files()):
            if name != NAMED and (self.directory / name).exists():
                _copy(self.directory / name, target / name)
        _copy(self.directory / NAMED, target / NAMED)
        _write(self._live, running.name.encode())

    def _is_served(self, release: Release) -> bool:
        """Say whether the gateway leads to Postgres by this release's name; no answer is a no."""
        keys = self.directory / "tunnel"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(keys / "authority.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(keys / "worker.pem")
        name = f"postgres-{release.name}.workers.airflow.internal"
        try:
            plain = socket.create_connection((release.address, release.port), ANSWER_SECONDS)
            with context.wrap_socket(plain, server_hostname=name) as connection:
                connection.sendall(SSL_REQUEST)
                return connection.recv(1) in SSL_ANSWERS
        except OSError:
            return False

    def _switch(self, release: Release, live: str) -> None:
        """Run a release. If this is interrupted, nothing is live, and the next look begins it anew."""
        _say(f"the main host serves {release.name}: switching from {live or 'an interrupted switch'}")
        _write(self._live, b"")
        # No connection leads from here to the main host any more. The worker ends before the tunnel does.
        # A task that still runs can report to nobody, and a worker without Redis may not notice its end.
        self._compose("stop", f"--timeout={STOP_SECONDS}")
        # With the next release's tunnel the gateway would let the old worker in, and a boot or a start of
        # Docker starts whatever container is there (airflow-worker.service).
        self._compose("rm", "--force", RUNS_TASKS)
        for name in release.files():
            _copy(release.folder / name, self.directory / name)
        self._compose("up", "--detach", "--remove-orphans", "--no-build", "--pull=never")
        _write(self._live, release.name.encode())
        _say(f"{release.name} runs")

    def _compose(self, *arguments: str) -> None:
        command = ["docker", "compose", f"--project-directory={self.directory}", "--profile=worker"]
        subprocess.run([*command, *arguments], check=True, stdin=subprocess.DEVNULL)


def _copy(source: Path, target: Path) -> None:
    """Make a file what another is, with its mode."""
    if not target.parent.exists():
        target.parent.mkdir(mode=0o700, parents=True)
        shutil.copymode(source.parent, target.parent)
    _write(target, source.read_bytes(), source.stat().st_mode & 0o7777)


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole and have it on the disk before returning."""
    partial = path.with_name(f".{path.name}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    """Follow the main host until somebody ends this. A switch that has begun is ended first."""
    [directory] = arguments
    worker = Worker(Path(directory))
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    _say(f"laid out: {', '.join(release.name for release in worker.laid_out())}")
    pause = 0.0
    while not over.wait(pause):
        pause = PAUSE_SECONDS
        try:
            worker.follow()
        except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
            _say(f"trying again in {PAUSE_AFTER_FAILURE_SECONDS:.0f} s: {error}")
            pause = PAUSE_AFTER_FAILURE_SECONDS
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
