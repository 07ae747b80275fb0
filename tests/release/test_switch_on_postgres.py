"""The switch on a real Postgres: nothing that was written is lost, and backups are made within it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pytest
from airflow_release.backup import backups, bundle, store
from airflow_release.core import records
from airflow_release.core.database import APPLICATION, LIVE, NEXT, PREVIOUS, SAMPLE, SCRATCH, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings
from airflow_release.switch import next_database, pace, rehearsal, reserve, rollback, way_back
from airflow_release.switch.engine import Engine
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options

from tests.release.platform_model import CONTAINERS, Killed, PlatformModel, World
from tests.release.test_switch import NEW, OLD, confirm, read, render

SETTINGS = Settings(fernet_key={"vault": "v", "item": "Airflow keys", "field": "production.fernet key"})
AIRFLOW_TABLES = """
CREATE TABLE job (id serial PRIMARY KEY, state varchar(20), latest_heartbeat timestamptz);
CREATE TABLE trigger (id serial PRIMARY KEY);
CREATE TABLE callback_request (id serial PRIMARY KEY);
CREATE TABLE task_instance (dag_id varchar(250), task_id varchar(250), run_id varchar(250), job_id integer,
  state varchar(20), external_executor_id varchar(250), end_date timestamptz,
  trigger_id integer REFERENCES trigger ON DELETE CASCADE);
INSERT INTO dag VALUES ('weather-checker', true);
"""


class PlatformOnPostgres(PlatformModel):
    """The model of the platform, whose Postgres is the server of the fixtures."""

    def run(
        self,
        command: Sequence[str],
        *,
        input: str | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = 600,
        doing: str = "",
        codes: Collection[int] = (0,),
    ) -> str:
        """Have the server do what is for Postgres, and the model all else."""
        arguments: dict[str, Any] = {"environment": environment, "timeout": timeout, "doing": doing}
        if ("exec" in command and "postgres" in command) or command[:3] == ["docker", "image", "ls"]:
            self.world.during(" ".join(command) + (f" <<< {input}" if input else ""))
            return Host.run(self, command, input=input, stdin=stdin, stdout=stdout, **arguments)
        return super().run(command, input=input, stdin=stdin, stdout=stdout, **arguments)

    def _run(self, project: Path, services: list[str], command: list[str]) -> str:
        service_file = self.releases / "database/pg_service.conf"
        pointed = service_file.read_text().partition("dbname=")[2].strip() if service_file.exists() else ""
        if "check-fernet" in command:
            return "2 of 2 encrypted values can be decrypted"
        assert pointed == NEXT, "another database would be migrated"
        Database(self).sql(
            f"UPDATE alembic_version SET version_num = 'schema-of-{self._version(project)}'", NEXT
        )
        return ""


@pytest.fixture
def platform(host: Host, monkeypatch: pytest.MonkeyPatch) -> PlatformOnPostgres:
    """A platform with the live database of the fixtures, and an operation that is about to switch it."""
    model = PlatformOnPostgres(host.directory, host.backups)
    model.world_of(World(running=dict.fromkeys(CONTAINERS, OLD)))
    for place, version in ((host.directory / "old", OLD), (host.next, NEW)):
        render(place, version)
    for file in ("haproxy/haproxy.cfg", ".env", "docker-compose.yaml", "env/airflow.env", "env/postgres.env"):
        (host.directory / "old" / file).replace(host.directory / file)
    monkeypatch.setattr(reserve, "SIZE", 4096)
    monkeypatch.setattr("airflow_release.switch.way_back.HEARTBEAT_SECONDS", 0)
    Database(model).sql(AIRFLOW_TABLES)
    for name in Database(model).names() & {NEXT, PREVIOUS, "airflow_failed"}:
        Database(model).drop(name)
    operation = Operation(
        "id", "upgrade", OLD, NEW, state="switching", options=asdict(Options(start_timeout=5))
    )
    Journal(model).save(operation)
    return model


def switch(platform: PlatformOnPostgres, *, confirmed: bool = True, **fields: Any) -> Operation:
    operation = read(platform)
    for name, value in fields.items():
        setattr(operation, name, value)
    Journal(platform).save(operation)
    confirm(platform, confirmed=confirmed)
    Engine(platform, operation).run()
    return read(platform)


@contextmanager
def writer(database: Database) -> Iterator[list[str]]:
    """Somebody's `docker compose run airflow-cli …`, who tries all the time; yields what was acknowledged."""
    acknowledged: list[str] = []
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            with suppress(ReleaseError):
                # As the host, whatever the model makes of commands: only the server decides.
                Host.run(
                    database.host,
                    database.command(
                        "psql", "--username=airflow", f"--dbname={LIVE}", "--quiet", "--no-psqlrc"
                    ),
                    input=f"INSERT INTO variable (key, val) VALUES ('written {number}', 'x')",
                )
                acknowledged.append(f"written {number}")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield acknowledged
    finally:
        over.set()
        thread.join()


