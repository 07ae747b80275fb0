"""20,000 bad calls as fast as a client can send them, and fifty callers who are slow: nobody else notices."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from delivery import HOST, ROOT, Delivery, dag_source, new_name

CALLS = 20_000
NOTICED_SECONDS = 1.0
"""Nobody waits in vain for a page that is quicker than this. What a flood adds, bench/webhook measures."""


def p95(ask: Callable[[], float], go_on: Callable[[int], bool]) -> float:
    """Return the 95th percentile of what `ask` takes in seconds, asked ten times a second."""
    found: list[float] = []
    while go_on(len(found)):
        found.append(ask())
        time.sleep(max(0.0, 0.1 - found[-1]))
    return sorted(found)[int(len(found) * 0.95)]


def page_p95() -> float:
    """Return the 95th percentile of what the status page takes in seconds, read on the host.

    Whoever floods comes from elsewhere, and would be answered by HAProxy alone.
    """
    with (ROOT / "bench" / "http_load").open() as program:
        done = subprocess.run(
            [
                *("docker", "exec", "--interactive", HOST, "python3", "-", "127.0.0.1", "8081"),
                *("--requests", "100", "--connections", "1", "--json"),
            ],
            stdin=program,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
    found = json.loads(done.stdout)
    assert found["statuses"] == {"200": 100}
    return float(found["p95_ms"]) / 1000


def test_slow_callers_disturb_nobody(delivery: Delivery) -> None:
    """Fifty, of every kind, on every route: the status page keeps its pace, and a push goes live as ever."""
    dag = new_name("slow")
    address = urlsplit(delivery.webhook)
    page_p95()
    quiet = page_p95()
    callers = subprocess.Popen(
        [
            *(sys.executable, ROOT / "bench" / "slow_callers", str(address.hostname), str(address.port)),
            "--callers=50",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert callers.stdout
        assert callers.stdout.readline() == "all call\n"
        commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})
        began = time.monotonic()
        delivery.announce(commit)
        delivery.wait_until_live(commit)
        seconds = time.monotonic() - began
        flooded = page_p95()
        callers.terminate()
        output, _ = callers.communicate(timeout=30)
    finally:
        callers.kill()
        callers.wait()
    found = json.loads(output)
    print(
        f"p95 of the page: quiet {quiet:.3f} s, flooded {flooded:.3f} s; live after {seconds:.1f} s; {found}"
    )
    assert sum(kind["opened"] for kind in found.values()) >= 50
    assert flooded <= max(2 * quiet, NOTICED_SECONDS)


def test_flood_of_bad_calls_disturbs_nobody(delivery: Delivery, doors: dict[str, str]) -> None:
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

    def announce_and_wait() -> tuple[float, bool]:
        """Return the seconds until it was live, and whether the flood was still on then."""
        # Not before HAProxy has noticed the flood.
        time.sleep(2)
        began = time.monotonic()
        delivery.announce(commit)
        delivery.wait_until_live(commit)
        return time.monotonic() - began, flood.poll() is None

    flood = subprocess.Popen(
        [
            *(sys.executable, ROOT / "bench" / "http_load", str(address.hostname), str(address.port)),
            *("--requests", str(CALLS), "--connections", "60", "--method", "POST", "--path", "/webhook"),
            *("--header", "X-Webhook-Key: wrong", "--json"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            live = pool.submit(announce_and_wait)
            flooded = p95(page, lambda count: flood.poll() is None)
            seconds, during = live.result()
        output, _ = flood.communicate(timeout=10)
        lasted = time.monotonic() - started
    finally:
        flood.kill()
        flood.wait()
    result = json.loads(output)
    assert sum(result["statuses"].values()) + result["broken"] == CALLS
    assert set(result["statuses"]) <= {"401", "429"}
    print(
        f"p95 of the page: quiet {quiet:.3f} s, in {lasted:.0f} s of flood {flooded:.3f} s;"
        f" live after {seconds:.1f} s; {result}"
    )
    assert during, "the flood was over before the commit was live"
    assert flooded <= max(2 * quiet, NOTICED_SECONDS)
