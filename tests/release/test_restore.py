"""What may be restored, and every reason why something may not, before anything is touched."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from airflow_release.backup import backups, bundle, restore
from airflow_release.backup.restore import Target
from airflow_release.core.database import LIVE, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings

from tests.release.conftest import FERNET_KEY, IMAGE, REVISION

SETTINGS = Settings(fernet_key={"vault": "v", "item": "Airflow keys", "field": "production.fernet key"})
FITTING = Target(airflow_version="2.6.1", image=IMAGE, fernet_fingerprints=bundle.fingerprints(FERNET_KEY))


@pytest.fixture
def taken(host: Host) -> Path:
    """A backup."""
    return backups.take(host, settings=SETTINGS, reason="by hand")


def test_fitting_backup_has_nothing_against_it(host: Host, taken: Path) -> None:
    examined = restore.examine(host, taken, FITTING)
    assert examined.refused == []
    assert examined.database == f"bundle:{taken}"
    assert (examined.airflow_version, examined.schema_revision) == ("2.6.1", REVISION)
    assert (examined.counts, examined.newest_run) == (bundle.verify(taken).counts, "2026-01-21T20:00:00Z")


@pytest.mark.parametrize(("version", "refused"), [("2.5.3", True), ("2.6.1", False), ("2.11.2", False)])
def test_backup_of_a_newer_version_is_refused(host: Host, taken: Path, version: str, refused: bool) -> None:
    examined = restore.examine(host, taken, dataclasses.replace(FITTING, airflow_version=version))
    assert bool(examined.refused) == refused
    if refused:
        [reason] = examined.refused
        assert "made by Airflow 2.6.1, and this host is to run 2.5.3" in reason


def test_schema_that_the_image_does_not_know_is_refused(host: Host, database: Database) -> None:
    database.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    taken = backups.take(host, settings=SETTINGS, reason="by hand")
    [reason] = restore.examine(host, taken, FITTING).refused
    assert f"schema revision ffffffffffff is unknown to {IMAGE}" in reason


@pytest.mark.parametrize(
    ("vault", "refused"),
    [(FERNET_KEY, False), (f"new-key,{FERNET_KEY}", False), ("new-key", True)],
)
def test_backup_under_another_fernet_key_is_refused(
    host: Host, taken: Path, vault: str, refused: bool
) -> None:
    examined = restore.examine(
        host, taken, dataclasses.replace(FITTING, fernet_fingerprints=bundle.fingerprints(vault))
    )
    assert bool(examined.refused) == refused
    if refused:
        [reason] = examined.refused
        assert bundle.fingerprints(FERNET_KEY)[0] in reason
        assert "vault v, item 'Airflow keys', field 'production.fernet key'" in reason


def test_plain_sql_is_examined_too(host: Host, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "airflow.sql"
    file.write_text(host.run(database.command("pg_dump", "--username=airflow", LIVE)))
    examined = restore.examine(host, file, FITTING)
    assert (examined.database, examined.refused) == (f"sql:{file}", [])
    assert examined.counts == database.counts()
    file.write_text(file.read_text().replace(REVISION, "ffffffffffff"))
    assert "unknown" in restore.examine(host, file, FITTING).refused[0]


def test_damaged_backup_is_refused(host: Host, taken: Path) -> None:
    taken.write_bytes(taken.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match="not a complete backup"):
        restore.examine(host, taken, FITTING)


def test_finds_by_name_by_path_and_the_latest(host: Host, taken: Path, tmp_path: Path) -> None:
    older = host.backups / "airflow-20200101T000000Z-2.5.3.tar"
    older.touch()
    (tmp_path / "airflow.sql").touch()
    assert restore.find(host, SETTINGS, "latest") == taken
    assert restore.find(host, SETTINGS, older.name) == older
    assert restore.find(host, SETTINGS, str(tmp_path / "airflow.sql")) == tmp_path / "airflow.sql"


@pytest.mark.parametrize(
    ("reason", "eligible"),
    [
        ("before 20261122T023456Z-restore-2.6.1", False),
        ("before 20261122T023456Z-rollback-2.5.3", False),
        ("rehearsal of 20261122T023456Z-restore-2.6.1", False),
        ("before 20261122T023456Z-upgrade-2.6.1", True),
        ("rehearsal of 20261122T023456Z-upgrade-2.6.1", True),
        ("before 20261122T023456Z-rotate-2.6.1", True),
        ("before the restore-test of the office", True),
    ],
)
def test_latest_is_never_what_a_way_back_replaced(
    host: Host, database: Database, taken: Path, reason: str, eligible: bool
) -> None:
    good = taken.rename(host.backups / taken.name.replace("-20", "-19"))
    database.sql("DELETE FROM dag_run")
    newer = backups.take(host, settings=SETTINGS, reason=reason)
    assert restore.find(host, SETTINGS, "latest") == (newer if eligible else good)
    assert restore.find(host, SETTINGS, newer.name) == newer, "by its name it can be had"
    good.unlink()
    if not eligible:
        with pytest.raises(
            ReleaseError, match=rf"is `latest`: .*restore or a rollback replaced.*{newer.name}"
        ):
            restore.find(host, SETTINGS, "latest")


def test_damaged_newest_is_not_passed_over(host: Host, taken: Path) -> None:
    damaged = host.backups / taken.name.replace("-20", "-21")
    damaged.write_bytes(taken.read_bytes()[:-1000])
    assert restore.find(host, SETTINGS, "latest") == damaged


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59, "less than a minute old"),
        (60, "1 minute old"),
        (119 * 60, "119 minutes old"),
        (3 * 3600 + 1800, "3 hours old"),
        (47 * 3600, "47 hours old"),
        (72 * 3600, "3 days old"),
    ],
)
def test_age_in_words(host: Host, taken: Path, seconds: int, words: str) -> None:
    examined = restore.examine(host, taken, Target())
    made = datetime.strptime(examined.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert examined.age(made + timedelta(seconds=seconds)) == words
    assert dataclasses.replace(examined, created="").age() == "of unknown age"


def test_absent_backup_is_refused_with_what_there_is(host: Host, taken: Path) -> None:
    with pytest.raises(ReleaseError, match=rf"no backup other\.tar in .*there are: {taken.name}"):
        restore.find(host, SETTINGS, "other.tar")
    with pytest.raises(ReleaseError, match=r"there is no file /absent\.tar on this host"):
        restore.find(host, SETTINGS, "/absent.tar")
    taken.unlink()
    with pytest.raises(ReleaseError, match=r"no backup at all in .*, and there is no backup_remote"):
        restore.find(host, SETTINGS, "latest")


def test_damage_to_what_is_replaced_is_a_sentence(host: Host, database: Database, taken: Path) -> None:
    """It is the reason for the restore, and does not stop it."""
    database.close(LIVE)
    try:
        [said] = restore.replaced(host, bundle.verify(taken).counts)
    finally:
        database.open(LIVE)
    assert "cannot be counted" in said


def test_says_what_would_be_replaced(host: Host, database: Database, taken: Path) -> None:
    database.sql(
        "DELETE FROM dag WHERE dag_id = 'two'; INSERT INTO dag_run (start_date) VALUES ('2026-02-01Z')"
    )
    assert restore.replaced(host, bundle.verify(taken).counts) == [
        "the newest DAG run now: 2026-02-01T00:00:00Z",
        "dag: 1 rows now, 2 in the backup",
        "dag_run: 501 rows now, 500 in the backup",
    ]
