"""Fifty callers who are slow, and sixty who are fast: nobody else notices. bench/webhook measures them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from delivery import HOST, ROOT, Delivery, dag_source, new_name
from expected import ENDPOINTS

REQUESTS = 100
BENCH = ROOT / "bench"
Json = dict[str, Any]


def read_page() -> float:
    """Read the status page on the host; return the 95th percentile of what it takes, in ms.

    Whoever floods comes from elsewhere, and is answered by HAProxy alone.
    """
    port = str(ENDPOINTS["webhook"])
    with (BENCH / "http_load").open() as program:
        done = subprocess.run(
            [
                *("docker", "exec", "--interactive", HOST, "python3", "-", "127.0.0.1", port, "--json"),
                *("--requests", str(REQUESTS), "--rate", "10", "--connections", "1"),
            ],
            stdin=program,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
    found = json.loads(done.stdout)
    assert found["statuses"] == {"200": REQUESTS}
    return float(found["p95_ms"])


@contextmanager
def flood(delivery: Delivery, program: str, *options: str) -> Iterator[Callable[[], Json]]:
    """Have the webhook called meanwhile; yield what ends that and returns what the callers saw."""
    address = urlsplit(delivery.webhook)
    process = subprocess.Popen(
        [sys.executable, BENCH / program, str(address.hostname), str(address.port), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:

        def stop() -> Json:
            assert process.poll() is None, "the flood was over before the end of the test"
            process.terminate()
            output, _ = process.communicate(timeout=60)
            found: Json = json.loads(output.splitlines()[-1])
            return found

        yield stop
    finally:
        process.kill()
        process.communicate()


def go_on_as_ever(delivery: Delivery) -> float:
    """Read the page, and push a commit and see it live; return the page's 95th percentile in ms."""
    dag = new_name("flood")
    commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})
    delivery.announce(commit)
    delivery.wait_until_live(commit)
    return read_page()


def test_slow_callers_disturb_nobody(delivery: Delivery) -> None:
    """Of every kind, on every route: every page is there, and a push goes live as ever."""
    with flood(delivery, "slow_callers", "--callers=50") as stop:
        p95 = go_on_as_ever(delivery)
        found = stop()
    print(f"p95 of the page: {p95:.0f} ms; {found}")
    assert sum(kind["opened"] for kind in found.values()) >= 50


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        (("--method=POST", "--path=/webhook", "--header=X-Webhook-Key: wrong"), {"401", "429"}),
        (("--path=/",), {"200", "429"}),
    ],
    ids=["wrong keys", "readers of the page"],
)
def test_fast_callers_disturb_nobody(
    delivery: Delivery, request_: tuple[str, ...], answers: set[str]
) -> None:
    """Sixty, as fast as they can: HAProxy turns them away, and the page and a push go on as ever."""
    with flood(delivery, "http_load", "--requests=1000000", "--connections=60", "--json", *request_) as stop:
        p95 = go_on_as_ever(delivery)
        found = stop()
    print(f"p95 of the page: {p95:.0f} ms; {found}")
    assert set(found["statuses"]) <= answers
    assert found["statuses"]["429"] > found["statuses"].get("200", 0)
