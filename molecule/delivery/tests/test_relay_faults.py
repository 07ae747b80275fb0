"""One push and one fault of its path at a time: the webhook is told all the same, soon after the fault's end.

The relay, HAProxy and the webhook are the host's own, as they are configured; the faults are real ones.
How soon it is, on a machine that does nothing else, tests/webhook/test_webhook_relay.py watches.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, SERVICES, Delivery, dag_source, docker, new_name
from expected import ENDPOINTS

RELAY = "smee-relay.service"
CHANNEL_PORT = 9004
WEBHOOK_PORT = ENDPOINTS["webhook"]
MUTE = 60
"""Seconds until it is told of a path that went mute: only a ping that is missing tells, every 30 s."""

PROXY = "faulty-proxy.service"
PROXY_SOURCE = Path(__file__).resolve().parents[3] / "sandbox" / "faulty_proxy.py"
PROXY_PORT = 18081
REFUSALS = 3


@pytest.fixture
def commit(delivery: Delivery) -> str:
    """A push of which nobody has been told yet, on a host with a relay that hears its channel."""

    def at_rest() -> bool:
        # What it says itself, without what systemd says of it.
        own = f"journalctl _SYSTEMD_UNIT={RELAY} --lines 1 --output cat --no-pager"
        last = delivery.host.check_output(own)
        return bool(last.startswith(("asked for a sync", "forwarded")))

    wait_for("the relay", at_rest, PATIENCE)
    dag = new_name("faulty")
    return delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})


def check_told(delivery: Delivery, commit: str, before: float, seconds: float = PATIENCE) -> None:
    """Wait until the webhook was told once more than before, and then has made the commit live."""
    wait_for("the webhook to be told", lambda: delivery.told() > before, seconds, pause=0.1)
    delivery.wait_until_live(commit)


def answers(delivery: Delivery, url: str) -> bool:
    """Tell whether there is a good answer at an address."""
    try:
        return bool(delivery.http("GET", url, timeout=2).ok)
    except OSError:
        return False


def journal(delivery: Delivery, unit: str, since: str) -> str:
    """Return what a unit has said since a cursor of the journal."""
    entries: str = delivery.host.check_output(f"journalctl --unit {unit} --after-cursor %s --no-pager", since)
    return entries


def cursor(delivery: Delivery) -> str:
    """Return the journal's end."""
    last = delivery.host.check_output("journalctl --lines 1 --show-cursor --no-pager --output cat")
    return str(last.rpartition("-- cursor: ")[2].strip())


def test_webhook_is_down_for_eight_seconds(
    delivery: Delivery, containers: dict[str, Any], commit: str
) -> None:
    """The call is kept, and delivered once somebody takes it."""
    webhook = containers["webhook"]["Id"]
    delivery.host.check_output(f"docker stop --time 5 {webhook}")
    down = time.monotonic()
    try:
        delivery.announce(commit)
        time.sleep(max(0, down + 8 - time.monotonic()))  # the fault itself
        assert not answers(delivery, f"{delivery.webhook}/healthz")
    finally:
        delivery.host.check_output(f"docker start {webhook}")
    wait_for("the webhook", lambda: answers(delivery, f"{delivery.webhook}/healthz"), 60, pause=0.1)
    # Its counters begin anew.
    check_told(delivery, commit, before=0)


@pytest.fixture
def faulty_proxy(delivery: Delivery) -> Iterator[None]:
    """A proxy between the relay and HAProxy that answers the first calls with 503 and passes on the rest.

    iptables redirects the relay's packets for the webhook to it, but not those of root, so not its own.
    """
    host = delivery.host
    rule = (
        f"OUTPUT --protocol tcp --destination 127.0.0.1 --dport {WEBHOOK_PORT} --match owner ! --uid-owner 0"
        f" --jump REDIRECT --to-ports {PROXY_PORT}"
    )
    start = (
        f"systemd-run --quiet --collect --unit {PROXY} python3 -c %s {PROXY_PORT} {WEBHOOK_PORT} {REFUSALS}"
    )
    host.check_output(start, PROXY_SOURCE.read_text())
    host.check_output(f"iptables --table nat --insert {rule}")
    try:
        since = cursor(delivery)
        # What it has open goes where it went before.
        host.check_output(f"systemctl restart {RELAY}")
        passed = "the relay's request to sync to pass the proxy"
        wait_for(passed, lambda: "/sync 202" in journal(delivery, PROXY, since), PATIENCE, pause=0.25)
        yield
    finally:
        host.check_output(f"iptables --table nat --delete {rule} && systemctl stop {PROXY}")
        host.check_output(f"systemctl restart {RELAY}")


