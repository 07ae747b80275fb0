"""The switch under every fault: each command of it fails once and is the last before a kill once."""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from airflow_release.backup import backups
from airflow_release.core import records
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.switch.engine import Switch
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options

from tests.release.platform_model import CONTAINERS, STANDBY, Killed, PlatformModel, World

OLD, NEW = "2.5.3", "2.6.1"


def draw(directory: Path, version: str) -> None:
    (directory / "env").mkdir(parents=True)
    (directory / "haproxy").mkdir()
    (directory / ".env").write_text(f"AIRFLOW_VERSION={version}\nAIRFLOW_IMAGE=airflow:{version}\n")
    (directory / "docker-compose.yaml").write_text(f"# {version}\n")
    (directory / "env/airflow.env").write_text("AIRFLOW__CORE__FERNET_KEY=key\n")
    (directory / "env/postgres.env").write_text("POSTGRES_PASSWORD='pass''word'\n")
    (directory / "haproxy/haproxy.cfg").write_text(f"# for {version}\n")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformModel:
    host = PlatformModel(tmp_path / "srv", tmp_path / "backups")
    host.world_of(World(databases={"airflow": {"revision": f"schema-of-{OLD}"}}))
    host.world.running = dict.fromkeys(CONTAINERS, OLD) | {STANDBY: NEW}
    draw(host.directory, OLD)
    draw(host.next, NEW)

    def take(host: PlatformModel, **arguments: object) -> Path:
        return host.backups / "bundle.tar"

    monkeypatch.setattr(backups, "take", take)
    records.current(host, Database(host).revision())
    operation = Operation(
        "id", "upgrade", OLD, NEW, state="switching", options={**asdict(Options()), "start_timeout": 1}
    )
    Journal(host).save(operation)
    host.world.commands.clear()
    return host


def run(host: PlatformModel) -> Operation:
    """Do what the unit does: take what the journal has, and go."""
    Switch(host, read(host)).run()
    return read(host)


def read(host: PlatformModel) -> Operation:
    operation = Journal(host).read()
    assert operation is not None
    return operation


def confirm(host: PlatformModel, *, confirmed: bool = True) -> None:
    verdict = {"confirmed": confirmed, "message": "smoke is red", "log": ""}
    (host.releases / "verdict.json").write_text(json.dumps(verdict))


def check(host: PlatformModel, operation: Operation) -> None:
    """All of the old or all of the new, and nothing in between."""
    version = {"succeeded": NEW, "reverted": OLD}[operation.state]
    world = host.world
    assert world.databases["airflow"]["revision"] == f"schema-of-{version}"
    assert set(world.databases) <= {"airflow", "airflow_failed"}
    assert world.running == dict.fromkeys(CONTAINERS, version)
    assert host.environment()["AIRFLOW_VERSION"] == version
    assert (host.directory / "haproxy/haproxy.cfg").read_text() == f"# for {version}\n"
    assert world.doors.get("airflow", "ready") == "ready"
    assert world.doors.get("standby", "maint") == "maint"
    assert records.current(host, "").airflow_version == version


def commands_of_a_good_switch(host: PlatformModel) -> list[str]:
    confirm(host)
    operation = run(host)
    assert operation.state == "succeeded", operation.failure
    check(host, operation)
    return host.world.commands


def test_good_switch(model: PlatformModel) -> None:
    commands = commands_of_a_good_switch(model)
    first_stop = next(i for i, line in enumerate(commands) if "stop" in line)
    assert "airflow-scheduler" in commands[first_stop]
    phases = {phase.name: phase.state for phase in read(model).phases}
    expected = ["drain", "migrate", "start", "backup", "serve", "verify", "smoke", "finish"]
    assert phases == dict.fromkeys(expected, "done")


def test_refused_by_smoke(model: PlatformModel) -> None:
    confirm(model, confirmed=False)
    operation = run(model)
    assert operation.state == "reverted"
    assert operation.failure["message"] == "smoke is red"
    check(model, operation)


def test_no_release_is_left_without_its_backup(model: PlatformModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the smoke test, which runs at the same time, has passed."""

    def take(host: PlatformModel, **arguments: object) -> Path:
        raise ReleaseError("no space left on device")

    monkeypatch.setattr(backups, "take", take)
    confirm(model)
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "backup")
    check(model, operation)


def test_time_to_confirm_begins_when_there_is_something_to_judge(
    model: PlatformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of a large database takes longer than anybody may take to say that the release is good."""
    now = [time.time()]

    def take(host: PlatformModel, **arguments: object) -> Path:
        now[0] += 10 * Options().confirm_timeout
        return host.backups / "bundle.tar"

    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(backups, "take", take)
    monkeypatch.setattr(time, "sleep", lambda seconds: confirm(model))
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    check(model, operation)


def test_nobody_confirms(model: PlatformModel) -> None:
    operation = read(model)
    operation.options["confirm_timeout"] = 0
    Journal(model).save(operation)
    operation = run(model)
    assert operation.state == "reverted"
    assert "confirmed" in operation.failure["message"]
    check(model, operation)


@pytest.mark.parametrize("rehearsed", [True, False], ids=["with a standby", "without one"])
def test_new_webserver_never_healthy(model: PlatformModel, rehearsed: bool) -> None:
    model.world.unhealthy_version = NEW
    if not rehearsed:
        del model.world.running[STANDBY]
    confirm(model)
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "serve" if rehearsed else "start")
    check(model, operation)
    assert model.world.databases["airflow_failed"] == {"revision": f"schema-of-{NEW}"}


@pytest.mark.parametrize(
    ("command", "phase"),
    [
        ("stop --timeout=30 airflow-scheduler", "drain"),
        ("set server airflow/airflow state maint", "migrate"),
        ("CREATE DATABASE airflow_next", "migrate"),
        ("run --rm", "migrate"),
        ("RENAME TO airflow_previous", "start"),
        ("kill -HUP", "start"),
        ("set server airflow/standby state ready", "start"),
    ],
)
def test_each_phase_fails(model: PlatformModel, command: str, phase: str) -> None:
    """The fault stays while the way back is taken, unless the way back needs that very thing."""
    model.world.fail = command
    confirm(model)
    try:
        operation = run(model)
    except ReleaseError:
        model.world.fail = ""
        operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", phase)
    check(model, operation)


@pytest.mark.parametrize("before", [True, False], ids=["without effect", "after its effect"])
def test_killed_at_every_command(model: PlatformModel, before: bool, tmp_path: Path) -> None:
    """The process is killed at each command in turn, and started again as systemd does."""
    total = None
    number = 0
    while total is None or number < total:
        host = fresh(model, tmp_path / f"{number}")
        host.world.die_at, host.world.die_before = number, before
        confirm(host)
        with pytest.raises(Killed):
            run(host)
        operation = run(host)
        check(host, operation)
        number += 1
        if total is None:
            total = len(commands_of_a_good_switch(fresh(model, tmp_path / "good")))
    assert total > 25


@pytest.mark.parametrize("second", range(0, 40, 3))
def test_killed_again_on_the_way_back(model: PlatformModel, second: int) -> None:
    model.world.unhealthy_version = NEW
    confirm(model)
    model.world.die_at = 25 + second
    try:
        run(model)
    except Killed:
        operation = run(model)
    else:
        operation = read(model)
    check(model, operation)


def fresh(model: PlatformModel, directory: Path) -> PlatformModel:
    """Make another platform in the state of this one's beginning."""
    host = PlatformModel(directory / "srv", directory / "backups")
    shutil.copytree(model.directory, host.directory)
    host.world_of(copy.deepcopy(model.world))
    return host
