"""The control node is killed at every step on the way to the newest release; the same command finishes it.

One upgrade in all: each test kills the command in another phase, and the next one begins with it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from control_node import ControlNode, Running, version
from long_tests import when_asked
from platform_host import LongTask, Platform
from poller import Poller
from snapshot import Snapshot

from tests.releases import NEWEST

TARGET = version(NEWEST)
FOLLOWING = "Watch it until tasks can run"
SMOKE = "dag | Run the weather DAG"


@pytest.fixture(scope="module")
def earlier(platform: Platform) -> Snapshot:
    """What there is before the first of these upgrades."""
    platform.wait_until_healthy()
    return platform.snapshot()


@pytest.fixture(scope="module")
def long_task(platform: Platform) -> Iterator[LongTask]:
    """A task that keeps the switch in its drain until it may end."""
    with platform.long_task() as task:
        task.wait_until_running()
        yield task


@pytest.fixture
def strike(
    platform: Platform, control: ControlNode, poller: Poller
) -> Iterator[Callable[[str, Callable[[Running], object]], None]]:
    """Return a function that runs the upgrade and kills it as soon as a condition holds."""

    def run(what: str, condition: Callable[[Running], object]) -> None:
        upgrade = control.start("upgrade.yml", TARGET)
        upgrade.wait_for(what, lambda: condition(upgrade), 400)
        upgrade.kill()

    yield run
    assert poller.unanswered() == []
    assert poller.abrupt() == []


@pytest.mark.starts_on("2.5.3")
def test_way_to_2_6_1_is_still_open(platform: Platform) -> None:
    """After all that has failed; confirmed by hand, with a full backup disk: the data stay. About 80 s."""
    runs = "SELECT count(*) FROM dag_run"
    platform.begin_release(platform.newest_release("2.6.1"), "2.6.1")
    with platform.full_backup_disk():
        platform.switch()
        platform.check("airflow-release wait verify", seconds=300)
        platform.check("airflow-release confirm")
        assert platform.wait_for_end() == "succeeded"
    assert platform.version == "2.6.1"
    [warning] = platform.operation()["warnings"]
    assert "too little disk" in warning
    [kept] = [name for name in platform.databases() if name.startswith("airflow_kept_")]
    assert kept in warning
    assert json.loads(platform.check("airflow-release releases --json"))[-2]["kept"] == kept
    assert 0 < int(platform.sql(runs, kept)) <= int(platform.sql(runs))
    platform.check(f"docker compose exec --no-TTY postgres dropdb --username=airflow {kept}")


@pytest.mark.starts_on("2.6.1")
@pytest.mark.parametrize("phase", ["build", pytest.param("rehearse", marks=when_asked)])
def test_killed_while_preparing(
    platform: Platform,
    earlier: Snapshot,
    strike: Callable[[str, Callable[[Running], object]], None],
    phase: str,
) -> None:
    """What runs is not touched. About 25 and 60 s."""
    containers = platform.containers()
    strike(phase, lambda upgrade: platform.is_in(phase))
    assert platform.containers().items() >= containers.items()
    assert earlier.differences(platform.snapshot()) == []


@pytest.mark.starts_on("2.6.1")
def test_killed_in_the_drain(
    platform: Platform,
    earlier: Snapshot,
    long_task: LongTask,
    strike: Callable[[str, Callable[[Running], object]], None],
) -> None:
    """The host goes on without it. About 90 s."""
    strike("the drain", lambda upgrade: platform.is_in("drain"))
    assert platform.operation()["state"] == "switching"
    assert long_task.state == "running"


@when_asked
def test_killed_in_the_switch(
    platform: Platform, long_task: LongTask, strike: Callable[[str, Callable[[Running], object]], None]
) -> None:
    """By the second one, which had taken up where the first was. About 60 s."""

    def starting(upgrade: Running) -> bool:
        if FOLLOWING in upgrade.output:
            long_task.let_end()
        return platform.is_in("start")

    strike("the start of the new release", starting)


def test_killed_before_it_has_confirmed(
    platform: Platform, long_task: LongTask, strike: Callable[[str, Callable[[Running], object]], None]
) -> None:
    """The smoke test is at work: the host waits for a verdict that this one will not give. About 100 s."""

    def proving(upgrade: Running) -> bool:
        if FOLLOWING in upgrade.output:
            long_task.let_end()
        return SMOKE in upgrade.output

    strike("the smoke test", proving)
    assert platform.operation()["state"] == "unconfirmed"


@pytest.mark.starts_on(NEWEST)
def test_last_run_finishes(
    platform: Platform, control: ControlNode, earlier: Snapshot, long_task: LongTask, poller: Poller
) -> None:
    """It confirms what the host has done, and the history is what it was on 2.5.3. About 50 s."""
    control.run("upgrade.yml", TARGET).succeeded()
    assert platform.operation()["state"] == "succeeded"
    assert platform.version == NEWEST
    assert long_task.state == "success"
    assert earlier.differences(platform.snapshot()) == []
    assert control.pin == NEWEST
    assert poller.unanswered() == []
    platform.pulse_goes_on()
