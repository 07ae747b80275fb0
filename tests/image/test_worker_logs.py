"""Logs are copied from worker hosts: by the program itself, from a real rsync daemon."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from tests.missing import needs

PROGRAM = Path(__file__).resolve().parents[2] / "images/airflow/bin/worker-logs"
LOG = "dag_id=a/run_id=r/task_id=t/attempt=1.log"

pytestmark = needs("rsync")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    loader = SourceFileLoader("worker_logs", str(PROGRAM))
    spec = spec_from_loader("worker_logs", loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


class Hosts:
    """The logs of the main host, and a worker host that serves its own."""

    def __init__(self, folder: Path, program: ModuleType) -> None:
        self.program = program
        self.here, self.there = folder / "here", folder / "there"
        self.here.mkdir()
        self.there.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"rsync://127.0.0.1:{port}/logs/"
        options = f"port = {port}\naddress = 127.0.0.1\nuse chroot = no\npid file = {folder}/pid\n"
        module = f"[logs]\npath = {self.there}\nread only = yes\nlist = no\n"
        module += f"uid = {os.getuid()}\ngid = {os.getgid()}\n"
        (folder / "conf").write_text(options + module)
        self.daemon = subprocess.Popen(["rsync", "--daemon", "--no-detach", f"--config={folder}/conf"])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.05)  # another process' doing; it cannot call us
        raise AssertionError("rsync does not listen")

    def write(self, text: str, age: float, name: str = LOG) -> None:
        path = self.there / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)

    def copy(self) -> object:
        return self.program.copy("w1", self.address, self.here)

    def found(self) -> dict[str, str]:
        """Return every file of the main host's logs."""
        return {
            str(path.relative_to(self.here)): path.read_text()
            for path in self.here.rglob("*")
            if path.is_file() or path.is_symlink()
        }


@pytest.fixture
def hosts(tmp_path: Path, program: ModuleType) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, program)
    try:
        yield hosts
    finally:
        hosts.daemon.terminate()
        hosts.daemon.wait()


def test_log_is_copied_once_it_is_quiet(hosts: Hosts) -> None:
    """Airflow 2.5.3 would show the copy of a running task's log, and never the rest."""
    hosts.write("begun\n", age=5)
    assert hosts.copy() is True
    assert hosts.found() == {}
    hosts.write("begun\nended\n", age=90)
    assert hosts.copy() is True
    assert hosts.found() == {LOG: "begun\nended\n"}


def test_copy_is_refreshed_at_once_when_the_log_grows(hosts: Hosts) -> None:
    hosts.write("one\n", age=90)
    hosts.copy()
    hosts.write("one\ntwo\n", age=1)
    hosts.copy()
    assert hosts.found() == {LOG: "one\ntwo\n"}


@pytest.mark.parametrize("other", ["one\n", "another log, which is longer\n", ""])
def test_log_that_is_there_is_never_lost(hosts: Hosts, other: str) -> None:
    """Nor is a log of the main host when a worker host removes its own."""
    (hosts.here / LOG).parent.mkdir(parents=True)
    (hosts.here / LOG).write_text("one\ntwo\n")
    hosts.write(other, age=90)
    hosts.copy()
    (hosts.there / LOG).unlink()
    hosts.copy()
    assert hosts.found() == {LOG: "one\ntwo\n"}


def test_nothing_but_regular_logs_of_tasks_is_taken(hosts: Hosts, tmp_path: Path) -> None:
    hosts.write("good\n", age=90)
    folder = (hosts.there / LOG).parent
    (folder / "link.log").symlink_to("/etc/passwd")
    (hosts.there / "dag_id=linked").symlink_to("/etc")
    os.mkfifo(folder / "pipe.log")
    hosts.write("bad\n", 90, "scheduler/latest/a.log")
    hosts.write("bad\n", 90, "a.log")
    assert hosts.copy() is True
    assert hosts.found() == {LOG: "good\n"}


def test_link_among_the_logs_here_is_not_followed(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (hosts.here / "dag_id=a").symlink_to(tmp_path / "outside")
    hosts.write("bad\n", age=90)
    hosts.copy()
    assert list((tmp_path / "outside").iterdir()) == []


def test_host_that_is_away_is_no_fault(hosts: Hosts) -> None:
    hosts.daemon.terminate()
    hosts.daemon.wait()
    assert hosts.copy() is None


def test_host_that_answers_and_refuses_is_one(hosts: Hosts) -> None:
    hosts.address = hosts.address.replace("/logs/", "/none/")
    assert hosts.copy() is False


def test_full_disk_takes_no_log(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.write("good\n", age=90)
    monkeypatch.setattr(hosts.program, "LEAST_FREE", 1.1)
    assert hosts.copy() is False
    assert hosts.found() == {}


def test_health_names_the_host_that_is_late(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.json"
    monkeypatch.setattr(program, "STATE", state)
    assert "no copy has ended yet" in program.fault(1000)
    state.write_text('{"at": 1000, "good": {"w1": 1000, "w2": 390}}')
    assert program.fault(980) == ""
    assert program.fault(1000) == "no log could be copied for ten minutes from w2"
    assert program.fault(1601) == "no copy has ended for ten minutes"