def variables(database: Database, name: str = LIVE) -> set[str]:
    return set(database.sql("SELECT key FROM variable", name).splitlines())


@pytest.mark.parametrize("confirmed", [True, False])
def test_nothing_written_during_a_switch_is_lost(
    platform: PlatformOnPostgres, database: Database, confirmed: bool
) -> None:
    """What Postgres has acknowledged is in the database that is left live, or nobody was told so."""
    before_rename: list[int] = []
    acknowledged: list[str] = []

    def during(line: str) -> None:
        if "RENAME TO airflow_previous" in line:
            before_rename.append(len(acknowledged))

    platform.world.during = during
    with writer(database) as written:
        acknowledged = written
        deadline = time.monotonic() + 20
        while len(written) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        operation = switch(platform, confirmed=confirmed)
    assert operation.state == ("succeeded" if confirmed else "reverted"), operation.failure
    assert before_rename[0] >= 3
    there = variables(database) | (set() if confirmed else variables(database, "airflow_failed"))
    assert set(acknowledged[: before_rename[0]]) <= variables(database)
    assert set(acknowledged) <= there


def test_old_database_is_backed_up_and_gone(platform: PlatformOnPostgres, database: Database) -> None:
    counts = database.counts()
    operation = switch(platform)
    assert operation.state == "succeeded", operation.failure
    assert operation.warnings == []
    [name] = store.names(platform)
    manifest = bundle.verify(platform.backups / name)
    assert (manifest.counts, manifest.airflow_version, manifest.reason) == (counts, OLD, "before id")
    assert database.names() & {NEXT, PREVIOUS, SCRATCH} == set()
    assert database.sql("SELECT version_num FROM alembic_version") == f"schema-of-{NEW}"
    active = "SELECT dag_id FROM dag WHERE NOT is_paused"
    assert database.sql(active) == "one"


DAMAGE = """
INSERT INTO log (extra) SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) n;
DELETE FROM pg_class WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 'log');
"""
"""A table whose long values are gone, as after the loss of a file."""


@pytest.mark.parametrize(
    "damage", [DAMAGE, "DROP TABLE task_instance, job", "DROP TABLE alembic_version, dag_run"]
)
def test_damaged_database_is_replaced_by_a_backup(
    platform: PlatformOnPostgres, database: Database, damage: str
) -> None:
    """What can be dumped is backed up, and what cannot be stays by name; neither stops the restore."""
    good = backups.take(platform, settings=SETTINGS, reason="timer")
    database.sql(damage)
    operation = read(platform)
    operation.database, operation.kind = f"bundle:{good}", "restore"
    rehearsal.rehearse(platform, operation)
    assert database.sql("SELECT count(*) FROM variable") == "1"
    operation = switch(platform, database=operation.database, kind="restore", done={"prepared": True})
    assert operation.state == "succeeded", operation.failure
    assert database.counts()["log"] == 2000
    kept = sorted(name for name in database.names() if name.startswith("airflow_kept"))
    try:
        assert len(kept) == (damage == DAMAGE)
        assert len(operation.warnings) == len(kept)
        if kept:
            assert "could not be backed up" in operation.warnings[0]
            assert records.previous(platform).kept == kept[0]
            assert int(database.sql("SELECT count(*) FROM variable", kept[0])) == 1
    finally:
        for name in kept:
            database.drop(name)


