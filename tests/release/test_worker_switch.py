"""A worker host follows the main host's release by itself: forth, back, and after whatever interrupts it.

The gateway is a TLS server that knows one release at a time, Docker a program that notes how it is called.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import airflow_worker_switch
import pytest
from airflow_worker_switch import SSL_REQUEST, Release, Worker

from tests.certificates import certificate

OLD, NEW, OTHER = "2-5-3-aaa", "2-6-1-bbb", "2-7-0-ccc"
STOP = ["stop", "--timeout=30"]
REMOVE = ["rm", "--force", "airflow-worker"]
UP = ["up", "--detach", "--remove-orphans", "--no-build", "--pull=never"]

DOCKER = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
home = Path({home!r})
_, project, profile, *rest = sys.argv[1:]
assert project == "--project-directory=" + str(home / "platform") and profile == "--profile=worker"
compose = (home / "platform/docker-compose.yaml").read_text()
with (home / "calls.jsonl").open("a") as calls:
    print(json.dumps([rest, compose]), file=calls)
def asked_to(do):
    path = home / (do + "-at-" + rest[0])
    if path.exists():
        path.unlink()
        return True
if asked_to("fails"):
    sys.exit("no space left")
if asked_to("kills"):
    os.kill(os.getppid(), signal.SIGKILL)
while (home / ("waits-at-" + rest[0])).exists():
    time.sleep(0.02)  # until the test removes the file; it cannot call us
"""


class Gateway(threading.Thread):
    """The main host's end: after the handshake it closes what asks for a release that it does not serve."""

    def __init__(self, folder: Path, worker: str) -> None:
        """Let one worker in, and serve nothing yet."""
        super().__init__(daemon=True)
        self.serves = ""
        """The release that it knows."""
        self.postgres = True
        """Whether there is a Postgres behind it."""
        self.asked: list[str] = []
        own = certificate(["*.workers.airflow.internal"], common_name="gateway")
        (folder / "gateway.pem").write_text(own)
        self.authority = own
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(folder / "gateway.pem")
        self._context.load_verify_locations(cadata=worker.partition("-----BEGIN PRIVATE")[0])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.sni_callback = lambda _, name, __: self.asked.append(str(name))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.start()

    def run(self) -> None:
        """Answer one connection after the other."""
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with plain:
                    plain.settimeout(20)
                    with self._context.wrap_socket(plain, server_side=True) as connection:
                        served = self.asked[-1] == f"postgres-{self.serves}.workers.airflow.internal"
                        if served and self.postgres and connection.recv(8) == SSL_REQUEST:
                            connection.sendall(b"N")
            except OSError:
                continue

    def close(self) -> None:
        """Be a host that is off."""
        with contextlib.suppress(OSError):
            # It wakes the thread, which closing alone does not.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()


class Host:
    """A worker host that runs the old release, in a folder of this machine."""

    def __init__(self, home: Path) -> None:
        """Lay nothing out yet."""
        self.home, self.directory = home, home / "platform"
        (home / "bin").mkdir()
        program = home / "bin/docker"
        program.write_text(DOCKER.format(python=sys.executable, home=str(home)))
        program.chmod(0o755)
        (self.directory / "tunnel").mkdir(parents=True)
        own = certificate(["atd-worker01.hosts.airflow.internal"], common_name="atd-worker01")
        self.gateway = Gateway(home, own)
        (self.directory / "tunnel/worker.pem").write_text(own)
        (self.directory / "tunnel/authority.pem").write_text(self.gateway.authority)
        self.files(self.directory, OLD)

    def files(self, folder: Path, release: str) -> None:
        """Write the files of a release into a folder."""
        for name in ("docker-compose.yaml", "tunnel/haproxy.cfg", "env/worker.env"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} of {release}")
        (folder / "env").chmod(0o700)
        (folder / "env/worker.env").chmod(0o600)
        (folder / "docker-compose.yaml").chmod(0o644)
        named = {"name": release, "address": "127.0.0.1", "port": self.gateway.port}
        (folder / "release.json").write_text(json.dumps(named))

    def lay_out(self, release: str) -> Path:
        """Do what the role's `prepare` does."""
        folder = self.directory / "releases" / release
        self.files(folder, release)
        return folder

    def follow(self) -> None:
        """Look once, as a process that has just started."""
        Worker(self.directory).follow()

    @property
    def has(self) -> set[str]:
        """Return the releases of which its files are."""
        names = ("docker-compose.yaml", "tunnel/haproxy.cfg", "env/worker.env")
        found = {(self.directory / name).read_text().rpartition(" of ")[2] for name in names}
        return found | {Release.of(self.directory).name}

    def calls(self) -> list[list[str]]:
        """Return what Docker was asked since the last question, each with the release whose file it read."""
        path = self.home / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [[*rest, compose.rpartition(" of ")[2]] for rest, compose in map(json.loads, lines)]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    yield host
    host.gateway.close()


