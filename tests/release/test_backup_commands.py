"""The commands as an operator types them: output, JSON, exit codes, one at a time."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_release.backup import backups, bundle, status, store
from airflow_release.cli import main
from airflow_release.core.database import Database
from airflow_release.core.host import Host
from airflow_release.core.lock import exclusive
from airflow_release.core.settings import Settings
from airflow_release.switch.journal import Journal, Operation

from tests.release.conftest import FERNET_KEY
from tests.release.test_backup import Usage

Command = Callable[..., int]


@pytest.fixture
def command(host: Host, tmp_path: Path) -> Command:
    """Run `airflow-release` with arguments for this host."""
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps({"keep_days": 7, "keep_count": 1, "remote": "", "fernet_key": {"item": "Airflow keys"}})
    )

    def run(*arguments: str) -> int:
        common = [f"--directory={host.directory}", f"--backups={host.backups}"]
        return main([*common, *arguments, f"--settings={settings}"])

    return run


Captured = pytest.CaptureFixture[str]


def test_takes_lists_and_checks(command: Command, host: Host, capsys: Captured) -> None:
    assert command("backup", "take", "--reason", "a test", "--json") == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["path"].startswith(str(host.backups))
    assert answer["manifest"]["reason"] == "a test"
    assert answer["manifest"]["fernet_key"]["item"] == "Airflow keys"
    assert "restore it into a scratch database" in captured.err
    assert command("backup", "list") == 0
    [line] = capsys.readouterr().out.splitlines()
    assert Path(answer["path"]).name in line
    assert "500 dag_run" in line
    assert command("backup", "check", "latest") == 0
    assert command("backup", "check", Path(answer["path"]).name, "--deep") == 0
    assert "its restored data are the same: 2 dag, 500 dag_run" in capsys.readouterr().out
    assert command("backup", "prune") == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_copy_that_fails_is_told_beside_the_good_backup(
    command: Command, host: Host, tmp_path: Path, capsys: Captured
) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(settings.read_text().replace('"remote": ""', '"remote": "nowhere:airflow"'))
    (tmp_path / "rclone.conf").touch()
    assert command("backup", "take") == 3
    captured = capsys.readouterr()
    assert "restored and compared" in captured.out
    assert "The backup is good, but not all copies elsewhere are: copying airflow-" in captured.err
    assert command("backup", "check", "latest") == 0


def test_damaged_one_is_shown_and_fails(command: Command, host: Host, capsys: Captured) -> None:
    host.backups.mkdir()
    (host.backups / "airflow-20200101T000000Z-2.5.3.tar").write_bytes(b"x" * 5000)
    assert command("backup", "list") == 0
    assert "DAMAGED" in capsys.readouterr().out
    assert command("backup", "check", "latest") == 1
    assert "not a complete backup" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["take"], ["check", "latest", "--deep"], ["prune"]])
def test_one_at_a_time(command: Command, host: Host, capsys: Captured, arguments: list[str]) -> None:
    backups.take(host, settings=Settings(), reason="by hand")
    before = status.read(host)
    with exclusive(host.lock, doing="an upgrade"):
        assert command("backup", *arguments) == 3
    assert "an upgrade has been active since" in capsys.readouterr().err
    # A refusal is no failed backup.
    assert status.read(host) == before


def test_failure_is_shown_with_its_log(command: Command, database: Database, capsys: Captured) -> None:
    database.rename(("airflow", "elsewhere"))
    assert command("backup", "take") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "SQL on postgres failed" in captured.err
    assert 'database "airflow" does not exist' in captured.err


def test_examines_before_a_restore(command: Command, host: Host, capsys: Captured) -> None:
    path = backups.take(host, settings=Settings(), reason="by hand")
    fingerprint = bundle.fingerprints(FERNET_KEY)[0]
    wanted = ["examine", "latest", "--installed", "--json"]
    assert command(*wanted, "--airflow-version=2.6.1", "--fernet-fingerprint", fingerprint) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["database"], answer["refused"]) == (f"bundle:{path}", [])
    assert (answer["path"], answer["name"]) == (str(path), path.name)
    assert (answer["created"], answer["age"]) == (bundle.describe(path).created, "less than a minute old")
    assert answer["replaced"] == ["the newest DAG run now: 2026-01-21T20:00:00Z"]
    assert command(*wanted, "--airflow-version=2.5.3", "--fernet-fingerprint", "00") == 1
    assert len(json.loads(capsys.readouterr().out)["refused"]) == 2


def test_too_little_disk_for_a_restore_is_refused(
    command: Command, host: Host, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups.take(host, settings=Settings(), reason="by hand")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**20))
    assert command("examine", "latest", "--installed") == 1
    assert "REFUSED: too little disk" in capsys.readouterr().out


def test_settings_that_cannot_be_understood_are_an_error(
    command: Command, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "settings.json").write_text("{")
    assert command("backup", "list") == 3
    assert "settings.json cannot be understood" in capsys.readouterr().err


def test_backup_that_fails_for_its_settings_is_recorded(command: Command, host: Host, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    assert command("backup", "take") != 0
    assert "cannot be understood" in status.read(host)["last_failure"]["reason"]


@pytest.mark.parametrize("fault", ["an upgrade has been active since", "Is a directory"])
def test_backup_whose_turn_never_comes_is_recorded(tmp_path: Path, fault: str) -> None:
    """At night nobody reads the answer; without this the last good backup stays the last word."""
    host = Host(tmp_path / "srv", tmp_path / "backups")
    if fault == "Is a directory":
        host.lock.mkdir(parents=True)
    common = [f"--directory={host.directory}", f"--backups={host.backups}"]
    with exclusive(host.lock, doing="an upgrade") if "upgrade" in fault else contextlib.nullcontext():
        code = main([*common, "backup", "take", "--wait=0.1", f"--settings={tmp_path}/settings.json"])
    assert code == 3
    assert fault in status.read(host)["last_failure"]["reason"]


def test_prune_removes_uploads_that_were_left_behind(command: Command, host: Host, capsys: Captured) -> None:
    place = store.uploads(host)
    place.mkdir(parents=True)
    for name in ("old.sql", "wanted.tar"):
        (place / name).touch()
    operation = Operation("id", "restore", "2.6.1", "2.6.1", database=f"bundle:{place}/wanted.tar")
    Journal(host, quiet=True).save(operation)
    assert command("backup", "prune") == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "UPLOAD_SECONDS", -1)
        assert command("backup", "prune", "--dry-run") == 0
        assert command("backup", "prune") == 0
        assert capsys.readouterr().out == "uploaded/old.sql\n" * 2
        assert [file.name for file in place.iterdir()] == ["wanted.tar"]
        operation.state = "succeeded"
        Journal(host, quiet=True).save(operation)
        assert command("backup", "prune") == 0
    assert list(place.iterdir()) == []
