"""`python3 -m sandbox` as a service: each stand-in on its port, a clean stop, a word on a wrong setting."""

from __future__ import annotations

import getpass
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.served import TOKEN, VAULT_ID

ROOT = Path(__file__).parents[2]
START_SECONDS = 20
LAST = 9
"""The highest number after the port base: each port from 1 on is a stand-in's or SSH's."""


def free_port_base(worker: str) -> int:
    """Return a number after which the sandbox's ports are free, out of the 100 of one worker of xdist.

    Two workers that looked at the same ports at the same moment would both find them free.
    """
    first = 20_000 + 100 * (int(worker.removeprefix("gw")) % 100 if worker != "master" else 0)
    for base in range(first, first + 100 - LAST, LAST):
        try:
            for offset in range(1, LAST + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


def environment(state: Path, **settings: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "OP_API_TOKEN": TOKEN,
        "OP_VAULT_ID": VAULT_ID,
        "SANDBOX_STATE": str(state),
        "SANDBOX_ADDRESS": "127.0.0.1",
        **settings,
    }


@pytest.fixture
def service(tmp_path: Path, worker_id: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    base = free_port_base(worker_id)
    (tmp_path / "seed/dags").mkdir(parents=True)
    (tmp_path / "seed/dags/one.py").touch()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = environment(
        tmp_path / "state",
        OP_API_TOKEN_FILE=str(tmp_path / "token"),
        SANDBOX_PORT_BASE=str(base),
        SANDBOX_ENVIRONMENTS="staging, demo",
        SANDBOX_SEED=str(tmp_path / "seed"),
    )
    # As in its container: what a list of containers shows has no token.
    del settings["OP_API_TOKEN"]
    command = [sys.executable, "-m", "sandbox"]
    with subprocess.Popen(command, cwd=ROOT, env=settings, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{base + 1}/heartbeat")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield process, base
        finally:
            # Not killed: it has a server to stop that is a program of its own.
            process.terminate()


def test_serves_all_and_stops_cleanly(service: tuple[subprocess.Popen[str], int]) -> None:
    process, base = service
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(headers=headers, timeout=10) as client:
        items = client.get(f"http://127.0.0.1:{base + 1}/v1/vaults/{VAULT_ID}/items").json()
        item = client.get(f"http://127.0.0.1:{base + 1}/v1/vaults/{VAULT_ID}/items/{items[0]['id']}").json()
        assert {section["label"] for section in item["sections"]} == {
            "production",
            "development",
            "staging",
            "demo",
        }
        assert (
            client.get(f"http://127.0.0.1:{base + 2}/image/533.jpg").headers["content-type"] == "image/jpeg"
        )
        assert client.post(f"http://127.0.0.1:{base + 3}/services/T/B/X", json={"text": "hi"}).text == "ok"
        # The client still holds its connections open, as the platform does when its host stops.
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    ports = {int(port) for port in re.findall(r" listens on 127\.0\.0\.1:(\d+)$", log, re.MULTILINE)}
    assert ports | {base + 8} == {base + number for number in range(1, LAST + 1)}
    assert "GET /image/533.jpg 200" in log
    assert TOKEN not in log
    assert "Traceback" not in log


def field(client: httpx.Client, base: int, title: str, label: str) -> str:
    """Return the value of an item's field in the section `development`."""
    items = f"http://127.0.0.1:{base + 1}/v1/vaults/{VAULT_ID}/items"
    (found,) = client.get(items, params={"filter": f'title eq "{title}"'}).json()
    item = client.get(f"{items}/{found['id']}").json()
    section = next(section["id"] for section in item["sections"] if section["label"] == "development")
    wanted = {"label": label, "section": {"id": section}}
    return next(str(entry["value"]) for entry in item["fields"] if wanted.items() <= entry.items())


def test_vault_leads_to_the_other_stand_ins(service: tuple[subprocess.Popen[str], int]) -> None:
    process, base = service
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10) as client:
        slack = field(client, base, "Slack webhook", "url")
        assert httpx.post(slack, json={"text": "hi"}).text == "ok"
        assert httpx.get(field(client, base, "Heartbeat", "url")).status_code == 200
        sha = "0" * 40
        status = httpx.post(
            f"http://127.0.0.1:{base + 6}/repos/team/atd-airflow/statuses/{sha}",
            json={"state": "success"},
            headers={"Authorization": f"Bearer {field(client, base, 'DAG repository', 'github token')}"},
        )
        assert status.status_code == 201
        channel = field(client, base, "Airflow webhook", "channel")
    with httpx.stream("GET", channel, headers={"Accept": "text/event-stream"}, timeout=10) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "id: 0"
        assert httpx.post(channel, json={"sent": 1}).status_code == 200
        message = next(line for line in lines if "sent" in line)
        assert '"body":{"sent":1}' in message
        # A relay that listens does not hold up the stop.
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=4) == 0


def test_dag_repository_is_seeded_and_takes_a_push(
    service: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    _, base = service
    clone = tmp_path / "clone"

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    url = f"http://127.0.0.1:{base + 5}/cityofaustin/atd-airflow.git"
    git("clone", "--quiet", url, str(clone))
    assert [path.name for path in (clone / "dags").iterdir()] == ["one.py"]
    assert git("-C", str(clone), "branch", "--show-current") == "production"
    # Larger than waitress holds in memory.
    (clone / "random").write_bytes(os.urandom(3 * 2**20))
    git("-C", str(clone), "add", ".")
    git("-C", str(clone), "commit", "--quiet", "--message", "second")
    git("-C", str(clone), "push", "--quiet")
    found = git("ls-remote", url, "refs/heads/production")
    assert found.split()[0] == git("-C", str(clone), "rev-parse", "HEAD")


def test_dag_repository_is_read_over_ssh(service: tuple[subprocess.Popen[str], int], tmp_path: Path) -> None:
    """With the key that the vault has, from the host whose key GitHub's API publishes."""
    _, base = service
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10) as client:
        key = field(client, base, "DAG repository", "deploy key")
        (host_key,) = client.get(f"http://127.0.0.1:{base + 6}/meta").json()["ssh_keys"]
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(key)
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{base + 8} {host_key}\n")
    found = subprocess.run(
        ["git", "ls-remote", f"ssh://{getpass.getuser()}@127.0.0.1:{base + 8}/cityofaustin/atd-airflow.git"],
        env={
            **os.environ,
            "GIT_SSH_COMMAND": f"ssh -F {os.devnull} -o BatchMode=yes -o IdentitiesOnly=yes -i {tmp_path}/key"
            f" -o StrictHostKeyChecking=yes -o UserKnownHostsFile={tmp_path}/known_hosts",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.endswith("refs/heads/production\n")


def test_connections_to_the_channel_server_are_reset_on_request(
    service: tuple[subprocess.Popen[str], int],
) -> None:
    """A fault to try the relay with; whoever connects anew is served."""
    process, base = service

    def listen() -> socket.socket:
        line = socket.create_connection(("127.0.0.1", base + 4), timeout=10)
        line.sendall(b"GET /a-channel HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        received = b""
        while b"event: ready" not in received:
            received += line.recv(1000)
        return line

    def read_to_the_end(line: socket.socket) -> None:
        while line.recv(1000):
            pass

    with listen() as line:
        process.send_signal(signal.SIGUSR1)
        with pytest.raises(ConnectionResetError):
            read_to_the_end(line)
    listen().close()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OP_API_TOKEN", None, "set OP_API_TOKEN"),
        ("OP_VAULT_ID", None, "set OP_VAULT_ID"),
        ("OP_VAULT_ID", "short", "26 characters"),
        ("OP_TASK_TOKEN", "any", "set OP_TASK_VAULT_ID"),
        ("OP_TASK_TOKEN_FILE", "/nowhere/token", "OP_TASK_TOKEN_FILE: No such file"),
        ("SANDBOX_PORT_BASE", "nine", "a setting is wrong"),
    ],
)
def test_says_which_setting_is_wrong(tmp_path: Path, name: str, value: str | None, message: str) -> None:
    settings = environment(tmp_path)
    settings.pop(name, None)
    if value is not None:
        settings[name] = value
    run = subprocess.run(
        [sys.executable, "-m", "sandbox"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