def test_webhook_answers_503_three_times(delivery: Delivery, commit: str, faulty_proxy: None) -> None:
    """It is asked again."""
    before, since = delivery.told(), cursor(delivery)
    delivery.announce(commit)

    def calls() -> list[str]:
        return re.findall(r": /webhook (\d+)$", journal(delivery, PROXY, since), re.MULTILINE)

    wait_for("the call", lambda: len(calls()) > REFUSALS, PATIENCE, pause=0.25)
    assert calls() == ["503"] * REFUSALS + ["202"]
    check_told(delivery, commit, before)


def test_connection_is_reset(delivery: Delivery, commit: str) -> None:
    """What is sent before the relay is back is lost, so it asks for a sync."""
    before, since = delivery.told(), cursor(delivery)
    docker("kill", "--signal", "USR1", SERVICES)
    delivery.announce(commit)
    check_told(delivery, commit, before)
    assert "disconnected: " in journal(delivery, RELAY, since)


@pytest.fixture
def mute_line(delivery: Delivery) -> Iterator[None]:
    """The relay's present connection to the channel carries nothing more, and nobody ends it."""
    host = delivery.host
    channel = f"{delivery.outside}:{CHANNEL_PORT}"
    [line] = host.check_output(f"ss --no-header --tcp --numeric state established dst {channel}").splitlines()
    port = re.findall(r":(\d+)", line)[0]
    address = delivery.outside
    rules = (
        f"INPUT --protocol tcp --source {address} --sport {CHANNEL_PORT} --dport {port} --jump DROP",
        f"OUTPUT --protocol tcp --destination {address} --dport {CHANNEL_PORT} --sport {port} --jump DROP",
    )
    for rule in rules:
        host.check_output(f"iptables --insert {rule}")
    yield
    for rule in rules:
        host.check_output(f"iptables --delete {rule}")


def test_path_goes_mute(delivery: Delivery, commit: str, mute_line: None) -> None:
    """Silence that lasts longer than the pings are apart counts as a line that is dead."""
    before, muted = delivery.told(), time.monotonic()
    since = cursor(delivery)
    delivery.announce(commit)
    check_told(delivery, commit, before, muted + MUTE - time.monotonic())
    assert "disconnected: nothing heard" in journal(delivery, RELAY, since)


def test_channel_server_is_restarted(delivery: Delivery, commit: str) -> None:
    """A call that is sent as soon as it is back reaches the webhook, or the relay asks for a sync."""
    before, since = delivery.told(), cursor(delivery)
    docker("restart", "--time", "10", SERVICES)
    wait_for(
        "the channel server",
        lambda: answers(delivery, f"{delivery.stand_in(CHANNEL_PORT)}/a-channel"),
        30,
        pause=0.1,
    )
    delivery.announce(commit)
    check_told(delivery, commit, before)
    assert "disconnected: " in journal(delivery, RELAY, since)


def test_relay_is_killed(delivery: Delivery, commit: str) -> None:
    """Nobody needs to look after it: it comes back, and asks for a sync."""
    before, show = delivery.told(), f"systemctl show {RELAY} --property MainPID --value"
    killed = delivery.host.check_output(show)
    delivery.host.check_output(f"systemctl kill --signal SIGKILL {RELAY}")
    wait_for(
        "systemd to start it", lambda: delivery.host.check_output(show) not in (killed, "0"), 10, pause=0.1
    )
    delivery.announce(commit)
    check_told(delivery, commit, before)
    assert delivery.host.check_output(f"systemctl is-active {RELAY}") == "active"
