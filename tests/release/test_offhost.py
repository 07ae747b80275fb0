"""Copies elsewhere, by the real rclone: to a directory here, which to rclone is a remote like others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from airflow_release import backup, bundle, restore
from airflow_release.host import Host, ReleaseError
from airflow_release.offhost import Remote
from airflow_release.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A remote `offsite:`, whose root is a directory."""
    if not shutil.which("rclone"):
        if os.environ.get("CI"):
            pytest.fail("no rclone here: run bin/setup --database")
        pytest.skip("no rclone here: run bin/setup --database")
    config = tmp_path / "rclone.conf"
    config.write_text(f"[offsite]\ntype = alias\nremote = {tmp_path}/elsewhere\n")
    return Settings(remote="offsite:airflow", remote_config=config, keep_days=7, keep_count=2)


def test_backup_is_copied_and_compared(host: Host, settings: Settings, tmp_path: Path) -> None:
    taken = backup.take(host, settings=settings, reason="timer")
    assert backup.read_state(host)["last_failure"] is None
    copy = tmp_path / "elsewhere/airflow" / taken.name
    assert copy.read_bytes() == taken.read_bytes()
    assert json.loads((host.status / "backup.json").read_text())["last_good"]["off_host"] is True
    assert Remote(host, settings).names() == [taken.name]


def test_copy_that_differs_is_an_error(
    host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone = Remote._rclone

    def lossy(self: Remote, *arguments: str, doing: str) -> str:
        output = rclone(self, *arguments, doing=doing)
        if arguments[0] == "copyto":
            [copy] = (settings.remote_config.parent / "elsewhere/airflow").iterdir()
            with copy.open("r+b") as file:
                file.write(b"x")
        return output

    monkeypatch.setattr(Remote, "_rclone", lossy)
    taken = backup.take(host, settings=settings, reason="timer")
    assert taken.exists()
    state = backup.read_state(host)
    assert "comparing airflow-" in state["last_failure"]["reason"]
    assert state["last_good"]["off_host"] is False
    assert state["last_failure"]["at"] >= state["last_good"]["at"]


def test_remote_that_is_away_leaves_a_good_backup(host: Host, settings: Settings) -> None:
    settings.remote_config.write_text("")
    taken = backup.take(host, settings=settings, reason="timer")
    reason = backup.read_state(host)["last_failure"]["reason"]
    assert "copying" in reason
    assert "offsite" in reason
    assert backup.check(host, taken).counts == bundle.verify(taken).counts


def test_old_copies_go_as_here(host: Host, settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere/airflow"
    place.mkdir(parents=True)
    names = [f"airflow-202001{day:02}T000000Z-2.5.3.tar" for day in range(1, 4)]
    for name in [*names, "notes.txt"]:
        (place / name).write_text("x")
    taken = backup.take(host, settings=settings, reason="timer")
    assert sorted(file.name for file in place.iterdir()) == sorted([taken.name, names[2], "notes.txt"])


def test_an_empty_host_gets_its_backup_from_there(host: Host, settings: Settings) -> None:
    taken = backup.take(host, settings=settings, reason="timer")
    content = taken.read_bytes()
    for wanted in ("latest", taken.name):
        shutil.rmtree(host.backups)
        assert restore.find(host, settings, wanted) == taken
        assert taken.read_bytes() == content
    assert [file.name for file in host.backups.iterdir()] == [taken.name]


def test_a_copy_damaged_elsewhere_does_not_come_in(host: Host, settings: Settings, tmp_path: Path) -> None:
    taken = backup.take(host, settings=settings, reason="timer")
    taken.unlink()
    copy = tmp_path / "elsewhere/airflow" / taken.name
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match="not a whole backup"):
        restore.find(host, settings, "latest")
    assert list(host.backups.iterdir()) == []
