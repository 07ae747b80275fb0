"""After pushes and calls, among them refused ones: no secret of production is anywhere but in its place.

One DAG hands secrets on to a container, as most DAGs of the team do. The files after this one make many more
calls, but leave the port closed to this machine. It costs about 75 s.
"""

from __future__ import annotations

import os
import time
from typing import Any

import handing_on
import pytest
from canaries import AIRFLOW, PLACES, PLANTED_PLACES, Canaries, misplaced, planted, search, watched
from canary_search import Found
from delivery import Delivery
from handing_on import HandedOn, hand_on


def mistaken_calls(key: str) -> dict[str, dict[str, Any]]:
    """Return calls that have the valid key in a wrong place, as a mistaken caller may send it."""
    stamp = {"X-Webhook-Timestamp": str(int(time.time())), "X-Webhook-Nonce": os.urandom(16).hex()}
    return {
        "where a signature belongs": {"headers": {**stamp, "X-Webhook-Signature": f"sha256={key}"}},
        "as a bearer's token": {"headers": {"Authorization": f"Bearer {key}"}},
        "with more behind it": {"headers": {"X-Webhook-Key": f"{key}0"}},
        "in the body": {"json": {"key": key}},
    }


@pytest.fixture(scope="module")
def handed_on(delivery: Delivery, endpoints: dict[str, str], administrator: tuple[str, str]) -> HandedOn:
    """A run of the DAG that hands secrets on, delivered by a push."""
    commit = delivery.repository.push({f"dags/{handing_on.FILE.name}": handing_on.FILE.read_text()})
    delivery.announce(commit)
    delivery.wait_until_live(commit)
    delivery.wait_until_known(handing_on.DAG)
    return hand_on(delivery.host, delivery.airflow, endpoints["airflow"], administrator)


@pytest.fixture(scope="module")
def found(delivery: Delivery, handed_on: HandedOn) -> Found:
    """The names of the canaries that are in each place, after calls that are refused, too."""
    key = delivery.vault("key")
    for where, options in mistaken_calls(key).items():
        answer = delivery.http("POST", f"{delivery.webhook}/webhook", **options)
        assert answer.status_code == 401, f"{where}: {answer.status_code}"
    # Its dump has the XComs of the run.
    delivery.host.check_output("airflow-release backup take --json --wait 300 --reason 'a test'")
    with planted(delivery.host):
        found = search(delivery.host)
    # What was looked for is what those calls had.
    assert delivery.vault("key") == key
    return found


def test_secret_that_is_handed_on_is_read_by_its_container_alone(
    handed_on: HandedOn, canaries: Canaries
) -> None:
    """Not on a page, in the API, an XCom or a task's log, nor by another DAG through the filter."""
    handed_on.check(canaries)


def test_calls_and_pushes_leave_no_secret(found: Found) -> None:
    """In logs, the journal, the database and its dump, pages, reports, messages and definitions."""
    assert {*AIRFLOW, "Airflow webhook / key", "DAG repository / deploy key"} <= set(found["canaries"])
    assert {place for place, names in found.items() if "planted" in names} - {"canaries"} == PLANTED_PLACES
    assert "table of XComs" in found["the dump in the newest backup"]
    assert misplaced(found) == {}


def test_no_process_has_shown_a_secret(delivery: Delivery, found: Found) -> None:
    """While the platform became production, and since."""
    seen = watched(delivery.host)
    assert set(seen["variables of webhook"]) == PLACES["definition of webhook"][0]
    assert misplaced(seen) == {}