@pytest.mark.parametrize("environment", ["production", "development"])
def test_restored_dags_run_in_production_alone(
    platform: PlatformOnPostgres, database: Database, environment: str
) -> None:
    """A backup of production on a laptop: DAG `one` was active in it."""
    good = backups.take(platform, settings=SETTINGS, reason="timer")
    env = platform.next / ".env"
    env.write_text(env.read_text().replace("ENVIRONMENT=production", f"ENVIRONMENT={environment}"))
    operation = switch(platform, database=f"bundle:{good}", kind="restore")
    assert operation.state == "succeeded", operation.failure
    active = database.sql("SELECT dag_id FROM dag WHERE NOT is_paused").split()
    assert active == (["one"] if environment == "production" else [])


@pytest.mark.parametrize("environment", ["production", "development"])
def test_restored_work_goes_on_in_production_alone(
    platform: PlatformOnPostgres, database: Database, environment: str
) -> None:
    """A paused DAG's triggers run, and so do the callbacks of its tasks whose process died."""
    database.sql(
        """
INSERT INTO trigger VALUES (7);
INSERT INTO callback_request VALUES (1);
INSERT INTO task_instance (dag_id, task_id, state, trigger_id) VALUES
  ('one', 'deferred', 'deferred', 7), ('one', 'running', 'running', NULL), ('one', 'done', 'success', NULL),
  ('weather-checker', 'smoke', 'running', NULL);
"""
    )
    good = backups.take(platform, settings=SETTINGS, reason="timer")
    env = platform.next / ".env"
    env.write_text(env.read_text().replace("ENVIRONMENT=production", f"ENVIRONMENT={environment}"))
    operation = switch(platform, database=f"bundle:{good}", kind="restore")
    assert operation.state == "succeeded", operation.failure
    states = dict(
        row.split("|") for row in database.sql("SELECT task_id, state FROM task_instance").splitlines()
    )
    left = database.sql("SELECT (SELECT count(*) FROM trigger) + (SELECT count(*) FROM callback_request)")
    if environment == "production":
        assert states == {"deferred": "deferred", "running": "running", "done": "success", "smoke": "running"}
        assert left == "2"
    else:
        assert states == {"deferred": "failed", "running": "failed", "done": "success", "smoke": "running"}
        assert left == "0"


SETTINGS_OF = """
SELECT setting FROM pg_database, pg_db_role_setting, unnest(setconfig) AS setting
WHERE oid = setdatabase AND datname = '{}' ORDER BY 1
"""
GRANTS_OF = """
SELECT grantee::regrole, privilege_type, is_grantable FROM pg_database, aclexplode(datacl)
WHERE datname = '{}' ORDER BY 1, 2
"""
LIMIT_OF = "SELECT datconnlimit FROM pg_database WHERE datname = '{}'"
KEPT = (SETTINGS_OF, GRANTS_OF, LIMIT_OF)


@pytest.mark.parametrize("source", ["copy", "bundle"])
def test_settings_and_grants_of_the_database_stay(
    platform: PlatformOnPostgres, database: Database, source: str
) -> None:
    database.sql(
        """
ALTER DATABASE airflow SET work_mem = '64MB';
ALTER DATABASE airflow CONNECTION LIMIT 321;
ALTER DATABASE airflow SET search_path = public, "$user";
ALTER DATABASE airflow SET application_name = 'it''s a "name"';
DO $$ BEGIN CREATE ROLE bi LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
ALTER ROLE bi IN DATABASE airflow SET statement_timeout = '5min';
REVOKE CONNECT ON DATABASE airflow FROM PUBLIC;
GRANT CONNECT ON DATABASE airflow TO bi WITH GRANT OPTION;
"""
    )
    expected = [database.sql(query.format(LIVE), "postgres") for query in KEPT]
    assert "work_mem=64MB" in expected[0]
    assert expected[2] == "321"
    if source == "bundle":
        source = f"bundle:{backups.take(platform, settings=SETTINGS, reason='timer')}"
    operation = switch(platform, database=source)
    assert operation.state == "succeeded", operation.failure
    assert [database.sql(query.format(LIVE), "postgres") for query in KEPT] == expected


def test_rehearsal_says_how_long_pages_will_be_away(platform: PlatformOnPostgres, database: Database) -> None:
    operation = read(platform)
    rehearsal.rehearse(platform, operation)
    [phase] = operation.phases
    assert "the switch will keep pages away for about" in phase.note
    assert database.names() & {SCRATCH, PREVIOUS} == set()


