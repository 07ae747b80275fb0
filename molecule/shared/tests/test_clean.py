"""The clean-up on the host: due every night, and its unit says what it removed or could not remove."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator

import pytest
from airflow_api import wait_for
from expected import DIRECTORY
from long_tests import when_asked
from testinfra.host import Host

ARCHIVE = "_airflow_deleted__log__20260101000000"
LOGS = f"{DIRECTORY}/logs/dag_id=cleaned/run_id=1/task_id=t"
FORGOTTEN = "forgotten_session"

Sql = Callable[[str], str]


@pytest.fixture(scope="module")
def sql(host: Host) -> Sql:
    """Return a function that runs a statement in the metadata database."""
    psql = f"docker compose --project-directory {DIRECTORY} exec --no-TTY postgres psql --username=airflow"

    def run(statement: str) -> str:
        return host.check_output(f"{psql} --no-psqlrc -qtA --command={shlex.quote(statement)}").strip()

    return run


@pytest.fixture(scope="module")
def backed_up(host: Host) -> None:
    """A backup of the last day, without which no history goes."""
    host.check_output("airflow-release backup take --wait 300 --reason 'a test'")


def images(host: Host) -> set[str]:
    """Return the platform's images on the host."""
    listed = "docker image ls --format '{{.Repository}}:{{.Tag}}' --filter 'reference=airflow-platform/*'"
    return set(host.check_output(listed).split())


def journal(host: Host, since: str) -> str:
    return host.check_output(f"journalctl --no-pager --output=cat --unit=airflow-clean --since={since}")


def test_timer_is_on(host: Host) -> None:
    """A disk that somebody has to look after fills up."""
    timer = host.service("airflow-clean.timer")
    assert timer.is_enabled
    assert timer.is_running
    assert host.check_output("systemctl show --property=Persistent --value airflow-clean.timer") == "yes"


def test_systemd_removes_no_log_by_itself(host: Host) -> None:
    """It says nothing of what it removes."""
    assert f"{DIRECTORY}/logs" not in host.check_output("systemd-tmpfiles --cat-config")


def test_dry_run_changes_nothing(host: Host) -> None:
    before = images(host)
    result = host.run("airflow-release clean --dry-run --wait 300 --json")
    assert result.rc == 0, result.stderr
    assert [step["name"] for step in json.loads(result.stdout)] == [
        *("logs", "images", "build cache", "backups", "networks", "databases", "history"),
    ]
    assert images(host) == before


@pytest.mark.usefixtures("backed_up")
def test_unit_removes_what_is_old_and_says_so(host: Host, sql: Sql) -> None:
    """Confined as the unit is, with Airflow's own command in a container of its own."""
    sql("INSERT INTO log (dttm, event) VALUES (now() - interval '91 days', 'old'), (now(), 'new_by_test')")
    sql(f"CREATE TABLE {ARCHIVE} (id integer)")
    host.check_output(f"mkdir -p '{LOGS}' && echo old > '{LOGS}/attempt=1.log'")
    host.check_output(
        f"touch --date='91 days ago' '{LOGS}/attempt=1.log' '{LOGS}' '{LOGS}/..' '{LOGS}/../..'"
    )
    needed, since = images(host), host.check_output("date +@%s")
    result = host.run("systemctl start airflow-clean.service")
    said = journal(host, since)
    assert result.rc == 0, said
    assert "removed logs of tasks: 1 files" in said
    assert "removed history before " in said
    assert f"removed the table {ARCHIVE}" in said
    assert sql("SELECT event FROM log WHERE event IN ('old', 'new_by_test')") == "new_by_test"
    assert sql("SELECT count(*) FROM pg_tables WHERE tablename LIKE '\\_airflow\\_deleted%'") == "0"
    assert not host.file(f"{DIRECTORY}/logs/dag_id=cleaned").exists
    # Whatever the next start needs is still there.
    named = host.check_output(
        f"grep -oh 'airflow-platform/[^\" ]*' {DIRECTORY}/.env {DIRECTORY}/docker-compose.yaml"
    )
    assert set(named.split()) <= needed
    assert set(named.split()) <= images(host)
    assert host.check_output("docker ps --all --quiet --filter name=^airflow-clean$") == ""


@pytest.fixture
def forgotten(host: Host, sql: Sql) -> Iterator[None]:
    """A session that somebody forgot: others may read a table with old rows, but not delete from it."""
    sql(
        "INSERT INTO sla_miss (task_id, dag_id, execution_date, timestamp)"
        " VALUES ('t', 'cleaned', now(), now() - interval '91 days')"
    )
    hold = "BEGIN; LOCK TABLE sla_miss IN SHARE MODE; SELECT pg_sleep(600);"
    command = f"exec --no-TTY --detach postgres env PGAPPNAME={FORGOTTEN} psql --username=airflow"
    host.check_output(
        f"docker compose --project-directory {DIRECTORY} {command} --command={shlex.quote(hold)}"
    )
    mine = f"FROM pg_stat_activity WHERE application_name = '{FORGOTTEN}'"
    wait_for("the session to hold its lock", lambda: sql(f"SELECT wait_event {mine}") == "PgSleep", 30)
    yield
    sql(f"SELECT pg_terminate_backend(pid, 10000) {mine}")
    sql("DELETE FROM sla_miss WHERE dag_id = 'cleaned'")
    host.check_output("systemctl reset-failed airflow-clean.service")


@when_asked
@pytest.mark.usefixtures("backed_up", "forgotten")
def test_what_could_not_be_removed_is_loud(host: Host) -> None:
    """Airflow's own command ends with 0 here. About a minute, for which a lock is waited for."""
    since = host.check_output("date +@%s")
    assert host.run("systemctl start airflow-clean.service").rc != 0
    said = journal(host, since)
    assert "left rows from before" in said, said
    assert f"({FORGOTTEN}, " in said
    assert host.run("systemctl is-failed airflow-clean.service").stdout.strip() == "failed"
