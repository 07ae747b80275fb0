"""The programs that look for leaked secrets on a host find what is there: in texts, and in processes."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "molecule" / "shared" / "tests"))

import canary_search
import process_watch

SECRET = "made-up-secret-of-this-test"
NAMES = dict.fromkeys(canary_search.forms(SECRET), "the secret")
CONTAINER = "0123456789abcdef" * 4
WAIT_SECONDS = 20


@pytest.mark.parametrize(
    "text",
    [
        f"it is {SECRET}.",
        f"\\\\x00{SECRET.encode().hex()}00",
        *(base64.b64encode(b"x" * before + SECRET.encode() + b"behind").decode() for before in range(6)),
    ],
)
def test_secret_is_found_in_each_form(text: str) -> None:
    assert canary_search.names_in(NAMES, text) == ["the secret"]


def test_secret_is_found_in_a_folded_text() -> None:
    names = {"red green and blue": "three colours"}
    assert canary_search.names_in(names, "msg: red green\n    and blue") == ["three colours"]
    assert canary_search.names_in(names, "red green or blue") == []


def seen(condition: Callable[[dict[str, list[str]]], bool], watch: process_watch.Watch) -> bool:
    """Look until the report is as wanted."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        watch.look()
        if condition(watch.report(NAMES)):
            return True
        time.sleep(process_watch.PAUSE)
    return False


def test_watch_sees_the_command_line_of_a_short_process() -> None:
    """One that begins after the watch, and has the text for a fifth of a second."""
    watch = process_watch.Watch()
    watch.look()
    with subprocess.Popen(["sh", "-c", "sleep 0.2; true", SECRET]):
        assert seen(lambda report: "the secret" in report[process_watch.COMMAND_LINES], watch)
    assert "sh" in watch.report(NAMES)["programs"]


def test_watch_sees_what_a_process_becomes() -> None:
    """Long after it began, as the program of a container does behind its entrypoint."""
    watch = process_watch.Watch()
    command = ["bash", "-c", 'name="$(rev)"; exec -a "$name" sleep 5']
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        for _ in range(process_watch.LOOKS + 1):
            watch.look()
        assert watch.report(NAMES)[process_watch.COMMAND_LINES] == []
        assert process.stdin
        process.stdin.write(SECRET[::-1].encode())
        process.stdin.close()
        assert seen(lambda report: "the secret" in report[process_watch.COMMAND_LINES], watch)
        process.kill()


def a_process(proc: Path, variables: str, cgroup: str) -> None:
    """Write what the kernel shows of a process of this user."""
    folder = proc / "17"
    folder.mkdir(parents=True)
    (proc / "loadavg").write_text("0.00 0.00 0.00 1/1 17\n")
    (folder / "cmdline").write_bytes(b"/usr/bin/worker\0--serve\0")
    (folder / "environ").write_bytes(f"A=b\0{variables}\0".encode())
    (folder / "cgroup").write_text(cgroup)


@pytest.mark.parametrize(
    ("labels", "place"),
    [
        ({"com.docker.compose.service": "worker"}, "variables of worker"),
        ({"airflow.dag-container": "true"}, "variables of a DAG's container"),
        (None, "variables of /by-hand"),
    ],
)
def test_watch_tells_whose_variables_they_are(
    tmp_path: Path, labels: dict[str, str] | None, place: str
) -> None:
    """By the container, whose host may be one itself."""
    a_process(
        tmp_path / "proc", f"KEY={SECRET}", f"0::/docker/{'f' * 64}/system.slice/docker-{CONTAINER}.scope\n"
    )
    folder = tmp_path / "containers" / CONTAINER
    folder.mkdir(parents=True)
    (folder / "config.v2.json").write_text(json.dumps({"Name": "/by-hand", "Config": {"Labels": labels}}))
    watch = process_watch.Watch(tmp_path / "proc", tmp_path / "containers")
    watch.look()
    assert watch.report(NAMES) == {
        "programs": ["worker"],
        process_watch.COMMAND_LINES: [],
        place: ["the secret"],
    }


def test_watch_leaves_roots_own_variables_out(tmp_path: Path) -> None:
    """Root alone reads them; those of every other user count."""
    a_process(tmp_path / "proc", f"KEY={SECRET}", "0::/system.slice/any.service\n")
    watch = process_watch.Watch(tmp_path / "proc", tmp_path)
    watch.look()
    user = os.getuid()
    places = {f"variables of processes of user {user}"} if user else set()
    assert watch.report(NAMES).keys() - {"programs", process_watch.COMMAND_LINES} == places


def test_reports_before_and_after_a_reboot_are_one() -> None:
    merged = process_watch.merged([{"a": ["x"], "b": []}, {"a": ["y"], "c": ["z"]}])
    assert merged == {"a": ["x", "y"], "b": [], "c": ["z"]}


def handles_sigterm(process: int) -> bool:
    """Say whether a process is ready to be stopped: it has a function for the signal (proc_pid_status(5))."""
    [caught] = re.findall(r"^SigCgt:\s(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_watch_writes_its_report_when_it_is_stopped(tmp_path: Path) -> None:
    """Also where there is no platform yet, whose secrets it would look for. What a test plants it knows."""
    report = tmp_path / "report.json"
    program = [sys.executable, process_watch.__file__, str(tmp_path), str(report)]
    with (
        subprocess.Popen(["sh", "-c", "sleep 60; true", canary_search.PLANTED]) as planted,
        subprocess.Popen(program) as watch,
    ):
        deadline = time.monotonic() + WAIT_SECONDS
        while not handles_sigterm(watch.pid):
            assert time.monotonic() < deadline
            time.sleep(process_watch.PAUSE)
        watch.terminate()
        assert watch.wait(WAIT_SECONDS) == 0
        planted.kill()
    found = json.loads(report.read_text())
    assert "planted" in found[process_watch.COMMAND_LINES]
    assert found["canaries"] == []