def test_switch_that_does_not_fit_is_refused_beforehand(
    platform: PlatformOnPostgres, database: Database
) -> None:
    operation = read(platform)
    operation.options["outage_limit"] = 1
    with pytest.raises(ReleaseError, match=r"about \d+ s, .* upgrade_outage_limit is 1 s"):
        rehearsal.rehearse(platform, operation)
    assert variables(database) == {"tab"}
    assert set(platform.world.running) >= set(CONTAINERS)


SLOW = {"re-encrypting": "check-fernet --re-encrypt", "copying": f"CREATE DATABASE {SCRATCH} TEMPLATE"}
"""What takes long with the pages away, and how its command is known."""


def measure(platform: PlatformOnPostgres, *, fernet_key: bool = True, **options: int) -> list[str]:
    """Try a rotation; return what it says that it does."""
    said: list[str] = []
    rehearsal.measure_rotation(platform, Options.parse(options), fernet_key=fernet_key, say=said.append)
    return said


@pytest.fixture
def unprepared(platform: PlatformOnPostgres) -> PlatformOnPostgres:
    """A platform before a rotation: nothing was measured, and no next release is rendered."""
    shutil.rmtree(platform.next)
    assert pace.copy_seconds(platform, 1) is None
    return platform


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("fits", [True, False])
def test_rotation_is_measured_before_the_vault_changes(
    unprepared: PlatformOnPostgres,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
    fits: bool,
) -> None:
    """With nothing measured before it once went on, however long the pages would be away."""
    slept = 0

    def during(line: str) -> None:
        nonlocal slept
        slept += 1000 * (SLOW[slow] in line)

    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + slept)
    unprepared.world.during = during
    running = dict(unprepared.world.running)
    if fits:
        measure(unprepared, outage_limit=80_000)
    else:
        with pytest.raises(ReleaseError, match=r"about \d{4,} s, .* upgrade_outage_limit is 900 s"):
            measure(unprepared)
    assert slept == 1000
    assert database.names() & {NEXT, SCRATCH, PREVIOUS} == set()
    assert variables(database) == {"tab"}
    assert unprepared.world.running == running
    assert database.sql("SELECT datallowconn FROM pg_database WHERE datname = 'airflow'", "postgres") == "t"
    assert pace.copy_seconds(unprepared, 1) is not None


@pytest.mark.parametrize("fernet_key", [True, False])
def test_rotation_re_encrypts_only_for_another_fernet_key(
    unprepared: PlatformOnPostgres, fernet_key: bool
) -> None:
    steps = ["copying", "re-encrypting" if fernet_key else "looking", "copying"]
    said = [line.split()[0] for line in measure(unprepared, fernet_key=fernet_key)]
    assert said == (["reading"] if fernet_key else []) + steps
    asked = [line for line in unprepared.world.commands if "check-fernet" in line]
    assert [line.rpartition("airflow-init")[2] for line in asked] == (
        [" check-fernet", "-next check-fernet --re-encrypt"] if fernet_key else []
    )
    # With the running release and its passwords: there is no other by then.
    project = f"--project-directory {unprepared.directory} "
    assert all(project in line for line in unprepared.world.commands if " run " in line)


def test_estimate_counts_the_room_of_rows_that_are_gone(
    unprepared: PlatformOnPostgres, database: Database
) -> None:
    """A backup has none of it, a copy has all of it; what was measured once counted for nothing then."""
    operation = Operation("id", "upgrade", OLD, OLD, state="prepared", options=asdict(Options()))
    Journal(unprepared).save(operation)
    render(unprepared.next, OLD)
    database.sql(
        "ALTER TABLE log SET (autovacuum_enabled = false);"
        " INSERT INTO log (extra) SELECT repeat(md5(n::text), 60) FROM generate_series(1, 20000) n;"
        " DELETE FROM log"
    )
    sizes: list[int] = []
    slept = 0

    def during(line: str) -> None:
        nonlocal slept
        if SLOW["copying"] in line and not slept:
            slept = 1000
            sizes.extend(database.size(name) for name in (LIVE, NEXT))

    clock = time.time
    unprepared.world.during = during
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: clock() + slept)
        with pytest.raises(ReleaseError, match="would keep Airflow's pages away") as refused:
            rehearsal.rehearse(unprepared, operation)
    assert sizes[0] > pace.COMPARABLE * sizes[1]
    expected = int(str(refused.value).partition("about ")[2].partition(" s,")[0])
    assert expected > 1000 * sizes[0] / sizes[1]


