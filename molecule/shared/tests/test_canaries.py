"""No secret is anywhere but in its place, after everything that the other tests did with the platform.

canaries.py says what a canary is, and where it may be.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from airflow_pages import shown
from canaries import (
    AIRFLOW,
    PAGES,
    PLACES,
    PLANTED_PLACES,
    REGISTRY,
    SLACK,
    SLACK_MESSAGES,
    STREAMS,
    Canaries,
    misplaced,
    planted,
    search,
    watched,
)
from canary_search import Found, marks
from expected import SERVICES
from process_watch import COMMAND_LINES
from testinfra.host import Host
from webhook.keys import signature
from webhook.settings import connect_from_environment
from webhook.vault import ConnectVault

OF_THE_PLATFORM = {
    "Airflow webhook / key",
    "Airflow webhook / relay token",
    "Heartbeat / url",
    "Prometheus / token",
}
"""What neither Airflow nor a task has to do with."""


@pytest.fixture(scope="module")
def found(
    host: Host, http: Any, endpoints: dict[str, str], env_files: dict[str, dict[str, str]], weather_run: Any
) -> Found:
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


def test_canaries_are_recognised(found: Found) -> None:
    """A search that finds nothing where there is something would prove nothing."""
    assert {*AIRFLOW, *REGISTRY, *OF_THE_PLATFORM, SLACK} <= set(found["canaries"])
    assert {place for place, names in found.items() if "planted" in names} - {"canaries"} == PLANTED_PLACES
    for service in ("airflow-worker", "webhook"):
        place = f"definition of {service}"
        assert set(found[place]) == PLACES[place][0]
    # The dump is opened, else it would have no statement.
    assert "table of XComs" in found["the dump in the newest backup"]


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
def test_place_has_its_own_secrets_alone(found: Found, place: str) -> None:
    """Logs, dumps, pages and definitions are copied, mailed and pasted into tickets."""
    assert place in found
    assert misplaced(found).get(place, set()) == set()


def test_nothing_is_found_anywhere_else(found: Found) -> None:
    """In a file that everybody can read, or in a container that is no service."""
    assert misplaced(found) == {}


@pytest.fixture(scope="module")
def airflows(
    weather_run: dict[str, Any], endpoints: dict[str, str], administrator: tuple[str, str]
) -> dict[str, str]:
    """What Airflow shows of the weather DAG's run to its administrator."""
    return shown(endpoints["airflow"], administrator, weather_run["run"])


def test_no_page_of_airflow_has_a_secret(airflows: dict[str, str], canaries: Canaries) -> None:
    """Its lists, its logs, and what it shows of each task, to somebody who may see everything."""
    # The template's text where Airflow has not kept what it became.
    templates = airflows["the page /rendered-templates of annotate"]
    assert "airflow-platform/annotate" in templates or "weather_annotate_image" in templates
    assert {place: names for place, text in airflows.items() if (names := canaries.in_text(text))} == {}


@pytest.fixture(scope="module")
def seen(host: Host, found: Found) -> Found:
    """What processes have shown of canaries: in site.yml, in a reboot, in the tests."""
    return watched(host)


def test_watch_has_seen_processes(seen: Found) -> None:
    """Those of operations, and those of the search, whose program has the text that is planted."""
    assert {"dockerd", "pg_dump", "docker"} <= set(seen["programs"])
    assert "planted" in seen[COMMAND_LINES]
    for service in ("airflow-worker", "webhook", "postgres"):
        shown_by = set(seen[f"variables of {service}"]) - set(marks().values())
        assert shown_by == PLACES[f"definition of {service}"][0]


def test_no_process_has_shown_a_secret(seen: Found) -> None:
    """Everybody reads command lines; variables are read by processes of the same user."""
    assert misplaced(seen) == {}
