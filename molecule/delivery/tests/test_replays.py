"""The channel is public: whoever listens may send what he heard again, and changes nothing by it."""

from __future__ import annotations

import httpx
from airflow_api import wait_for
from delivery import PATIENCE, Delivery, dag_source, new_name

REPLAYED = 'webhook_calls_total{endpoint="webhook",status="409"}'


def test_replayed_announcement_changes_nothing(delivery: Delivery) -> None:
    """A nonce counts once; and what goes over the channel does not contain the key."""
    channel, dag = delivery.vault("channel"), new_name("replayed")
    key = delivery.vault("key")
    with httpx.stream(
        "GET", channel, headers={"Accept": "text/event-stream"}, timeout=20, trust_env=False
    ) as listener:
        lines = listener.iter_lines()
        assert any("ready" in line for line in lines)
        commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag, "announced")})
        delivery.announce(commit)
        heard = next(line for line in lines if line.startswith("data: ") and "body" in line)
    assert key not in heard
    delivery.wait_until_live(commit)
    count = delivery.metric(REPLAYED)

    later = delivery.repository.push({f"dags/{dag}.py": dag_source(dag, "not announced")})
    replay = delivery.http(
        "POST",
        f"{channel}/redeliver",
        data=heard.removeprefix("data: "),
        headers={"Content-Type": "application/json"},
    )
    assert replay.status_code == 200
    wait_for("the refusal", lambda: delivery.metric(REPLAYED) == count + 1, PATIENCE, pause=0.25)
    assert delivery.live() == commit
    delivery.announce(later)
    delivery.wait_until_live(later)


def test_key_counts_once_and_is_replaced(delivery: Delivery) -> None:
    """The simple way to call: the key itself, which the call spends."""
    key, dag = delivery.vault("key"), new_name("by_key")
    commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})

    def call() -> int:
        headers = {"X-Webhook-Key": key}
        return int(delivery.http("POST", f"{delivery.webhook}/webhook", headers=headers).status_code)

    assert call() == 202
    delivery.wait_until_live(commit)
    later = delivery.repository.push({f"dags/{dag}.py": dag_source(dag, "later")})
    assert call() == 409
    assert delivery.live() == commit
    wait_for("another key in 1Password", lambda: delivery.vault("key") != key, PATIENCE)
    assert call() == 409
    assert delivery.live() == commit
    delivery.announce(later)
    delivery.wait_until_live(later)


def test_job_says_what_became_of_a_call(delivery: Delivery) -> None:
    """The answer comes at once; the address in it tells the rest."""
    response = delivery.http(
        "POST", f"{delivery.webhook}/webhook", headers={"X-Webhook-Key": delivery.vault("key")}
    )
    assert response.status_code == 202
    address = f"{delivery.webhook}/jobs/{response.json()['job']}"

    def done() -> dict[str, str] | None:
        job: dict[str, str] = delivery.http("GET", address).json()
        return job if job["state"] == "done" else None

    assert wait_for("the job", done, PATIENCE, pause=0.25)["outcome"] == "unchanged"
