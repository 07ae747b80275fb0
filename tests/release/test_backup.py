"""A backup: taken while others write, proven by restoring it, and honest about what went wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
from airflow_release.backup import backups, bundle, space, status, store
from airflow_release.core import records
from airflow_release.core.database import LIVE, PREVIOUS, SCRATCH, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.records import Release
from airflow_release.core.settings import Settings

from tests.release.conftest import FERNET_KEY, IMAGE, REVISION
from tests.release.test_database import writers

SETTINGS = Settings(fernet_key={"vault": "v", "item": "Airflow keys", "field": "production.fernet key"})
Usage = namedtuple("Usage", "total used free")


def counts_of(path: Path) -> dict[str, int]:
    """Return what a bundle's manifest says of the rows."""
    return bundle.verify(path).counts


def left_over(host: Host) -> list[str]:
    """Return what lies beside the bundles."""
    return [file.name for file in host.backups.iterdir() if not bundle.NAME.fullmatch(file.name)]


def test_backup_under_load_loses_nothing_committed_before_it(host: Host, database: Database) -> None:
    with writers(database):
        database.sql("INSERT INTO variable (key, val) VALUES ('mark', 'x')")
        before = database.counts()
        path = backups.take(host, settings=SETTINGS, reason="by hand")
        after = database.counts()
    assert all(before[name] <= counts_of(path)[name] <= after[name] for name in before)
    assert after["dag_run"] > before["dag_run"]
    dump = backups.extract_database(path, host.backups)
    database.restore(dump, SCRATCH)
    assert database.counts(SCRATCH) == counts_of(path)
    assert database.sql("SELECT count(*) FROM variable WHERE key = 'mark'", SCRATCH) == "1"


def test_manifest_says_what_is_in_it(host: Host, database: Database) -> None:
    path = backups.take(host, settings=SETTINGS, reason="before an upgrade")
    manifest = bundle.verify(path)
    assert path == host.backups / manifest.name
    assert (manifest.reason, manifest.host) == ("before an upgrade", os.uname().nodename)
    assert (manifest.environment, manifest.airflow_version) == ("production", "2.6.1")
    assert (manifest.schema_revision, manifest.counts) == (REVISION, database.counts())
    assert manifest.newest_run == "2026-01-21T20:00:00Z"
    assert manifest.postgres_version == database.version()
    assert manifest.database_size > 2**20
    assert manifest.dag_commit == "0123456789abcdef0123456789abcdef01234567"
    assert manifest.images == {"AIRFLOW_IMAGE": {"name": IMAGE, "id": "sha256:" + "ab" * 32}}
    assert manifest.fernet_key == {**SETTINGS.fernet_key, "fingerprints": bundle.fingerprints(FERNET_KEY)}
    assert sorted(manifest.members) == [
        "config/.env",
        "config/docker-compose.yaml",
        "config/docker-socket-proxy/policy.json",
        "config/haproxy/haproxy.cfg",
        "config/weather/nginx.conf",
        "database.dump",
    ]


def test_no_secret_is_in_it(host: Host) -> None:
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    content = path.read_bytes()
    assert b"AIRFLOW_VERSION=2.6.1" in content
    for secret in (FERNET_KEY, "the-certificate's-key"):
        assert secret.encode() not in content


def test_only_root_reads_it_and_nothing_else_is_left(host: Host, database: Database) -> None:
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    assert path.stat().st_mode & 0o777 == 0o600
    assert host.backups.stat().st_mode & 0o777 == 0o700
    assert left_over(host) == []
    assert SCRATCH not in database.names()


def test_what_a_killed_run_left_is_removed(host: Host, database: Database) -> None:
    (host.backups / ".abc.partial").mkdir(parents=True)
    (host.backups / ".abc.partial/database.dump").write_text("half")
    database.create(SCRATCH)
    database.sql("CREATE TABLE dag (id int)", SCRATCH)
    backups.take(host, settings=SETTINGS, reason="by hand")
    assert left_over(host) == []
    assert SCRATCH not in database.names()


def test_status_file_tells_of_the_last_good_one(host: Host) -> None:
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    file = host.status / "backup.json"
    state = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o644
    assert state["last_good"]["name"] == path.name
    assert state["last_good"]["size"] == path.stat().st_size
    assert state["last_good"]["counts"] == counts_of(path)
    assert abs(state["last_good"]["at"] - path.stat().st_mtime) < 60
    assert state["last_failure"] is None


