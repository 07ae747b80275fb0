"""A hundred good calls while a sync is at work: two syncs at most, and the right commit live."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, STATE, Delivery, dag_source, new_name
from webhook.keys import signature

CALLS = 100
CONNECTIONS = 50
"""HAProxy takes 64 of one address. Each carries two calls."""
LOCKED = "sync-locked"
"""The unit that has the lock, without which no sync goes on."""
OUTCOMES = ("switched", "unchanged", "refused", "failed")


def syncs(delivery: Delivery) -> float:
    """Return how many syncs the webhook has done since its start."""
    return sum(delivery.metric(f'webhook_syncs_total{{outcome="{outcome}"}}') for outcome in OUTCOMES)


def signed(key: str) -> dict[str, str]:
    """Return the headers of a signed call without a body; the key stays as it is."""
    now, nonce = str(int(time.time())), secrets.token_urlsafe(24)
    return {
        "X-Webhook-Timestamp": now,
        "X-Webhook-Nonce": nonce,
        "X-Webhook-Signature": f"sha256={signature(key, now, nonce, b'')}",
    }


def finished(delivery: Delivery, job: str) -> dict[str, Any]:
    """Wait until a job is done, and return it."""

    def done() -> dict[str, Any] | None:
        found: dict[str, Any] = delivery.http("GET", f"{delivery.webhook}/jobs/{job}").json()
        return found if found["state"] == "done" else None

    found: dict[str, Any] = wait_for("the job", done, PATIENCE, pause=0.25)
    return found


@contextmanager
def syncs_waiting(delivery: Delivery) -> Iterator[None]:
    """No sync ends meanwhile, so that it matters to nobody how long this machine takes to make its calls."""
    lock = f"{STATE}/sync.lock"
    delivery.host.check_output(
        f"systemd-run --quiet --collect --unit {LOCKED} flock --exclusive {lock} sleep infinity"
    )
    try:
        locked = f"! flock --exclusive --nonblock {lock} true"
        wait_for("the lock", lambda: delivery.host.run(locked).rc == 0, 10, pause=0.1)
        yield
    finally:
        delivery.host.check_output(f"systemctl stop {LOCKED}")


@pytest.mark.usefixtures("alone")
def test_hundred_calls_lead_to_two_syncs(delivery: Delivery) -> None:
    """Over fifty connections at once, each signed with a nonce of its own."""
    key, dag = delivery.vault("key"), new_name("burst")
    address = urlsplit(delivery.webhook)
    # Whatever an earlier test set off is over once this is.
    first = delivery.http("POST", f"{delivery.webhook}/webhook", headers=signed(key))
    finished(delivery, first.json()["job"])
    before = syncs(delivery)
    commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})
    lines = [http.client.HTTPConnection(address.netloc, timeout=20) for _ in range(CONNECTIONS)]
    calls = [signed(key) for _ in range(CALLS)]

    def call_again_and_again(number: int) -> list[tuple[int, str]]:
        answers = []
        for turn in range(number, CALLS, CONNECTIONS):
            lines[number].request("POST", "/webhook", headers=calls[turn])
            answer = lines[number].getresponse()
            answers.append((answer.status, json.loads(answer.read()).get("job", "")))
        lines[number].close()
        return answers

    with syncs_waiting(delivery), ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = [answer for some in pool.map(call_again_and_again, range(CONNECTIONS)) for answer in some]
    assert len(answers) == CALLS
    assert {status for status, _ in answers} == {202}
    jobs = {job for _, job in answers}
    assert len(jobs) <= 2
    assert commit in {finished(delivery, job)["commit"] for job in jobs}
    assert delivery.live() == commit
    # The webhook counts a sync before it says that its job is done.
    assert 1 <= syncs(delivery) - before <= 2
