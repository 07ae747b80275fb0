"""The good way: 2.5.3 to 2.6.1 with a task at work and readers at every port, and back."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime

import pytest
from airflow_api import wait_for
from checker_on_host import Checker
from control_node import ControlNode, version
from faulty_host import AWAY_SECONDS, CONSUMES_SECONDS, killed_redis
from platform_host import Platform
from poller import Poller
from snapshot import PULSE, Snapshot

REDIS_KILLS = int(os.environ.get("REDIS_KILLS") or 0)
OUTAGE_SECONDS = 30
"""What no reader should wait longer for, with a test beside; bench/upgrade_outage has the real target."""
CONFIRMED = "--extra-vars=confirm_host=atd-data03"
PHASES = [
    *["build", "report", "rehearse"],
    *["drain", "migrate", "start", "backup", "serve", "verify", "smoke", "finish"],
]


@pytest.fixture(scope="module")
def history(platform: Platform) -> Snapshot:
    """What there is before the upgrade."""
    platform.wait_until_healthy()
    return platform.snapshot()


@pytest.mark.starts_on("2.5.3")
def test_upgrade_loses_nothing(
    platform: Platform, control: ControlNode, history: Snapshot, poller: Poller, checker: Checker
) -> None:
    """A task at work ends well, nobody finds a port closed, and the checker tells of nothing. About 180 s."""
    began = datetime.now(UTC)
    settings = control.settings
    containers = platform.containers()
    upgrade = control.start("upgrade.yml", version("2.6.1"))
    upgrade.wait_for("the rehearsal", lambda: platform.is_in("rehearse"), 180)
    with platform.long_task() as task:
        task.wait_until_running()
        upgrade.wait_for("the drain", lambda: platform.is_in("drain"), 180)
        assert task.state == "running"
        assert poller.outages("airflow") == [], "the pages are served while tasks end"
        task.let_end()
        upgrade.wait(600).succeeded()
        assert task.state == "success"

    assert platform.version == "2.6.1"
    assert platform.phases() == dict.fromkeys(PHASES, "done")
    kept = {name for name, container in platform.containers().items() if containers.get(name) == container}
    assert kept >= {"postgres", "redis", "haproxy"}, "what is not of Airflow goes on"
    assert history.differences(platform.snapshot()) == []
    assert poller.unanswered() == []
    assert poller.abrupt() == []
    assert len(poller.outages("airflow")) <= 1
    assert poller.unavailable("airflow") <= OUTAGE_SECONDS
    assert platform.databases() - {"airflow_failed"} == {"airflow"}
    assert control.settings == settings.replace("airflow_version: 2.5.3", "airflow_version: 2.6.1")
    platform.pulse_goes_on()
    checker.look()
    assert checker.begun(began) == []


@pytest.mark.starts_on("2.6.1")
def test_every_part_is_of_the_new_version(platform: Platform) -> None:
    """Flower and the gate, too: a half-upgraded platform is none."""
    image = platform.check("sed -n s/^AIRFLOW_IMAGE=//p .env").strip()
    assert ":2.6.1-" in image
    lines = platform.check("docker compose ps --format %s", "{{.Service}} {{.Image}}").splitlines()
    of_airflow = {service: name for service, name in (line.split() for line in lines) if "/airflow:" in name}
    assert set(of_airflow.values()) == {image}
    assert {"flower", "gate", "airflow-worker"} <= set(of_airflow)


@pytest.mark.starts_on("2.6.1")
def test_both_releases_are_recorded(platform: Platform) -> None:
    """With the backup of the old one, which is whole."""
    old, new = json.loads(platform.check("airflow-release releases --json"))[-2:]
    assert (old["airflow_version"], new["airflow_version"]) == ("2.5.3", "2.6.1")
    assert old["revision"] != new["revision"]
    platform.check("airflow-release backup check %s", old["bundle"])


@pytest.mark.starts_on("2.6.1")
def test_older_version_is_refused(platform: Platform, control: ControlNode) -> None:
    """The way back is another command, and the message says which. About 20 s."""
    containers = platform.containers()
    control.run("upgrade.yml", version("2.5.3")).failed(r"2\.5\.3", "rollback")
    assert platform.containers() == containers


@pytest.mark.starts_on("2.6.1")
def test_rollback_asks_before_it_loses_anything(platform: Platform, control: ControlNode) -> None:
    """It says what would be lost, and how to say that this is meant. About 10 s."""
    containers = platform.containers()
    control.run("rollback.yml").failed(
        "Nothing was changed", "This would be lost: everything since", "confirm_host"
    )
    assert platform.containers() == containers


@pytest.mark.starts_on("2.6.1")
def test_rollback_brings_the_old_database_back(
    platform: Platform, control: ControlNode, history: Snapshot, poller: Poller
) -> None:
    """The schema has changed, so it is that of 2.5.3, without what 2.6.1 has done. About 110 s."""
    platform.airflow.call(
        "POST",
        "dags/upgrade-orders/dagRuns",
        json={"dag_run_id": "after-upgrade", "conf": {"amounts": [1]}},
    )
    control.run("rollback.yml", CONFIRMED).succeeded()
    assert platform.version == "2.5.3"
    assert history.differences(platform.snapshot()) == [], "the run above is gone, and nothing else"
    assert poller.unanswered() == []
    assert poller.abrupt() == []
    assert control.pin == "2.5.3"
    platform.pulse_goes_on()


@pytest.mark.starts_on("2.5.3")
def test_backup_of_a_newer_version_is_refused(platform: Platform, control: ControlNode) -> None:
    """That of 2.6.1, which the rollback made: 2.5.3 cannot run on it. About 20 s."""
    bundles = json.loads(platform.check("airflow-release backup list --json"))
    newer = next(one["name"] for one in bundles if one["manifest"]["airflow_version"] == "2.6.1")
    containers = platform.containers()
    control.run("restore.yml", f"--extra-vars=backup={newer}", CONFIRMED).failed(
        "made by Airflow 2.6.1, and this host is to run 2.5.3"
    )
    assert platform.containers() == containers


@pytest.mark.starts_on("2.5.3")
@pytest.mark.parametrize("number", range(1, max(1, REDIS_KILLS) + 1))
def test_worker_consumes_after_redis_was_away(platform: Platform, number: int) -> None:
    """Celery 5.2.7 of this version may never consume again; the checker then restarts it. About 40 s."""
    platform.airflow.pause(PULSE, True)
    at_work = f"SELECT 1 FROM task_instance WHERE dag_id = '{PULSE}' AND state IN ('queued', 'running')"
    wait_for("no task to be at work", lambda: not platform.sql(at_work).strip(), 60)
    with killed_redis(platform.check):
        time.sleep(AWAY_SECONDS)  # the fault itself: it is away for so long
    back = time.monotonic()
    platform.airflow.pause(PULSE, False)
    # The promise is for a machine that does nothing else, as when it is measured.
    platform.pulse_goes_on(CONSUMES_SECONDS if REDIS_KILLS else 3 * CONSUMES_SECONDS)
    print(f"kill {number}: a task had run {time.monotonic() - back:.0f} s after Redis was back")
    platform.wait_until_healthy()
