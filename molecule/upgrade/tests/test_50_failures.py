"""Failures in the switch itself, on the way to a release that was here before: the old one comes back.

The host does that by itself, so it is driven here as upgrade.yml drives it, without the
preparation that would find most of these faults earlier. Each begins where the one before has ended, which
is also the proof that a second run works.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from airflow_api import wait_for
from control_node import ControlNode, version
from long_tests import when_asked
from platform_host import DIRECTORY, SERVICE, Platform
from poller import Poller
from snapshot import Snapshot

pytestmark = pytest.mark.starts_on("2.5.3")

NEXT = f"{DIRECTORY}/releases/next"


@pytest.fixture
def came_back(platform: Platform, before: Snapshot, poller: Poller) -> Callable[[str], None]:
    """Return a function that waits for the end, and checks that the old release runs with its data."""

    def check(phase: str) -> None:
        assert platform.wait_for_end() == "reverted"
        failure = platform.operation()["failure"]
        assert failure["phase"] == phase, failure
        assert platform.version == "2.5.3"
        platform.wait_until_healthy()
        assert before.differences(platform.snapshot()) == []
        assert poller.unanswered() == []
        assert poller.abrupt() == []
        platform.pulse_goes_on()

    return check


@pytest.fixture
def prepared(platform: Platform) -> None:
    """The switch to 2.6.1, ready to start."""
    platform.begin_release(platform.newest_release("2.6.1"), "2.6.1")


def test_rehearsal_fails(platform: Platform, prepared: None, before: Snapshot, poller: Poller) -> None:
    """Nothing that runs is touched, and the operation can be given up. About 30 s."""
    containers = platform.containers()
    with platform.refused_migration():
        rehearsed = platform.run("airflow-release rehearse", seconds=300)
    assert rehearsed.rc == 3
    assert "no table may be changed today" in rehearsed.stderr
    assert platform.phases() == {"rehearse": "failed"}
    platform.check("airflow-release abandon")
    assert platform.containers() == containers
    assert "airflow_next" not in platform.databases()
    assert before.differences(platform.snapshot()) == []
    assert poller.outages("airflow") == []


def test_migration_fails(platform: Platform, prepared: None, came_back: Callable[[str], None]) -> None:
    """With an error that comes only now; the database that failed is kept for a look. About 50 s."""
    with platform.refused_migration():
        platform.switch()
        came_back("migrate")
    assert "no table may be changed today" in platform.operation()["failure"]["log"]
    assert "airflow_failed" in platform.databases()


@when_asked
def test_operator_is_told_of_a_failed_migration(
    platform: Platform, control: ControlNode, came_back: Callable[[str], None]
) -> None:
    """By upgrade.yml, whose last words name the phase, and by the report, which has the log. About 90 s."""
    pin = control.pin
    with platform.long_task() as task:
        task.wait_until_running()
        upgrade = control.start("upgrade.yml", version("2.6.1"))
        upgrade.wait_for("the drain", lambda: platform.is_in("drain"), 180)
        with platform.refused_migration():
            task.let_end()
            upgrade.wait(300).failed("migrate failed: ", "Airflow 2.5.3 runs again, with its data")
            came_back("migrate")
    assert task.state == "success"
    assert control.pin == pin
    page = control.page("2.5.3", "2.6.1")
    assert "It failed in the phase migrate" in page
    assert "no table may be changed today" in page


def test_webserver_never_gets_healthy(
    platform: Platform, prepared: None, came_back: Callable[[str], None]
) -> None:
    """One that ends as soon as it starts. The failed database is the migrated one. About 120 s."""
    compose = f"{NEXT}/docker-compose.yaml"
    platform.check(f"sed -i 's/command: .airflow, webserver,/command: [airflow, no-such-command,/' {compose}")
    platform.check(f"grep --quiet no-such-command {compose}")
    platform.switch()
    came_back("start")
    assert platform.sql("SELECT version_num FROM alembic_version") != platform.sql(
        "SELECT version_num FROM alembic_version", "airflow_failed"
    )


@when_asked
@pytest.mark.parametrize("phase", ["migrate", "start"])
def test_engine_is_killed(
    platform: Platform, prepared: None, came_back: Callable[[str], None], phase: str
) -> None:
    """systemd starts it again, and it goes back. About 90 s each."""
    platform.switch()
    platform.wait_for_phase(phase)
    platform.check(f"systemctl kill --signal SIGKILL {SERVICE}")
    came_back("interrupted")


@when_asked
def test_host_is_rebooted(platform: Platform, prepared: None, before: Snapshot) -> None:
    """In the moment at which most is undone; it comes back by itself after the boot. About 120 s."""
    platform.switch()
    platform.wait_for_phase("start")
    platform.reboot()
    # Docker on the host may still be starting.
    wait_for("the host's Docker", lambda: platform.run("docker compose ps").rc == 0, 60)
    assert platform.wait_for_end() == "reverted"
    assert platform.version == "2.5.3"
    platform.wait_until_healthy()
    assert before.differences(platform.snapshot()) == []
    platform.pulse_goes_on()


@when_asked
def test_nobody_confirms(platform: Platform, came_back: Callable[[str], None]) -> None:
    """The control node is gone for good: the host does not stay between two releases. About 150 s."""
    platform.begin_release(platform.newest_release("2.6.1"), "2.6.1", confirm_timeout=1)
    platform.switch()
    came_back("smoke")