def wait_for(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)  # another process; it cannot call us


def test_follows_the_main_host_there_and_back(host: Host) -> None:
    """Nothing happens before the switch, nor while the gateway is closed. It follows the way back, too."""
    host.lay_out(NEW)
    for served in (OLD, ""):
        host.gateway.serves = served
        host.follow()
        assert host.has == {OLD}
    assert host.calls() == []
    host.gateway.serves = NEW
    host.follow()
    assert host.has == {NEW}
    assert host.calls() == [[*STOP, OLD], [*REMOVE, OLD], [*UP, NEW]]
    host.follow()
    assert host.calls() == []
    host.gateway.serves = OLD
    host.follow()
    assert host.has == {OLD}
    assert host.calls() == [[*STOP, NEW], [*REMOVE, NEW], [*UP, OLD]]


def test_asks_for_postgres_of_what_does_not_run(host: Host) -> None:
    host.lay_out(NEW)
    host.gateway.serves = OLD
    host.follow()
    assert host.gateway.asked == [f"postgres-{NEW}.workers.airflow.internal"]


def test_files_keep_their_modes_and_the_certificate_stays(host: Host) -> None:
    host.lay_out(NEW)
    before = (host.directory / "tunnel/worker.pem").read_text()
    host.gateway.serves = NEW
    host.follow()
    for place in (host.directory, host.directory / "releases" / OLD, host.directory / "releases" / NEW):
        modes = [
            (place / name).stat().st_mode & 0o777 for name in ("env", "env/worker.env", "docker-compose.yaml")
        ]
        assert modes == [0o700, 0o600, 0o644]
    assert (host.directory / "tunnel/worker.pem").read_text() == before
    assert not (host.directory / "releases" / OLD / "tunnel/worker.pem").exists()
    assert list(host.directory.rglob("*.partial")) == []


def test_gateway_without_postgres_serves_nothing_yet(host: Host) -> None:
    host.lay_out(NEW)
    host.gateway.serves, host.gateway.postgres = NEW, False
    host.follow()
    assert host.has == {OLD}
    host.gateway.postgres = True
    host.follow()
    assert host.has == {NEW}


@pytest.mark.parametrize("away", ["off", "a stranger"])
def test_main_host_that_is_away_changes_nothing(host: Host, away: str) -> None:
    """Nor does whoever has its address and not its certificate."""
    host.lay_out(NEW)
    if away == "off":
        host.gateway.close()
    else:
        (host.directory / "tunnel/authority.pem").write_text(certificate(["*.workers.airflow.internal"]))
    host.gateway.serves = NEW
    host.follow()
    assert host.has == {OLD}
    assert host.calls() == []


def test_half_of_a_release_is_none(host: Host) -> None:
    (host.lay_out(NEW) / "release.json").unlink()
    host.gateway.serves = NEW
    host.follow()
    assert host.has == {OLD}


@pytest.mark.parametrize("at", ["stop", "rm", "up"])
@pytest.mark.parametrize("then", [NEW, OLD])
def test_killed_switch_goes_on_with_what_is_served_by_then(host: Host, at: str, then: str) -> None:
    """As after a loss of power; the main host may have gone back meanwhile."""
    host.lay_out(NEW)
    host.gateway.serves = NEW
    (host.home / f"kills-at-{at}").touch()
    program = [sys.executable, "-I", airflow_worker_switch.__file__, str(host.directory)]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    host.calls()
    host.gateway.serves = then
    host.follow()
    assert host.has == {then}
    assert [call[0] for call in host.calls()] == ["stop", "rm", "up"]
    host.follow()
    assert host.calls() == []


