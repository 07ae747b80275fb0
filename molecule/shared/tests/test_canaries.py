"""No secret is anywhere but in its place, after everything that the other tests did with the platform.

canaries.py says what a canary is, and where it may be.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from canaries import (
    AIRFLOW,
    PAGES,
    PLACES,
    PLANTED_PLACES,
    SLACK,
    SLACK_MESSAGES,
    STREAMS,
    Canaries,
    misplaced,
    planted,
    search,
)
from expected import SERVICES
from testinfra.host import Host
from webhook.keys import signature
from webhook.settings import connect_from_environment
from webhook.vault import ConnectVault


@pytest.fixture(scope="module")
def found(
    host: Host, http: Any, endpoints: dict[str, str], env_files: dict[str, dict[str, str]], weather_run: Any
) -> dict[str, list[str]]:
    """The names of the canaries that are in each place, after a run of the DAG and a call of the webhook."""
    key = ConnectVault(connect_from_environment(env_files["webhook.env"])).read()
    now, nonce = str(int(time.time())), os.urandom(16).hex()
    headers = {
        "X-Webhook-Timestamp": now,
        "X-Webhook-Nonce": nonce,
        "X-Webhook-Signature": f"sha256={signature(key, now, nonce, b'')}",
    }
    call = http("POST", f"{endpoints['webhook']}/webhook", headers=headers)
    assert call.status_code not in (401, 403), call.text
    with planted(host):
        return search(host)


def test_canaries_are_recognised(found: dict[str, list[str]]) -> None:
    """A search that finds nothing where there is something would prove nothing."""
    assert {*AIRFLOW, SLACK, "Airflow webhook / key", "Airflow webhook / relay token"} <= set(
        found["canaries"]
    )
    assert {place for place, names in found.items() if "planted" in names} - {"canaries"} == PLANTED_PLACES
    for service in ("airflow-worker", "webhook"):
        place = f"definition of {service}"
        assert set(found[place]) == PLACES[place][0]


def test_canary_is_recognised_in_a_folded_text(
    canaries: Canaries, env_files: dict[str, dict[str, str]]
) -> None:
    """Ansible breaks long lines at a space; what is no secret is none."""
    token = env_files["webhook.env"]["OP_API_TOKEN"]
    assert canaries.in_text(f"msg: it is\n    {token}") == {"token of the platform"}
    assert canaries.in_text(f"the address is {env_files['webhook.env']['OP_CONNECT']}") == set()


@pytest.mark.parametrize(
    "place",
    [*STREAMS, *PAGES, SLACK_MESSAGES, *(f"definition of {service}" for service in SERVICES)],
)
def test_place_has_its_own_secrets_alone(found: dict[str, list[str]], place: str) -> None:
    """Logs, dumps, pages and definitions are copied, mailed and pasted into tickets."""
    assert place in found
    assert misplaced(found).get(place, set()) == set()


def test_nothing_is_found_anywhere_else(found: dict[str, list[str]]) -> None:
    """In a file that everybody can read, or in a container that is no service."""
    assert misplaced(found) == {}
