"""20,000 bad calls as fast as a client can send them: nobody else notices."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from airflow_api import wait_for
from delivery import PROMISE, ROOT, Delivery, dag_source, new_name

CALLS = 20_000


@pytest.fixture
def quiet_again(delivery: Delivery) -> Iterator[None]:
    """Afterwards the door takes this machine's calls again."""
    yield
    wait_for("the door", lambda: delivery.http("GET", f"{delivery.webhook}/").status_code == 200, 90)


def p95(ask: Callable[[], float], go_on: Callable[[int], bool]) -> float:
    """Return the 95th percentile of what `ask` takes in seconds, asked ten times a second."""
    found: list[float] = []
    while go_on(len(found)):
        found.append(ask())
        time.sleep(max(0.0, 0.1 - found[-1]))
    return sorted(found)[int(len(found) * 0.95)]


def test_flood_of_bad_calls_disturbs_nobody(
    delivery: Delivery, doors: dict[str, str], quiet_again: None
) -> None:
    """The Airflow page keeps its pace, and a push in the middle goes live as fast as ever."""
    dag = new_name("flood")
    address = urlsplit(delivery.webhook)

    def page() -> float:
        started = time.monotonic()
        assert delivery.http("GET", f"{doors['airflow']}/login/").status_code == 200
        return time.monotonic() - started

    p95(page, lambda count: count < 20)
    quiet = p95(page, lambda count: count < 100)
    commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})
    flood = subprocess.Popen(
        [
            *(sys.executable, ROOT / "bench" / "http_load", str(address.hostname), str(address.port)),
            *("--requests", str(CALLS), "--method", "POST", "--path", "/webhook"),
            *("--header", "X-Webhook-Key: wrong", "--json"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        flooded = p95(page, lambda count: count < 10)
        assert flood.poll() is None, "the flood has to last longer than this measurement"
        started = time.monotonic()
        delivery.announce(commit)
        delivery.wait_until_live(commit)
        seconds = time.monotonic() - started
        during = flood.poll() is None
        flooded = max(flooded, p95(page, lambda count: flood.poll() is None or count < 10))
        output, _ = flood.communicate(timeout=120)
    finally:
        flood.kill()
        flood.wait()
    result = json.loads(output)
    assert sum(result["statuses"].values()) + result["broken"] == CALLS
    assert set(result["statuses"]) <= {"401", "429"}
    print(f"quiet {quiet:.3f} s, flooded {flooded:.3f} s; live after {seconds:.1f} s, {during=}; {result}")
    assert flooded <= 2 * quiet
    assert seconds <= PROMISE