def test_failure_is_recorded_beside_the_last_good_one(host: Host, database: Database) -> None:
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    database.rename((LIVE, "elsewhere"))
    with pytest.raises(ReleaseError, match="failed"):
        backups.take(host, settings=SETTINGS, reason="timer")
    state = json.loads((host.status / "backup.json").read_text())
    assert state["last_good"]["name"] == path.name
    assert state["last_failure"]["at"] > state["last_good"]["at"]
    assert 'database "airflow" does not exist' in state["last_failure"]["reason"]
    assert (store.names(host), left_over(host)) == ([path.name], [])


def test_backup_that_restores_to_something_else_is_none(
    host: Host, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an index on a corrupted table or a dump of the wrong database would look like.
    dump = Database.dump

    def lossy(self: Database, file: Path, database: str = LIVE) -> dict[str, int]:
        counts = dump(self, file, database)
        self.sql("DELETE FROM dag_run WHERE id <= 10")
        dump(self, file, database)
        return counts

    monkeypatch.setattr(Database, "dump", lossy)
    with pytest.raises(ReleaseError, match=r"dag_run: 500 in the backup, 490 restored"):
        backups.take(host, settings=SETTINGS, reason="by hand")
    assert (store.names(host), left_over(host)) == ([], [])
    assert SCRATCH not in database.names()


@pytest.mark.parametrize("deep", [False, True])
def test_a_damaged_one_is_found(host: Host, database: Database, deep: bool) -> None:
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    assert backups.check(host, path).counts == counts_of(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReleaseError, match="not a complete backup"):
        backups.check(host, path) if deep else backups.extract_database(path, host.backups)
    assert SCRATCH not in database.names()


def test_too_little_disk_is_refused_before_anything_is_written(
    host: Host, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = database.size()
    # The backups and Postgres' volume are on one disk here: two dumps and a database, and a reserve.
    needed = 3 * size + space.RESERVE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * needed, 0, needed - 2**20))
    with pytest.raises(ReleaseError, match=rf"too little disk: .* and {needed / 2**20:.0f} MiB are needed"):
        backups.take(host, settings=SETTINGS, reason="by hand")
    assert left_over(host) == []
    assert (
        "too little disk" in json.loads((host.status / "backup.json").read_text())["last_failure"]["reason"]
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * needed, 0, needed + 2**20))
    backups.take(host, settings=SETTINGS, reason="by hand")


def test_old_ones_go_when_a_new_one_is_good(host: Host) -> None:
    first = backups.take(host, settings=SETTINGS, reason="by hand")
    names = [f"airflow-202001{day:02}T000000Z-2.5.3.tar" for day in range(1, 6)]
    for name in names:
        shutil.copy(first, host.backups / name)
    settings = Settings(keep_days=7, keep_count=3)
    assert store.prune(host, settings, dry_run=True) == names[2::-1]
    assert len(store.names(host)) == 6
    assert store.prune(host, settings) == names[2::-1]
    assert store.names(host) == [first.name, *names[:2:-1]]


def test_the_last_good_one_outlives_newer_damaged_ones(host: Host) -> None:
    first = backups.take(host, settings=SETTINGS, reason="by hand")
    good = host.backups / "airflow-20200101T000000Z-2.5.3.tar"
    first.rename(good)
    for name in ("airflow-20200102T000000Z-2.5.3.tar", "airflow-20200103T000000Z-2.5.3.tar"):
        (host.backups / name).write_bytes(good.read_bytes()[:-100])
    assert store.prune(host, Settings(keep_days=1, keep_count=1)) == ["airflow-20200102T000000Z-2.5.3.tar"]
    assert good.exists()


