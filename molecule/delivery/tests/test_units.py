"""What systemd sees to on the host: the relay, and the timer that stands in for a channel that is dead."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, Delivery, dag_source, new_name
from testinfra.host import Host

RELAY = "smee-relay.service"
TIMER = "dag-sync.timer"


def properties(host: Host, unit: str, *names: str) -> list[str]:
    """Return systemd's view of a unit."""
    found = host.check_output(f"systemctl show {unit} --property {','.join(names)}")
    values = dict(line.partition("=")[::2] for line in found.splitlines())
    return [values[name] for name in names]


def push(delivery: Delivery) -> str:
    """Push a DAG without telling anybody."""
    dag = new_name("unannounced")
    return delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})


@pytest.fixture
def impatient_timer(host: Host) -> Iterator[None]:
    """The timer with seconds for minutes."""
    folder = f"/run/systemd/system/{TIMER}.d"
    # An empty value takes back what the unit says.
    often = "[Timer]\\nOnBootSec=\\nOnUnitActiveSec=\\nOnActiveSec=1s\\nOnUnitInactiveSec=2s\\n"
    reload = f"systemctl daemon-reload && systemctl restart {TIMER}"
    host.check_output(f"mkdir -p {folder} && printf '{often}' > {folder}/often.conf && {reload}")
    yield
    host.check_output(f"rm -r {folder} && {reload}")


@pytest.mark.parametrize("unit", [RELAY, TIMER])
def test_unit_runs_now_and_after_a_boot(host: Host, unit: str) -> None:
    """Nobody starts it by hand."""
    assert properties(host, unit, "ActiveState", "UnitFileState") == ["active", "enabled"]


def test_timer_comes_every_five_minutes_and_at_boot(host: Host) -> None:
    """A dead channel then costs minutes at most."""
    [timers] = properties(host, TIMER, "TimersMonotonic")
    # Such as "{ OnUnitActiveUSec=5min ; next_elapse=… } { OnBootUSec=1min ; next_elapse=… }", one per line.
    unit = host.check_output(f"systemctl cat {TIMER}")
    assert re.search(r"^On(Boot|Startup|Active)Sec=", unit, re.MULTILINE)
    assert re.search(r"^On(Unit(Active|Inactive)Sec|Calendar)=.*5", unit, re.MULTILINE)
    assert timers
    assert TIMER in host.check_output("systemctl list-timers --no-pager --no-legend")


def test_timer_brings_a_push_of_which_nobody_told(delivery: Delivery, impatient_timer: None) -> None:
    """The timer's own work, only sooner."""
    delivery.wait_until_live(push(delivery))


def test_service_can_be_started_by_hand(delivery: Delivery) -> None:
    """It is the same sync, and its result is in the journal."""
    commit = push(delivery)
    started = delivery.host.run("timeout 60 systemctl start dag-sync.service")
    assert started.rc == 0, started.stderr
    assert delivery.live() == commit
    assert properties(delivery.host, "dag-sync.service", "Result") == ["success"]
    journal = delivery.host.check_output(
        "journalctl --unit dag-sync.service --lines 10 --output cat --no-pager"
    )
    assert commit[:12] in journal


def test_relay_is_shut_in(host: Host) -> None:
    """It reads what anybody writes into a public channel: exposure 2.0 or less, of 10."""
    answer = host.check_output(f"systemd-analyze security --no-pager {RELAY}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", answer)
    assert found, answer[-500:]
    assert float(found[1]) <= 2.0


def test_relay_is_watched(host: Host) -> None:
    """One that hangs is as bad as one that is gone."""
    kind, restart, watchdog = properties(host, RELAY, "Type", "Restart", "WatchdogUSec")
    assert (kind, restart) == ("notify", "always")
    assert watchdog not in ("", "0", "infinity")


def test_channel_is_in_no_process_list(delivery: Delivery) -> None:
    """Whoever knows the address can read and write it."""
    assert delivery.vault("channel") not in delivery.host.check_output("ps -e -o args")


def test_relay_is_heard(delivery: Delivery) -> None:
    """The status page knows that it hears its channel."""
    wait_for("the relay", lambda: (delivery.page()["relay"] or {}).get("state") == "connected", PATIENCE)


def test_restarted_relay_asks_for_a_sync(delivery: Delivery) -> None:
    """What was announced while it was away is lost in the channel, and found all the same."""
    commit = push(delivery)
    delivery.host.check_output(f"systemctl restart {RELAY}")
    delivery.wait_until_live(commit)


@pytest.fixture
def impatient_watchdog(host: Host) -> Iterator[None]:
    """The watchdog with seconds for a minute."""
    folder = f"/run/systemd/system/{RELAY}.d"
    short = "[Service]\\nWatchdogSec=5\\nTimeoutAbortSec=5\\n"
    restart = f"systemctl daemon-reload && systemctl restart {RELAY}"
    host.check_output(f"mkdir -p {folder} && printf '{short}' > {folder}/short.conf && {restart}")
    yield
    host.check_output(f"rm -r {folder} && {restart}")


def test_hung_relay_is_restarted(delivery: Delivery, impatient_watchdog: None) -> None:
    """Stopped in its tracks, it feeds the watchdog no more."""
    [before] = properties(delivery.host, RELAY, "MainPID")
    delivery.host.check_output(f"kill -STOP {before}")
    commit = push(delivery)

    def replaced() -> bool:
        return properties(delivery.host, RELAY, "MainPID")[0] not in (before, "0")

    wait_for("systemd to replace it", replaced, 30)
    delivery.wait_until_live(commit)
