"""`python3 -m sandbox` as a service: each stand-in on its port, a clean stop, a word on a wrong setting."""

from __future__ import annotations

import os
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


def free_port_base() -> int:
    """Return a number after which at least three ports are free."""
    for base in range(20_000, 30_000, 10):
        try:
            for offset in (1, 2, 3):
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
def service(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    base = free_port_base()
    settings = environment(tmp_path, SANDBOX_PORT_BASE=str(base), SANDBOX_ENVIRONMENTS="staging, demo")
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
            process.kill()


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
    assert "GET /image/533.jpg 200" in log
    assert TOKEN not in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OP_API_TOKEN", None, "set OP_API_TOKEN"),
        ("OP_VAULT_ID", None, "set OP_VAULT_ID"),
        ("OP_VAULT_ID", "short", "26 characters"),
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