def test_restore_is_rehearsed_also_where_postgres_gets_another_password(
    platform: PlatformOnPostgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was once restored and migrated with the pages away, for as long as that took."""
    connection = "postgresql+psycopg2://airflow:{}@postgres/?service=next"
    for place, password in ((platform.directory, "present"), (platform.next, "other")):
        (place / "env/postgres.env").write_text(f"POSTGRES_PASSWORD='{password}'\n")
        (place / "env/next.env").write_text(f"{next_database.CONNECTION}='{connection.format(password)}'\n")
    good = backups.take(platform, settings=SETTINGS, reason="timer")
    database.sql("INSERT INTO variable (key, val) VALUES ('later', 'x')")
    logins: list[str] = []
    run_once = next_database._run_once

    def note(*arguments: Any, environment: Mapping[str, str], **rest: Any) -> str:
        logins.append(environment[next_database.CONNECTION])
        return run_once(*arguments, environment=dict(environment), **rest)

    monkeypatch.setattr(next_database, "_run_once", note)
    operation = read(platform)
    operation.kind, operation.database, operation.state = "restore", f"bundle:{good}", "prepared"
    rehearsal.rehearse(platform, operation)
    # Once for the schema and once for the key: Postgres takes the present password until the switch.
    assert logins == [connection.format("present")] * 2
    assert "no webserver was tried on it" in operation.phases[0].note
    commands = platform.world.commands
    assert not [line for line in commands if "airflow-webserver-standby" in line]
    commands.clear()
    operation = switch(
        platform, state="switching", done=operation.done, kind="restore", database=f"bundle:{good}"
    )
    assert operation.state == "succeeded", operation.failure
    assert len(logins) == 2, "the switch has migrated again"
    assert variables(database) == {"tab"}


@pytest.mark.parametrize("lost", [0, 3, 41])
@pytest.mark.parametrize("accepted", [0, 3])
@pytest.mark.parametrize("rotated", [False, True])
def test_values_that_the_key_does_not_decrypt_are_counted_and_named(
    platform: PlatformOnPostgres,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
    accepted: int,
    rotated: bool,
) -> None:
    """Also while a new key encrypts what the old one did."""
    for place, key in ((platform.directory, "old"), (platform.next, "new" if rotated else "old")):
        with (place / "env/airflow.env").open("a") as file:
            file.write(f"AIRFLOW__CORE__FERNET_KEY={key}\n")
    good = backups.take(platform, settings=SETTINGS, reason="timer")
    said = "\n".join(
        [
            f"{41 - lost} of 41 encrypted values can be decrypted",
            *(f"not with this key: variable {n}" for n in range(lost)),
        ]
    )

    def check_fernet(
        host: Host,
        files: Path,
        service: str,
        *command: str,
        doing: str,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        if "check-fernet" not in command:
            return ""
        assert ("--re-encrypt" in command) == rotated
        assert environment == ({"AIRFLOW__CORE__FERNET_KEY": "new,old"} if rotated else {})
        if lost:
            raise ReleaseError(f"{doing} failed with code 1", said)
        return said

    monkeypatch.setattr(next_database, "_run_once", check_fernet)
    operation = read(platform)
    operation.database, operation.options["accept_undecryptable"] = f"bundle:{good}", accepted
    if lost <= accepted:
        rehearsal.rehearse(platform, operation)
        return
    with pytest.raises(ReleaseError) as refused:
        rehearsal.rehearse(platform, operation)
    assert f"does not decrypt {lost} of 41" in str(refused.value)
    assert f"upgrade_accept_undecryptable={lost}" in str(refused.value)
    assert str(refused.value).count("variable ") == lost


@contextmanager
def left_at_work(database: Database) -> Iterator[Callable[[], bool]]:
    """Have Postgres be at work on what a killed process asked for; yield what says whether it still is."""
    sleeping = database.command(
        "env", f"PGAPPNAME={APPLICATION}", "psql", "--username=airflow", "--dbname=postgres"
    )
    left = subprocess.Popen([*sleeping, "--command=SELECT pg_sleep(120)"], stderr=subprocess.DEVNULL)
    count = (
        f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION}'"
        " AND query LIKE '%sleep(%' AND pid <> pg_backend_pid()"
    )
    try:
        deadline = time.monotonic() + 20
        while database.sql(count, "postgres") == "0":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield lambda: database.sql(count, "postgres") != "0"
    finally:
        database.end_leftovers()
        assert left.wait(20) != 0


def test_what_a_killed_process_left_at_work_is_ended(database: Database) -> None:
    """A copy that goes on would appear as a database in the middle of the way back."""
    with left_at_work(database) as at_work:
        database.end_leftovers()
        assert not at_work()


KILLED_IN: dict[str, tuple[Any, str]] = {
    "switching": (Engine, "_drain"),
    "unconfirmed": (Engine, "_prove"),
    "finishing": (Engine, "_complete"),
    "reverting": (way_back, "take"),
}
"""States of an operation, and what is being done in each."""


@pytest.mark.parametrize("state", KILLED_IN)
def test_next_process_first_ends_what_the_killed_one_left_at_work(
    platform: PlatformOnPostgres, database: Database, state: str
) -> None:
    """Forward and on the way back: nothing else is asked of Postgres before that."""

    def killed(*_: object) -> None:
        raise Killed

    place, killed.__name__ = KILLED_IN[state]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, killed.__name__, killed)
        with pytest.raises(Killed):
            switch(platform, confirmed=state != "reverting")
    assert read(platform).state == state
    beside: list[str] = []
    with left_at_work(database) as at_work:

        def during(line: str) -> None:
            if "psql" in line and "pg_terminate_backend(pid, 60000)" not in line and at_work():
                beside.append(line)

        platform.world.during = during
        Engine(platform, read(platform)).run()
        assert not at_work()
    assert beside == []
    assert read(platform).state == ("succeeded" if state in ("unconfirmed", "finishing") else "reverted")


# What a rollback means, on a platform that is ill.


def leave(platform: PlatformOnPostgres) -> records.Release:
    """Have a release that was left with a backup, and one that runs with another schema."""
    left = records.new(platform, platform.directory, "of-an-earlier-release")
    left.id, left.since = "20260101T000000Z-2.5.3", 1.0
    left.bundle = str(backups.take(platform, settings=SETTINGS, reason="before an upgrade"))
    running = records.new(platform, platform.directory, Database(platform).revision())
    for release in (left, running):
        records.save(platform, release)
    left.files(platform).mkdir()
    records.make_current(platform, running)
    return left


CANNOT_BE_DUMPED = {
    "long values": DAMAGE,
    "runs": "DELETE FROM pg_attribute WHERE attrelid = 'dag_run'::regclass AND attname = 'start_date'",
    "schema": "DELETE FROM pg_attribute WHERE attrelid = 'alembic_version'::regclass AND attnum = 1",
}


@pytest.mark.parametrize("damage", CANNOT_BE_DUMPED)
def test_rollback_is_planned_where_the_database_cannot_be_dumped(
    platform: PlatformOnPostgres, database: Database, tmp_path: Path, damage: str
) -> None:
    """Going back is what one does then; what cannot be read is said to be lost in words."""
    left = leave(platform)
    database.sql(CANNOT_BE_DUMPED[damage])
    with pytest.raises(ReleaseError, match="dumping airflow failed") as failed:
        database.dump(tmp_path / "dump")
    assert damage != "runs" or "pg_attribute catalog is missing 1 attribute" in failed.value.log
    plan = rollback.plan(platform)
    assert (plan.release.id, plan.database) == (left.id, f"bundle:{left.bundle}")
    lost = "; ".join(plan.lost)
    assert lost.startswith("everything since 20")
    assert ("the database does not say" in lost) is (damage == "runs")
    assert ("the rows of the live database cannot be counted" in lost) is (damage == "runs")
    assert ("log: 2001 rows now, 2000 in the backup" in lost) is (damage == "long values")


def test_schema_that_cannot_be_read_is_not_that_of_an_earlier_release(
    platform: PlatformOnPostgres, database: Database
) -> None:
    """Of a release whose own could not be read either: the live database would be taken for its own."""
    left = leave(platform)
    left.revision = ""
    records.save(platform, left)
    database.sql("DROP TABLE alembic_version")
    assert rollback.plan(platform).database == f"bundle:{left.bundle}"


def test_rollback_is_planned_where_postgres_is_stopped(platform: PlatformOnPostgres) -> None:
    """A database that merely does not run is not taken for one that is lost: Postgres is started first."""
    left = leave(platform)
    del platform.world.running["postgres"]
    asked: list[bool] = []

    def during(line: str) -> None:
        if "psql" in line:
            asked.append("postgres" in platform.world.running)

    platform.world.during = during
    plan = rollback.plan(platform)
    assert (plan.release.id, plan.database) == (left.id, f"bundle:{left.bundle}")
    assert len(plan.lost) == 1, "the rows are the same"
    assert asked
    assert all(asked)


def test_rollback_is_not_planned_where_postgres_does_not_start(platform: PlatformOnPostgres) -> None:
    leave(platform)
    del platform.world.running["postgres"]
    platform.world.ill = {OLD: {"postgres"}}
    with pytest.raises(ReleaseError, match="postgres is unhealthy"):
        rollback.plan(platform)


@pytest.mark.parametrize(
    ("kept", "backup", "source"),
    [(True, True, "database"), (True, False, "database"), (False, True, "bundle"), (False, False, "")],
)
def test_rollback_takes_the_backup_where_the_kept_database_is_gone(
    platform: PlatformOnPostgres, database: Database, kept: bool, backup: bool, source: str
) -> None:
    left = leave(platform)
    left.kept, left.bundle = "airflow_kept_20260101t000000z", left.bundle if backup else ""
    records.save(platform, left)
    sources = {"database": f"database:{left.kept}", "bundle": f"bundle:{left.bundle}"}
    if kept:
        database.create(left.kept)
    try:
        if source:
            assert rollback.plan(platform).database == sources[source]
        else:
            with pytest.raises(ReleaseError, match="another schema, and no backup was made when it was left"):
                rollback.plan(platform)
    finally:
        database.drop(left.kept)


def test_sample_is_comparable_with_the_live_database(
    platform: PlatformOnPostgres, database: Database
) -> None:
    """And nothing of it stays."""
    database.sql("INSERT INTO log (extra) SELECT repeat(md5(n::text), 60) FROM generate_series(1, 20000) n")
    names, said = database.names(), list[str]()
    sizes: dict[str, int] = {}

    def during(line: str) -> None:
        if f"CREATE DATABASE {SCRATCH} TEMPLATE {SAMPLE}" in line:
            sizes.update({name: database.size(name) for name in (LIVE, SAMPLE)})

    platform.world.during = during
    rehearsal.measure_pace(platform, said.append)
    assert sizes[LIVE] // 4 < sizes[SAMPLE] < sizes[LIVE] // 4 + 10 * 2**20
    assert json.loads((platform.releases / "pace.json").read_text())["bytes"] == sizes[SAMPLE]
    assert pace.copy_seconds(platform, database.size(LIVE)) is not None
    assert database.names() == names
    assert len(said) == 1
    rehearsal.measure_pace(platform, said.append)
    assert len(said) == 1, "it is known by now"


def test_nothing_that_grows_with_the_data_has_a_limit(
    platform: PlatformOnPostgres, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: dict[str, float | None] = {}
    real = subprocess.run

    def run(command: Sequence[str], **arguments: Any) -> subprocess.CompletedProcess[bytes]:
        text = " ".join(command) + str(arguments.get("input") or "")
        for what in (
            "count(*)",
            "max(start_date)",
            "TEMPLATE",
            "pg_dump",
            "pg_restore",
            "DROP DATABASE",
            "UPDATE task_instance",
            "CREATE UNLOGGED TABLE",
        ):
            if what in text:
                limits[what] = arguments["timeout"]
        return real(command, **arguments)

    monkeypatch.setattr(subprocess, "run", run)
    good = backups.take(platform, settings=SETTINGS, reason="timer")
    next_database.make(database, f"bundle:{good}")
    next_database.make(database, "copy")
    database.open(LIVE)
    rehearsal.measure_pace(platform, lambda line: None)
    assert limits == dict.fromkeys(limits)
    assert len(limits) == 8


def test_closed_database_takes_nobody(database: Database) -> None:
    """Not even a superuser, as `airflow` is."""
    database.close(LIVE)
    try:
        with pytest.raises(ReleaseError) as refused:
            database.sql("SELECT 1")
        assert "not currently accepting connections" in refused.value.log
    finally:
        database.open(LIVE)
    assert database.sql("SELECT 1") == "1"
