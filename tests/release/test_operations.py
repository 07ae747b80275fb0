"""The commands around a switch: what they refuse, and what they leave behind."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from airflow_release import cli
from airflow_release.backup import space
from airflow_release.core import lock, records
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.switch.journal import Journal

from tests.release.platform_model import CONTAINERS, PlatformModel, World
from tests.release.test_switch import NEW, OLD, draw

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def model(tmp_path: Path) -> PlatformModel:
    host = PlatformModel(tmp_path / "srv", tmp_path / "backups")
    host.world_of(World(databases={"airflow": {"revision": f"schema-of-{OLD}"}}))
    host.world.running = dict.fromkeys(CONTAINERS, OLD)
    draw(host.directory, OLD)
    return host


def call(host: Host, *arguments: str) -> int:
    parsed = cli.parser().parse_args(arguments)
    return int(parsed.run(host, parsed))


def begin(host: Host, *more: str) -> int:
    return call(host, "begin", "--kind", "upgrade", "--to-version", NEW, *more)


def test_begin_copies_the_running_files(model: PlatformModel) -> None:
    assert begin(model) == 0
    operation = Journal(model).read()
    assert operation is not None
    assert (operation.state, operation.from_version, operation.to_version) == ("prepared", OLD, NEW)
    assert model.environment(project=model.next)["AIRFLOW_VERSION"] == OLD
    assert model.next.stat().st_mode & 0o777 == 0o700
    assert records.current(model, "").airflow_version == OLD


def test_second_begin_is_refused(model: PlatformModel) -> None:
    begin(model)
    with pytest.raises(ReleaseError, match="under way"):
        begin(model)


def test_interrupted_preparation_is_taken_over(model: PlatformModel) -> None:
    begin(model)
    assert begin(model, "--take-over") == 0


@pytest.mark.parametrize("state", ["switching", "unconfirmed", "finishing", "reverting"])
def test_a_switch_is_never_taken_over(model: PlatformModel, state: str) -> None:
    begin(model)
    operation = Journal(model).read()
    assert operation is not None
    Journal(model).move(operation, state)
    with pytest.raises(ReleaseError, match=state):
        begin(model, "--take-over")


def test_nothing_begins_during_a_backup(model: PlatformModel) -> None:
    with lock.exclusive(model.releases / "lock"), pytest.raises(ReleaseError, match="under way"):
        begin(model)


def test_unknown_option_is_refused(model: PlatformModel) -> None:
    with pytest.raises(ReleaseError, match="speed"):
        begin(model, "--options", '{"speed": 1}')
    assert Journal(model).read() is None


@pytest.mark.parametrize("release", ["none", "../../etc"])
def test_unknown_release_is_refused(model: PlatformModel, release: str) -> None:
    with pytest.raises(ReleaseError, match="no release"):
        begin(model, "--release", release)


def test_abandon_keeps_the_reason(model: PlatformModel) -> None:
    begin(model)
    call(model, "phase", "build", "begin")
    call(model, "abandon", "--message", "no network", "--log", "\x1b[34mlog\x1b[0m")
    operation = Journal(model).read()
    assert operation is not None
    assert operation.state == "abandoned"
    assert operation.failure == {"phase": "build", "message": "no network", "log": "log"}
    assert begin(model) == 0


def test_verdict_needs_an_unconfirmed_release(model: PlatformModel) -> None:
    begin(model)
    with pytest.raises(ReleaseError, match="not unconfirmed"):
        call(model, "confirm")


@pytest.mark.parametrize("state", ["reverting", "reverted"])
def test_refusal_finds_the_host_on_its_way_back(
    model: PlatformModel, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    """It had found a reason of its own, which stays."""
    begin(model)
    journal = Journal(model)
    operation = journal.read()
    assert operation is not None
    operation.state, operation.failure = state, {"phase": "backup", "message": "no space left", "log": ""}
    journal.save(operation)
    assert call(model, "refuse", "--message", "smoke is red") == 0
    assert "backup failed: no space left" in capsys.readouterr().out
    assert journal.read() == operation
    assert not (model.releases / "verdict.json").exists()


def test_health_names_what_is_wrong(model: PlatformModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(model, "health") == 0
    del model.world.running["airflow-scheduler"]
    assert call(model, "health") == 1
    assert "airflow-scheduler does not run" in capsys.readouterr().out


def test_pending_migration_is_named(model: PlatformModel, capsys: pytest.CaptureFixture[str]) -> None:
    model.world.databases["airflow"]["revision"] = "0123456789ab"
    assert call(model, "health") == 1
    said = capsys.readouterr().out
    assert "pending: the database has the schema 0123456789ab" in said
    assert f"Airflow {OLD} needs schema-of-{OLD}\n" in said


@pytest.mark.parametrize("images", [0, 3 * 2**30])
def test_space_is_compared(
    model: PlatformModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], images: int
) -> None:
    """All is on one disk here: the database twice, a backup of each, the images, and a reserve."""
    size = 2**30
    needed = 4 * size + images + space.RESERVE_BYTES
    model.backups.mkdir()
    monkeypatch.setattr("airflow_release.core.database.Database.size", lambda self: size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * needed, 0, needed))
    assert call(model, "space", "--images", str(images)) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * needed, 0, needed - 2**20))
    assert call(model, "space", "--images", str(images)) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"too little disk: {model.directory} has {needed // 2**20 - 1} MiB free")
    assert ("new images" in said) is bool(images)


def test_status_is_json(model: PlatformModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(model, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"running_version": OLD, "operation": None}
    begin(model)
    capsys.readouterr()
    call(model, "status", "--json")
    assert json.loads(capsys.readouterr().out)["operation"]["state"] == "prepared"