def test_old_worker_is_gone_before_the_tunnel_is_the_new_releases(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that loses its power in between starts the containers that are there, with such files."""
    write = airflow_worker_switch._write

    def cut(path: Path, content: bytes, mode: int = 0o600) -> None:
        write(path, content, mode)
        if path == host.directory / "tunnel/haproxy.cfg":
            raise OSError("the power is cut")

    monkeypatch.setattr(airflow_worker_switch, "_write", cut)
    host.lay_out(NEW)
    host.gateway.serves = NEW
    with pytest.raises(OSError, match="power"):
        host.follow()
    assert "of 2-6-1" in (host.directory / "tunnel/haproxy.cfg").read_text()
    assert host.calls() == [[*STOP, OLD], [*REMOVE, OLD]]


def test_worker_that_was_off_during_all_of_it_follows_when_it_is_back(host: Host) -> None:
    """Its program starts at boot, as a new process, and may never have seen the release that ran before."""
    host.lay_out(NEW)
    host.gateway.serves = NEW
    host.follow()
    assert host.has == {NEW}


def test_failure_of_docker_is_said_and_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    host.lay_out(NEW)
    host.gateway.serves = NEW
    (host.home / "fails-at-up").touch()
    monkeypatch.setattr(airflow_worker_switch, "PAUSE_AFTER_FAILURE_SECONDS", 0.01)
    previous = signal.getsignal(signal.SIGTERM)

    def end_when_done() -> None:
        live = host.directory / "releases/live"
        wait_for("the switch", lambda: live.exists() and live.read_text() == NEW)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end_when_done)
    ending.start()
    try:
        assert airflow_worker_switch.main([str(host.directory)]) == 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        ending.join()
    assert [call[0] for call in host.calls()] == ["stop", "rm", "up", "stop", "rm", "up"]
    assert host.has == {NEW}
    said = capfd.readouterr().out
    assert f"laid out: {NEW}\n" in said
    assert "trying again in 0 s: Command" in said
    assert said.rstrip().endswith(f"{NEW} runs")


@pytest.mark.parametrize("at", ["stop", "up"])
def test_end_waits_for_a_switch_that_has_begun(host: Host, at: str) -> None:
    """site.yml ends the program before it puts files in place itself."""
    host.lay_out(NEW)
    host.gateway.serves = NEW
    waits = host.home / f"waits-at-{at}"
    waits.touch()
    program = [sys.executable, "-I", airflow_worker_switch.__file__, str(host.directory)]
    running = subprocess.Popen(program)
    try:
        calls = host.home / "calls.jsonl"
        wait_for(f"docker compose {at}", lambda: calls.exists() and f'"{at}"' in calls.read_text())
        running.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        waits.unlink()
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()
    assert host.has == {NEW}
    assert (host.directory / "releases/live").read_text() == NEW


def test_second_operation_goes_on_from_what_runs(host: Host) -> None:
    """The control node was away at the end of the first. The second removes what was laid out before."""
    host.lay_out(NEW)
    host.gateway.serves = NEW
    host.follow()
    subprocess.run(["rm", "-r", str(host.directory / "releases")], check=True)
    host.lay_out(OTHER)
    host.follow()
    assert host.has == {NEW}
    for served in (OTHER, NEW):
        host.gateway.serves = served
        host.follow()
        assert host.has == {served}
    # The release before is no longer here.
    host.gateway.serves = OLD
    host.follow()
    assert host.has == {NEW}


def test_release_of_the_same_name_is_left_to_the_end_of_the_operation(host: Host) -> None:
    """By its name the gateway cannot say whether the new secrets are in use."""
    host.lay_out(OLD)
    host.gateway.serves = OLD
    for _ in range(2):
        host.follow()
    assert host.calls() == []


def test_worker_of_an_older_version_goes_forward_only(host: Host) -> None:
    """Its files do not say which release they are."""
    (host.directory / "release.json").unlink()
    host.lay_out(NEW)
    host.gateway.serves = OLD
    host.follow()
    assert host.calls() == []
    host.gateway.serves = NEW
    host.follow()
    assert host.has == {NEW}