def test_full_disk_while_writing_is_an_error_in_words(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write", full)
    with pytest.raises(ReleaseError, match="writing the backup failed: No space left on device"):
        backups.take(host, settings=SETTINGS, reason="by hand")
    assert left_over(host) == []


def test_dump_can_be_taken_out_by_hand(host: Host, tmp_path: Path) -> None:
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    subprocess.run(["tar", "-xf", path, "-C", tmp_path, "database.dump"], check=True, timeout=60)
    assert (tmp_path / "database.dump").read_bytes()[:5] == b"PGDMP"


def test_database_that_was_left_is_kept_with_its_own_configuration(
    host: Host, database: Database, tmp_path: Path
) -> None:
    """As a switch does: the old database has another name by then, and the platform other files."""
    old = tmp_path / "old"
    shutil.copytree(host.directory, old, symlinks=True)
    (host.directory / ".env").write_text("AIRFLOW_VERSION=2.11.2\n")
    database.copy(LIVE, PREVIOUS)
    database.sql("DELETE FROM dag_run; UPDATE alembic_version SET version_num = 'newer'")
    manifest = bundle.verify(backups.take(host, settings=SETTINGS, reason="x", database=PREVIOUS, files=old))
    assert (manifest.airflow_version, manifest.schema_revision) == ("2.6.1", REVISION)
    assert manifest.counts == database.counts(PREVIOUS)
    assert manifest.members["config/.env"]["size"] == (old / ".env").stat().st_size


def test_backup_that_a_rollback_needs_is_kept(host: Host) -> None:
    first = backups.take(host, settings=SETTINGS, reason="by hand")
    old = [f"airflow-2020010{day}T000000Z-2.5.3.tar" for day in (1, 2)]
    for name in old:
        shutil.copy(first, host.backups / name)
    for since, name in enumerate(old):
        records.save(host, Release(f"{since}", "2.5.3", since, bundle=str(host.backups / name)))
    assert store.prune(host, Settings(keep_days=1, keep_count=1)) == [old[0]]


def test_unmounted_place_is_recorded_and_told_in_one_sentence(host: Host) -> None:
    good = backups.take(host, settings=SETTINGS, reason="by hand")
    broken = Host(host.directory, Path("/proc/airflow-backups"))
    with pytest.raises(ReleaseError, match=r"^the backup failed: No such file or directory: /proc/[^\n]*$"):
        backups.take(broken, settings=SETTINGS, reason="timer")
    state = status.read(host)
    assert "the backup failed: No such file or directory" in state["last_failure"]["reason"]
    assert state["last_good"]["name"] == good.name


def test_words_that_nobody_foresaw_are_recorded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that goes between two looks at the database makes psql say something else than rows."""
    monkeypatch.setattr(Database, "_main_tables", lambda self, database: ["dag", "gone"])
    with pytest.raises(ReleaseError, match=r"^[^\n]+$"):
        backups.take(host, settings=SETTINGS, reason="timer")
    assert status.read(host)["last_failure"]["reason"]
    assert left_over(host) == []


def test_status_that_cannot_be_written_does_not_hide_the_error(host: Host, database: Database) -> None:
    database.rename((LIVE, "elsewhere"))
    host.status.parent.mkdir(exist_ok=True)
    host.status.write_text("in the way")
    with pytest.raises(ReleaseError, match="SQL on postgres failed"):
        backups.take(host, settings=SETTINGS, reason="timer")


def test_good_backup_is_one_though_old_ones_cannot_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", "x.tar")

    monkeypatch.setattr(store, "prune", prune)
    path = backups.take(host, settings=SETTINGS, reason="by hand")
    state = status.read(host)
    assert state["last_good"]["name"] == path.name
    assert state["last_failure"]["reason"] == "removing old backups failed: Read-only file system: x.tar"


@pytest.mark.parametrize(
    ("full", "free", "refused"), [(5, 6, False), (5, 5, True), (5, 1, True), (9, 9, True), (3, 4, False)]
)
def test_backup_that_would_leave_too_little_disk_is_refused(
    host: Host, database: Database, monkeypatch: pytest.MonkeyPatch, full: int, free: int, refused: bool
) -> None:
    total, settings = 2**40, dataclasses.replace(SETTINGS, disk_full_percent=full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total, 0, total * free // 100))
    if not refused:
        backups.take(host, settings=settings, reason="a test")
        return
    with pytest.raises(ReleaseError, match=rf"would leave less than {full} %.*airflow-clean"):
        backups.take(host, settings=settings, reason="a test")
    assert store.names(host) == []
    assert "too little disk for a backup" in status.read(host)["last_failure"]["reason"]


def test_too_little_disk_names_what_can_be_dropped(
    host: Host, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**20))
    with pytest.raises(ReleaseError) as refused:
        space.require_space(host, 2**20, copies_of_dump=1, dump=1)
    assert "dropdb" not in str(refused.value)
    for name in ("airflow_failed", "airflow_kept_20261122t023456z", "airflow_previous"):
        database.create(name)
    with pytest.raises(ReleaseError) as refused:
        space.require_space(host, 2**20, copies_of_dump=1, dump=1)
    for name in ("airflow_failed", "airflow_kept_20261122t023456z"):
        command = f"--project-directory {host.directory} exec postgres dropdb --username=airflow {name}"
        assert f"`docker compose {command}`" in str(refused.value)
    assert "airflow_previous" not in str(refused.value)
