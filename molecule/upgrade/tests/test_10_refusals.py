"""What cannot work is refused before anything is begun, in words that say what to do instead.

Costs about 60 s: the commands that change nothing run side by side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from control_node import ControlNode, Finished, version
from platform_host import Platform

pytestmark = pytest.mark.starts_on("2.5.3")

RELEASES = "playbooks/group_vars/all/releases.yml"
REASON = "its wheel lacks a migration"
REFUSED = {
    "unknown": ("2.6.99", ("Airflow 2.6.99 is asked for, which is not among the releases",)),
    "unsupported": ("2.4.3", ("supported are 2.5.3 to 2.11.2",)),
    "unfit": ("2.10.1", ("airflow_version is 2.10.1, which does not work on this platform",)),
    "required stop": (
        "2.11.2",
        ("Upgrade to that version first: ansible-playbook upgrade.yml -e airflow_version=2.6.1",),
    ),
    "withdrawn": ("2.6.1", (f"Airflow 2.6.1 was yanked from PyPI: {REASON}",)),
    "mistyped option": (
        "2.6.1 upgrade_start_timeout=5m",
        ("upgrade_start_timeout is '5m'; whole seconds from 1 to 3600 are expected",),
    ),
    "mistyped name": ("2.6.1 upgrade_start_timout=600", ("upgrade_start_timout", "upgrade_start_timeout")),
}


@dataclass
class Attempts:
    """Upgrades that were tried side by side, and the containers before and after them."""

    ends: dict[str, Finished]
    before: dict[str, str]
    after: dict[str, str]
    operation: object


@pytest.fixture(scope="module")
def attempts(platform: Platform, control: ControlNode) -> Attempts:
    """Try them all. The table of the copy says that one version was withdrawn; in truth none was."""
    before = platform.containers()
    entry = '  2.6.1: {date: "2023-05-16", '
    with control.edited(RELEASES, entry, f'{entry}yanked: "{REASON}", '):
        running = {name: control.start("upgrade.yml", version(to)) for name, (to, _) in REFUSED.items()}
        ends = {name: one.wait(300) for name, one in running.items()}
    return Attempts(ends, before, platform.containers(), platform.operation())


@pytest.mark.parametrize("case", REFUSED)
def test_version_is_refused(attempts: Attempts, case: str) -> None:
    """The message names what is wrong, or where to go first."""
    attempts.ends[case].failed(*REFUSED[case][1])


def test_refusals_begin_nothing(attempts: Attempts, control: ControlNode) -> None:
    """No operation, no container replaced, the pin as it was."""
    assert attempts.operation == {}
    assert attempts.after == attempts.before
    assert control.pin == "2.5.3"


def test_rollback_that_does_not_fit_is_refused_where_no_copy_was_measured(platform: Platform) -> None:
    """It measures one of a sample on the real Postgres, and nothing of that stays. About 10 s."""
    containers, databases = platform.containers(), platform.databases()
    platform.check("rm -f releases/pace.json")
    said = platform.run(
        "airflow-release begin --kind rollback --to-version 2.5.3 --options %s", '{"outage_limit": 1}'
    )
    assert said.rc == 3, said.stdout + said.stderr
    assert "copying a sample of " in said.stderr
    assert "would keep Airflow's pages away for about " in said.stderr
    assert "upgrade_outage_limit is 1 s" in said.stderr
    measured = json.loads(platform.check("cat releases/pace.json"))
    size = int(platform.sql("SELECT pg_database_size('airflow')"))
    assert size < 4 * measured["bytes"]
    assert 0 < measured["seconds"] < 60
    assert platform.databases() == databases
    assert platform.containers() == containers
    assert platform.operation() == {}


def test_platform_that_is_not_well_is_left_alone(platform: Platform, control: ControlNode) -> None:
    """The message and the report name the service that does not run and the full disk. About 30 s."""
    platform.check("docker compose stop airflow-triggerer")
    before = platform.containers()
    try:
        with platform.full_backup_disk():
            refused = control.run("upgrade.yml", version("2.6.1"), seconds=300)
    finally:
        after = platform.containers()
        platform.check("docker compose start airflow-triggerer")
    refused.failed(
        "not well, and nothing is changed until it is: .*airflow-triggerer does not run",
        "too little disk: /var/backups/airflow has 0 MiB free",
        "Airflow 2.5.3 serves as before",
    )
    page = control.page("2.5.3", "2.6.1")
    assert "airflow-triggerer does not run" in page
    assert "too little disk" in page
    assert after == before
    assert platform.operation()["state"] == "abandoned"
    platform.wait_until_healthy()


def test_pending_migration_is_an_ailment(platform: Platform) -> None:
    """Of those that upgrade.yml asks for. As after a restore of an older database by hand."""
    right = platform.sql("SELECT version_num FROM alembic_version").strip()
    # A schema of Airflow 2.3.
    platform.sql("UPDATE alembic_version SET version_num = 'b1b348e02d07'")
    try:
        said = platform.run("airflow-release health")
    finally:
        platform.sql(f"UPDATE alembic_version SET version_num = '{right}'")
    assert said.rc == 1
    assert "a migration is pending: the database has the schema b1b348e02d07" in said.stdout
    assert f"Airflow 2.5.3 needs {right}" in said.stdout
    assert platform.run("airflow-release health").rc == 0


def test_images_need_disk(platform: Platform) -> None:
    """The check that upgrade.yml makes, asked for larger images than any disk holds."""
    said = platform.run("airflow-release space --images %s", str(10**17))
    assert said.rc == 1
    assert "/var/lib/docker/volumes/airflow_postgres_data" in said.stdout
    assert "new images" in said.stdout
    assert platform.run("airflow-release space").rc == 0
