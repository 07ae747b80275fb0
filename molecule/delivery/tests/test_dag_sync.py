"""`dag-sync` on the host: look, go back, stay, follow again."""

from __future__ import annotations

import json

import pytest
from delivery import Delivery, dag_source, new_name


def test_pin_is_the_rollback(delivery: Delivery) -> None:
    """One command goes back, whatever is pushed then stays out, one command follows the branch again."""
    dag = new_name("pinned")
    commits = []
    for description in ("first", "second"):
        commits.append(delivery.repository.push({f"dags/{dag}.py": dag_source(dag, description)}))
        delivery.announce(commits[-1])
        delivery.wait_until_known(dag, description)

    pinned = delivery.sync("pin", commits[0][:8])
    try:
        assert pinned.rc == 0, pinned.stderr
        assert delivery.live() == commits[0]
        delivery.wait_until_known(dag, "first")
        assert delivery.page()["delivery"]["pin"] == commits[0]
        assert f"pinned     {commits[0]}" in delivery.sync("status").stdout

        third = delivery.repository.push({f"dags/{dag}.py": dag_source(dag, "third")})
        delivery.announce(third)
        assert "pinned" in delivery.wait_for_status(third, "pending")["description"]
        assert delivery.live() == commits[0]
    finally:
        unpinned = delivery.sync("unpin")
    assert unpinned.rc == 0, unpinned.stderr
    assert delivery.live() == third
    delivery.wait_until_known(dag, "third")
    delivery.wait_for_status(third, "success")
    assert delivery.page()["delivery"]["pin"] is None


def test_status_says_what_is_live(delivery: Delivery) -> None:
    """For people, and for programs."""
    status = delivery.sync("status")
    assert status.rc == 0
    assert status.stdout.splitlines()[0].startswith(f"live       {delivery.live()[:12]}")
    document = json.loads(delivery.sync("status", "--json").stdout)
    assert document["current"] == delivery.live()
    assert document["last_sync"]["outcome"] in ("switched", "unchanged")


@pytest.mark.parametrize("arguments", [[], ["twice"], ["pin"]])
def test_wrong_usage_says_so(delivery: Delivery, arguments: list[str]) -> None:
    """With the exit code that says nothing was tried."""
    assert delivery.sync(*arguments).rc == 2


def test_pin_to_an_unknown_commit_changes_nothing(delivery: Delivery) -> None:
    """A slip of the finger at night must not take DAGs away."""
    live = delivery.live()
    assert delivery.sync("pin", "0123456789abcdef").rc == 1
    assert delivery.live() == live
    assert delivery.page()["delivery"]["pin"] is None
