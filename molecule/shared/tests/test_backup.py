"""Backups on the host: due every night, for root alone, proven, and told of on the status page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from expected import BACKUPS, DIRECTORY
from testinfra.host import Host

PRIVATE = {
    "/etc/airflow-release": 0o700,
    "/etc/airflow-release/settings.json": 0o600,
    f"{DIRECTORY}/releases": 0o700,
    BACKUPS: 0o700,
}


@pytest.fixture(scope="module")
def taken(host: Host) -> dict[str, Any]:
    """A backup of the running platform."""
    answer: dict[str, Any] = json.loads(
        host.check_output("airflow-release backup take --json --wait 300 --reason 'a test'")
    )
    return answer


def test_timer_is_on(host: Host) -> None:
    """A backup that somebody has to remember is none."""
    timer = host.service("airflow-backup.timer")
    assert timer.is_enabled
    assert timer.is_running
    assert host.check_output("systemctl show --property=Persistent --value airflow-backup.timer") == "yes"


def test_interrupted_switch_is_finished_at_boot(host: Host) -> None:
    """The unit that does it is on, and has nothing to do."""
    assert host.service("airflow-release.service").is_enabled
    assert host.run("systemctl is-failed airflow-release.service").stdout.strip() != "failed"


@pytest.mark.parametrize("path", PRIVATE)
def test_backups_are_for_root_alone(host: Host, path: str) -> None:
    """They hold every XCom and every user's hash of a password."""
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", PRIVATE[path])


def test_command_explains_itself(host: Host) -> None:
    """Whoever is on call finds the verbs without a document."""
    text = host.check_output("cd /tmp && airflow-release --help")
    for verb in ("backup", "examine"):
        assert verb in text


def test_backup_is_whole_and_private(host: Host, taken: dict[str, Any]) -> None:
    """Taken while the platform runs, restored beside it and compared."""
    file = host.file(taken["path"])
    assert (file.user, file.mode) == ("root", 0o600)
    assert taken["manifest"]["counts"]["dag_run"] > 0
    assert taken["manifest"]["counts"]["ab_user"] > 0
    assert all(image["id"].startswith("sha256:") for image in taken["manifest"]["images"].values())
    deep = host.check_output(f"airflow-release backup check {taken['path']} --deep")
    assert "its restored data are the same" in deep
    psql = "exec --no-TTY postgres psql --username=airflow --list"
    databases = host.check_output(f"docker compose --project-directory {DIRECTORY} {psql}")
    assert "airflow_scratch" not in databases


def test_backup_has_no_secret(host: Host, taken: dict[str, Any], secrets: dict[str, str]) -> None:
    """The database has the keys' work in it, not the keys."""
    # The dump is compressed; what may be read is the rest.
    unpack = "tar --extract --to-stdout --exclude=database.dump"
    text = host.check_output(f"{unpack} --file={taken['path']}")
    assert "AIRFLOW_VERSION=" in text
    assert [name for name, value in secrets.items() if value in text] == []


def test_altered_backup_is_found(host: Host, taken: dict[str, Any]) -> None:
    """One byte, in the middle of the dump."""
    host.check_output(f"cp {taken['path']} /tmp/altered.tar")
    host.check_output("printf X | dd of=/tmp/altered.tar bs=1 seek=5000 conv=notrunc status=none")
    result = host.run("airflow-release backup check /tmp/altered.tar")
    assert result.rc == 1
    assert "not a complete backup" in result.stderr


def test_unit_takes_one(host: Host) -> None:
    """As the timer does, confined as the unit is."""
    result = host.run("systemctl start airflow-backup.service")
    assert result.rc == 0, host.check_output("journalctl --no-pager --unit=airflow-backup --lines=50")
    [newest, *_] = json.loads(host.check_output("airflow-release backup list --json"))
    assert newest["manifest"]["reason"] == "timer"


def test_status_page_knows_the_last_good_one(
    http: Any, endpoints: dict[str, str], taken: dict[str, Any]
) -> None:
    """Through a directory that the webhook can read, and nothing else of the backups."""
    page = http("GET", endpoints["webhook"], headers={"Accept": "application/json"}).json()
    assert page["backup"]["error"] is None
    assert page["backup"]["last_good"]["age_seconds"] < 600
    assert page["backup"]["last_failure"] is None
