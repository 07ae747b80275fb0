"""The switch under every fault: each command of it fails once and is the last before a kill once."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from airflow_release.backup import backups
from airflow_release.core import records
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.switch import commands as switch_commands
from airflow_release.switch import next_database, pace, rehearsal, reserve
from airflow_release.switch.engine import Engine
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options

from tests import compose_project
from tests.release.platform_model import CONTAINERS, STANDBY, Killed, PlatformModel, World

OLD, NEW = "2.5.3", "2.6.1"
WEBSERVER, GATEWAY = "airflow-webserver", "worker-gateway"
WORKERS = list(compose_project.workers(compose_project.project(more=compose_project.SECOND_WORKER)))
"""Each of the template, and one more."""
ALL = os.environ.get("UPGRADE_TESTS") == "all"


def render(directory: Path, version: str, project: compose_project.Project | None = None) -> None:
    (directory / "env").mkdir(parents=True)
    (directory / "haproxy").mkdir()
    (directory / ".env").write_text(
        f"AIRFLOW_VERSION={version}\nAIRFLOW_IMAGE=airflow:{version}\nENVIRONMENT=production\n"
    )
    project = project or compose_project.project(version)
    (directory / "docker-compose.yaml").write_text(json.dumps(project))
    (directory / "env/airflow.env").write_text("AIRFLOW__CORE__FERNET_KEY=key\n")
    (directory / "env/postgres.env").write_text("POSTGRES_PASSWORD='pass''word'\n")
    (directory / "haproxy/haproxy.cfg").write_text(f"# for {version}\n")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformModel:
    host = PlatformModel(tmp_path / "srv", tmp_path / "backups")
    host.world_of(World(databases={"airflow": {"revision": f"schema-of-{OLD}"}}))
    host.world.running = dict.fromkeys(CONTAINERS, OLD) | {STANDBY: NEW}
    render(host.directory, OLD)
    render(host.next, NEW)

    def take(host: PlatformModel, **arguments: Any) -> Path:
        if host.world.fail == "backup":
            raise OSError(5, "Input/output error")
        if say := arguments.get("progress"):
            say("dump 1 MiB")
        return host.backups / "bundle.tar"

    def extract(path: Path, into: Path) -> Path:
        (into / "dump").write_text("a dump")
        return into / "dump"

    # Backups of a real database, made within a switch, are in test_switch_on_postgres.py.
    monkeypatch.setattr(backups, "take", take)
    monkeypatch.setattr(backups, "extract_database", extract)
    monkeypatch.setattr(reserve, "SIZE", 4096)
    monkeypatch.setattr("airflow_release.switch.way_back.HEARTBEAT_SECONDS", 0)
    records.current(host, Database(host).revision())
    operation = Operation(
        "id", "upgrade", OLD, NEW, state="switching", options=asdict(Options(start_timeout=1))
    )
    Journal(host).save(operation)
    host.world.commands.clear()
    return host


def run(host: PlatformModel) -> Operation:
    """Do what the unit does: take what the journal has, and go."""
    Engine(host, read(host)).run()
    return read(host)


def read(host: PlatformModel) -> Operation:
    operation = Journal(host).read()
    assert operation is not None
    return operation


def change(host: PlatformModel, **fields: Any) -> None:
    """Make the operation another one; `options` are added to those that it has."""
    operation = read(host)
    operation.options.update(fields.pop("options", {}))
    for name, value in fields.items():
        setattr(operation, name, value)
    Journal(host).save(operation)


def confirm(host: PlatformModel, *, confirmed: bool = True) -> None:
    verdict = {"operation": "id", "confirmed": confirmed, "message": "smoke is red", "log": ""}
    (host.releases / "verdict.json").write_text(json.dumps(verdict))


def check(host: PlatformModel, operation: Operation) -> None:
    """All of the old or all of the new, and nothing in between."""
    version = {"succeeded": NEW, "reverted": OLD}[operation.state]
    world = host.world
    assert world.databases["airflow"]["revision"] == f"schema-of-{version}"
    assert set(world.databases) <= {"airflow", "airflow_failed"}
    assert world.closed == set()
    assert world.running == dict.fromkeys(host.wanted(), version)
    assert host.environment()["AIRFLOW_VERSION"] == version
    assert (host.directory / "haproxy/haproxy.cfg").read_text() == f"# for {version}\n"
    assert world.servers.get("airflow", "ready") == "ready"
    assert world.servers.get("standby", "maint") == "maint"
    assert records.current(host, "").airflow_version == version
    assert not (host.releases / reserve.NAME).exists()


def commands_of_a_good_switch(host: PlatformModel) -> list[str]:
    confirm(host)
    operation = run(host)
    assert operation.state == "succeeded", operation.failure
    check(host, operation)
    return host.world.commands


def test_good_switch(model: PlatformModel) -> None:
    commands = commands_of_a_good_switch(model)
    first_stop = next(i for i, line in enumerate(commands) if " stop " in line)
    assert "airflow-scheduler" in commands[first_stop]
    phases = [(phase.name, phase.state) for phase in read(model).phases]
    expected = ["drain", "migrate", "start", "serve", "verify", "smoke", "finish", "backup"]
    assert phases == [(name, "done") for name in expected]


def use(host: PlatformModel, before: compose_project.Project, after: compose_project.Project) -> None:
    """Have the old and the new release other services."""
    for directory, project in ((host.directory, before), (host.next, after)):
        (directory / "docker-compose.yaml").write_text(json.dumps(project))
    host.world.running = dict.fromkeys(host.wanted(), OLD) | {STANDBY: NEW}


def two_workers(version: str) -> compose_project.Project:
    return compose_project.project(version, compose_project.SECOND_WORKER)


def worker_hosts(version: str) -> compose_project.Project:
    return compose_project.project(version, hosts=compose_project.WORKER_HOSTS)


PROJECTS = {
    "labels": compose_project.project,
    "no labels": compose_project.unlabelled_project,
    "two workers": two_workers,
    "worker hosts": worker_hosts,
}


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("after", PROJECTS)
@pytest.mark.parametrize("before", PROJECTS)
def test_releases_with_other_services(model: PlatformModel, before: str, after: str, confirmed: bool) -> None:
    """To and from a release from before the labels; and a worker that only one release has goes with it."""
    use(model, PROJECTS[before](OLD), PROJECTS[after](NEW))
    confirm(model, confirmed=confirmed)
    operation = run(model)
    assert operation.state == ("succeeded" if confirmed else "reverted"), operation.failure
    assert operation.warnings == []
    check(model, operation)


def test_second_worker_is_stopped_and_started_like_the_first(model: PlatformModel) -> None:
    use(model, two_workers(OLD), two_workers(NEW))
    model.world.tasks = ["dag.task (run), running"]
    commands = commands_of_a_good_switch(model)
    stopped = [line.partition("--timeout=")[2].split()[1:] for line in commands if " stop " in line]
    assert stopped[:2] == [["airflow-scheduler"], [*WORKERS, "airflow-triggerer"]]
    assert {*WORKERS, "airflow-scheduler", "airflow-triggerer", WEBSERVER} in map(set, stopped)
    first_up = next(line for line in commands if " up " in line and "airflow-scheduler" in line)
    assert first_up.split()[-1 - len(WORKERS) :] == ["airflow-scheduler", *WORKERS]


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("way", ["copied", "swapped", "kept", "another key"])
def test_workers_of_other_hosts_are_shut_out_before_the_copy(
    model: PlatformModel, way: str, confirmed: bool
) -> None:
    """From then on they take no message and write no row. They are let in with the next release."""
    use(model, worker_hosts(OLD), worker_hosts(NEW))
    WAYS[way](model)
    let_in: list[tuple[str, str]] = []

    def during(line: str) -> None:
        phases = read(model).phases
        if phases and GATEWAY in model.world.running:
            let_in.append((phases[-1].name, model.world.running[GATEWAY]))

    model.world.during = during
    confirm(model, confirmed=confirmed)
    operation = run(model)
    forget_kept(model)
    check(model, operation)
    back = set() if confirmed else {"revert"}
    assert {phase for phase, release in let_in if release == OLD} == {"drain", *back}
    assert {phase for phase, release in let_in if release == NEW} >= {"serve", "verify"}


def test_workers_of_other_hosts_go_on_after_a_drain_without_an_end(model: PlatformModel) -> None:
    """They may have the very tasks that did not end."""
    use(model, worker_hosts(OLD), worker_hosts(NEW))
    change(model, options={"drain_timeout": 0})
    confirm(model)
    model.world.tasks = ["dag.task (run), running"] * 2
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "drain")
    check(model, operation)
    assert not [line for line in model.world.commands if " stop " in line and GATEWAY in line]


@pytest.mark.parametrize("project", PROJECTS)
def test_nothing_but_the_scheduler_is_stopped_while_tasks_run(model: PlatformModel, project: str) -> None:
    use(model, PROJECTS[project](OLD), PROJECTS[project](NEW))
    model.world.tasks = ["dag.task (run), running"] * 2
    commands = commands_of_a_good_switch(model)
    [*_, last] = [number for number, line in enumerate(commands) if "task_instance ti" in line]
    stops = [line for line in commands[:last] if " stop " in line]
    assert [line.split()[-1] for line in stops] == ["airflow-scheduler"]


@pytest.mark.parametrize("stopped", ["", *WORKERS])
def test_queue_without_its_worker_is_not_waited_for(model: PlatformModel, stopped: str) -> None:
    """It would never be empty; whether the other worker runs says nothing of it."""
    use(model, two_workers(OLD), two_workers(NEW))
    model.world.running.pop(stopped, None)
    commands = commands_of_a_good_switch(model)
    [asked] = [line for line in commands if "task_instance ti" in line]
    assert ("ti.state = 'queued'" in asked) is (not stopped)


@pytest.mark.parametrize("service", [*WORKERS, "flower", "gate"])
def test_service_of_the_old_image_is_no_success(model: PlatformModel, service: str) -> None:
    use(model, two_workers(OLD), two_workers(NEW))

    def during(line: str) -> None:
        if "{{.Image}}" in line and model.environment()["AIRFLOW_VERSION"] == NEW:
            model.world.running[service] = OLD

    model.world.during = during
    confirm(model)
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "verify")
    assert f"Not on airflow:{NEW}: {service} (airflow:{OLD})" in operation.failure["message"]
    check(model, operation)


def test_next_project_that_cannot_be_read_keeps_nothing_away(model: PlatformModel) -> None:
    """It is only asked for what the old release has not; what stays is told."""

    def during(line: str) -> None:
        if " config " in line and f"{model.next} " in line:
            raise ReleaseError("reading the Compose project failed with code 1")

    model.world.during = during
    confirm(model, confirmed=False)
    operation = run(model)
    assert operation.state == "reverted"
    [warning] = operation.warnings
    assert "what only the next release has is not removed" in warning
    check(model, operation)


def test_refused_by_smoke(model: PlatformModel) -> None:
    confirm(model, confirmed=False)
    operation = run(model)
    assert operation.state == "reverted"
    assert operation.failure["message"] == "smoke is red"
    check(model, operation)


def test_schedule_goes_on_before_the_old_database_is_backed_up(model: PlatformModel) -> None:
    """A large one takes minutes, in which nothing would be scheduled."""
    confirm(model)
    run(model)
    lines = (model.releases / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.index("finish done") < events.index("backup begins")


def test_boot_after_the_confirmation_starts_everything(model: PlatformModel) -> None:
    """A shutdown stops every container, and in an operation nobody but itself starts them again."""
    confirm(model)
    model.world.die_at = next(
        i for i, line in enumerate(commands_until_killed(model)) if "UPDATE dag SET is_paused = NOT" in line
    )
    with pytest.raises(Killed):
        run(model)
    assert read(model).state == "finishing"
    model.world.die_at = None
    model.world.running.clear()
    operation = run(model)
    assert (operation.state, operation.warnings) == ("succeeded", [])
    check(model, operation)


@pytest.mark.parametrize("fail", ["", "systemctl enable"])
def test_stack_runs_after_the_next_boot_too(model: PlatformModel, fail: str) -> None:
    """Also where `stop.yml` had stopped it before a restore. A systemd without an answer stops no switch."""
    model.world.fail = fail
    confirm(model)
    operation = run(model)
    check(model, operation)
    assert ("airflow.service" in model.world.units) == (not fail)
    assert len(operation.warnings) == bool(fail)


@pytest.mark.parametrize("killed", [False, True])
def test_database_that_cannot_be_backed_up_stays_beside(model: PlatformModel, killed: bool) -> None:
    """The release is confirmed, so nothing goes back; what was left is kept by name, and said so."""
    model.world.fail = "backup"
    confirm(model)
    if killed:
        model.world.die_at = next(
            i for i, line in enumerate(commands_until_killed(model)) if "RENAME TO airflow_kept" in line
        )
        model.world.commands.clear()
        confirm(model)
        with pytest.raises(Killed):
            run(model)
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    [kept] = set(model.world.databases) - {"airflow"}
    assert model.world.databases[kept] == {"revision": f"schema-of-{OLD}"}
    assert kept.startswith("airflow_kept_")
    [warning] = operation.warnings
    assert kept in warning
    assert "Input/output error" in warning
    assert records.previous(model).kept == kept


def test_new_backup_stands_for_an_older_database_that_was_kept(model: PlatformModel) -> None:
    """Of a release that was left twice. A rollback would once have taken the older data without a word."""
    left = records.current(model, "")
    left.kept = "airflow_kept_1"
    records.save(model, left)
    model.world.databases["airflow_kept_1"] = {"revision": f"schema-of-{OLD}"}
    confirm(model)
    assert run(model).state == "succeeded"
    left = records.load(model, left.id)
    assert (left.kept, left.bundle) == ("", str(model.backups / "bundle.tar"))


def commands_until_killed(model: PlatformModel, *, confirmed: bool = True) -> list[str]:
    """Return the commands of a switch on a platform like this one, which stays as it is."""
    other = fresh(model, model.directory.parent / "other")
    confirm(other, confirmed=confirmed)
    run(other)
    return other.world.commands


def test_schedule_is_resumed_once(model: PlatformModel) -> None:
    """Killed after that, a second process must not unpause what somebody has paused since."""
    confirm(model)
    model.world.die_at = next(
        i
        for i, line in enumerate(commands_until_killed(model))
        if "airflow_previous ALLOW_CONNECTIONS true" in line
    )
    with pytest.raises(Killed):
        run(model)
    model.world.commands.clear()
    model.world.die_at = None
    assert run(model).state == "succeeded"
    assert not [line for line in model.world.commands if "UPDATE dag SET" in line]


@pytest.mark.parametrize(
    ("environment", "unpaused"),
    [
        ("production", "'team-dag', 'weather-checker'"),
        ("development", "'weather-checker'"),
        ("", "'weather-checker'"),
    ],
)
@pytest.mark.parametrize("database", ["copy", "bundle:/b.tar", "sql:/b.sql"])
def test_outside_production_only_the_smoke_test_is_unpaused(
    model: PlatformModel, environment: str, unpaused: str, database: str
) -> None:
    """Data of production, restored on a laptop, must not start production's work there."""
    env = model.next / ".env"
    env.write_text(env.read_text().replace("ENVIRONMENT=production", f"ENVIRONMENT={environment}"))
    model.world.databases["airflow_next"] = {"revision": f"schema-of-{NEW}"}
    change(model, database=database, done={"prepared": True} if database != "copy" else {})
    confirm(model)
    assert run(model).state == "succeeded"
    [unpause] = [line for line in model.world.commands if "UPDATE dag SET is_paused = NOT" in line]
    assert f"ARRAY[{unpaused}]" in unpause


def test_time_to_confirm_begins_when_there_is_something_to_judge(
    model: PlatformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes longer than anybody may take to say that the release is good comes before."""
    now = [time.time()]
    real = Engine._verify

    def verify(engine: Engine) -> str:
        now[0] += 10 * Options().confirm_timeout
        return real(engine)

    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(Engine, "_verify", verify)
    monkeypatch.setattr(time, "sleep", lambda seconds: confirm(model))
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    check(model, operation)


@pytest.mark.parametrize("said", ["nothing", "a word on another operation"])
def test_nobody_confirms(model: PlatformModel, said: str) -> None:
    change(model, options={"confirm_timeout": 0})
    if said != "nothing":
        confirm(model)
        change(model, id="another-id")
    operation = run(model)
    assert operation.state == "reverted"
    assert "confirmed" in operation.failure["message"]
    check(model, operation)


@pytest.mark.parametrize("rehearsed", [True, False], ids=["with a standby", "without one"])
def test_new_webserver_never_healthy(model: PlatformModel, rehearsed: bool) -> None:
    model.world.ill = {NEW: {WEBSERVER}}
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
        ("airflow ALLOW_CONNECTIONS false", "migrate"),
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


@pytest.mark.parametrize(
    ("ill", "said"),
    [
        ({"webhook", "flower"}, "webhook"),
        ({"airflow-scheduler"}, "airflow-scheduler"),
        ({WEBSERVER}, WEBSERVER),
    ],
)
def test_ill_service_does_not_keep_the_pages_away_on_the_way_back(
    model: PlatformModel, ill: set[str], said: str
) -> None:
    """It is told, and people have their pages."""
    model.world.ill = {OLD: ill}
    opened: list[list[str]] = []

    def during(line: str) -> None:
        if "set server airflow/airflow state ready" in line:
            opened.append(sorted(model.world.running))

    model.world.during = during
    confirm(model, confirmed=False)
    operation = run(model)
    check(model, operation)
    assert operation.failure["message"] == "smoke is red"
    assert any(said in warning for warning in operation.warnings)
    # The pages come before what is ill was waited for.
    assert opened[-1] == sorted([WEBSERVER, "haproxy", "postgres", "redis", "webhook", "flower"]) or set(
        opened[-1]
    ) < set(CONTAINERS)


@pytest.mark.parametrize(
    "wrong", [{"start_timeout": "5m"}, {"on_drain_timeout": None}, {"confirm_timeout": []}]
)
def test_way_back_uses_no_option(model: PlatformModel, wrong: dict[str, Any]) -> None:
    """However wrong they are in the journal of an operation that an earlier version has begun."""
    change(
        model,
        state="reverting",
        done={"begun": True, "pages_closed": 1.0},
        failure={"phase": "start", "message": "m", "log": ""},
    )
    change(model, options=wrong)
    operation = run(model)
    check(model, operation)


@pytest.mark.parametrize("phase", ["drain", "migrate"])
def test_only_what_failed_is_kept(model: PlatformModel, phase: str) -> None:
    """The copy of a rehearsal is worth nothing when tasks only took too long, and a real failure is kept."""
    model.world.databases |= {
        "airflow_next": {"revision": "rehearsed"},
        "airflow_failed": {"revision": "failed before"},
    }
    if phase == "drain":
        model.world.tasks = ["dag.task (run), running"] * 3
        change(model, options={"drain_timeout": 0})
    else:
        model.world.fail = "run --rm"
    confirm(model)
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", phase)
    check(model, operation)
    expected = "failed before" if phase == "drain" else f"schema-of-{OLD}"
    assert model.world.databases["airflow_failed"] == {"revision": expected}


def test_rehearsed_copy_is_dropped_before_anything_stops(model: PlatformModel) -> None:
    """It is as large as the live database, and nobody waits for its files to be removed."""
    model.world.databases["airflow_next"] = {"revision": "rehearsed"}
    there: list[bool] = []

    def during(line: str) -> None:
        if " stop " in line:
            there.append("airflow_next" in model.world.databases)

    model.world.during = during
    commands_of_a_good_switch(model)
    assert there[0] is False


@pytest.mark.parametrize(
    "before", [{}, {"airflow_failed": {"revision": "failed before"}}], ids=["", "failed"]
)
@pytest.mark.parametrize(
    ("at", "kept"), [("RENAME TO airflow_previous", False), ("state ready; set server airflow/airflow", True)]
)
def test_interrupted_database_is_kept_once_somebody_may_have_written_to_it(
    model: PlatformModel, at: str, kept: bool, before: dict[str, dict[str, str]]
) -> None:
    """Before, it is a copy of what is live again, and takes as much disk."""
    model.world.die_at = next(i for i, line in enumerate(commands_until_killed(model)) if at in line)
    model.world.die_before = False
    model.world.databases |= before
    with pytest.raises(Killed):
        run(model)
    operation = run(model)
    check(model, operation)
    failed = {"airflow_failed": {"revision": f"schema-of-{NEW}"}} if kept else before
    assert {name: one for name, one in model.world.databases.items() if name != "airflow"} == failed


@pytest.mark.parametrize("at", ["task_instance ti", "CREATE DATABASE airflow_next", "run --rm", "RENAME TO"])
def test_stack_is_started_by_somebody_meanwhile(model: PlatformModel, at: str) -> None:
    """`docker compose up` knows nothing of a switch: what it starts writes nothing that is lost."""
    at_work: list[set[str]] = []
    connected: list[dict[str, str]] = []

    def during(line: str) -> None:
        if at in line and not at_work:
            at_work.append(set())
            model._up(model.directory, [], [])
        if "CREATE DATABASE airflow_next" in line:
            at_work[:1] = [set(model.world.running) & {"airflow-scheduler"}]
        if "RENAME TO airflow_previous" in line:
            connected.append({one: to for one, to in model.world.sessions.items() if to == "airflow"})

    model.world.during = during
    model.world.tasks = ["dag.task (run), running", "dag.task (run), running"]
    confirm(model)
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    check(model, operation)
    assert connected == [{}]
    if at == "task_instance ti":
        assert at_work == [set()]


@pytest.mark.parametrize("ill", [{"airflow-scheduler"}, {"airflow-worker"}, {WEBSERVER, "redis"}])
@pytest.mark.parametrize("stopped", [True, False])
def test_ill_platform_is_restored(model: PlatformModel, ill: set[str], stopped: bool) -> None:
    """That is what a restore is for; what waits in the queue of the data that go is not waited for."""
    if stopped:
        for service in ill:
            model.world.running.pop(service, None)
    else:
        model.world.ill = {OLD: ill}
    model.world.databases["airflow_next"] = {"revision": f"schema-of-{NEW}"}
    change(model, kind="restore", database="bundle:/b.tar", done={"prepared": True})
    confirm(model)
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    check(model, operation)


@pytest.mark.parametrize("how", ["unhealthy", "never created"])
@pytest.mark.parametrize("ill", ["webhook", "flower"])
@pytest.mark.parametrize("kind", ["restore", "rollback"])
def test_what_stays_ill_does_not_end_a_repair(model: PlatformModel, kind: str, ill: str, how: str) -> None:
    """Airflow works without it, and what it had before is not this release's fault."""

    def during(line: str) -> None:
        if how == "never created" and " up " in line and (ill in line or line.endswith("--no-build")):
            raise ReleaseError(f"starting {ill} failed with code 1", "no such image")

    if how == "unhealthy":
        model.world.ill = {OLD: {ill}, NEW: {ill}}
    else:
        del model.world.running[ill]
    model.world.during = during
    if kind == "restore":
        model.world.databases["airflow_next"] = {"revision": f"schema-of-{NEW}"}
        change(model, database="bundle:/b.tar", done={"prepared": True})
    change(model, kind=kind)
    confirm(model)
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    assert operation.done["still_ill"] == [ill]
    words = "is unhealthy" if how == "unhealthy" else "does not run"
    assert operation.warnings[0] == f"{ill} {words}, as it was before the {kind}"
    if how == "unhealthy":
        check(model, operation)


@pytest.mark.parametrize(
    ("before", "after"), [("labels", "no labels"), ("no labels", "labels"), ("no labels", "no labels")]
)
@pytest.mark.parametrize("ill", ["webhook", "gate"])
def test_what_stays_ill_does_not_end_a_repair_without_labels(
    model: PlatformModel, before: str, after: str, ill: str
) -> None:
    """A rollback to a release from before the labels, and one from there, are as lenient."""
    use(model, PROJECTS[before](OLD), PROJECTS[after](NEW))
    model.world.ill = {OLD: {ill}, NEW: {ill}}
    change(model, kind="rollback")
    confirm(model)
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    assert operation.done["still_ill"] == [ill]
    check(model, operation)


def test_what_was_cured_is_no_warning(model: PlatformModel) -> None:
    model.world.ill = {OLD: {"webhook"}}
    change(model, kind="rollback")
    confirm(model)
    operation = run(model)
    assert (operation.state, operation.warnings, operation.done["still_ill"]) == ("succeeded", [], [])
    check(model, operation)


@pytest.mark.parametrize(
    ("kind", "before"), [("upgrade", {"webhook"}), ("restore", set()), ("rollback", {"flower"})]
)
def test_what_the_new_release_makes_ill_ends_it(model: PlatformModel, kind: str, before: set[str]) -> None:
    model.world.ill = {OLD: before, NEW: {"webhook"}}
    change(model, kind=kind)
    confirm(model)
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "serve")


@pytest.mark.parametrize("fault", ["alembic_version", "task_instance ti"])
def test_damaged_database_is_replaced(model: PlatformModel, fault: str) -> None:
    """One that cannot be read is asked for nothing that the restore needs."""
    del model.world.running["postgres"]
    model.world.databases["airflow_next"] = {"revision": f"schema-of-{NEW}"}
    change(model, kind="restore", database="sql:/b.sql", done={"prepared": True})
    confirm(model)

    def during(line: str) -> None:
        if fault in line and "--dbname=airflow " in line and model.environment()["AIRFLOW_VERSION"] == OLD:
            raise ReleaseError(
                "SQL on airflow failed with code 1", "missing chunk number 0 for toast value 16411"
            )

    model.world.during = during
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    check(model, operation)


@pytest.mark.parametrize("state", ["saved", "unsaved"])
def test_first_cause_stays(model: PlatformModel, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """Killed between the failure and the way back, the operation still tells what failed."""
    model.world.fail = "run --rm"
    real = Journal.move

    def move(journal: Journal, operation: Operation, to: str) -> None:
        if to == "reverting":
            raise Killed
        real(journal, operation, to)

    monkeypatch.setattr(Journal, "move", move)
    with pytest.raises(Killed):
        run(model)
    monkeypatch.setattr(Journal, "move", real)
    if state == "unsaved":
        change(model, failure={})
    operation = run(model)
    assert operation.failure["phase"] == ("migrate" if state == "saved" else "interrupted")
    check(model, operation)


def test_reboot_while_the_word_is_awaited(model: PlatformModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host goes on waiting, for what was left of the time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        run(model)
    assert read(model).state == "unconfirmed"
    limit = read(model).done["confirm_by"]
    confirm(model)
    operation = run(model)
    assert operation.state == "succeeded"
    assert operation.done["confirm_by"] == limit
    check(model, operation)


def test_full_disk(model: PlatformModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journal and Postgres are on one disk, which the copy fills: the space that was put aside is enough."""
    real = os.fsync
    full = [False]

    def fsync(descriptor: int) -> None:
        if full[0] and (model.releases / reserve.NAME).exists():
            raise OSError(28, "No space left on device")
        real(descriptor)

    def during(line: str) -> None:
        if "CREATE DATABASE airflow_next" in line:
            full[0] = True
            raise ReleaseError("copying airflow failed with code 1", "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    model.world.during = during
    confirm(model)
    operation = run(model)
    assert operation.state == "reverted"
    check(model, operation)


def test_no_switch_without_space_for_the_way_back(
    model: PlatformModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "drain")
    assert "put aside for the way back: No space left on device" in operation.failure["message"]
    check(model, operation)


def test_service_that_cannot_be_created_keeps_nothing_else_away(model: PlatformModel) -> None:
    """Its image was removed meanwhile: one attempt is enough, and all else runs."""

    def during(line: str) -> None:
        old = model.environment()["AIRFLOW_VERSION"] == OLD
        if old and " up " in line and ("flower" in line or line.endswith("--no-build")):
            model.world.running.pop("flower", None)
            raise ReleaseError("starting flower failed with code 1", "no such image")

    model.world.during = during
    confirm(model, confirmed=False)
    operation = run(model)
    assert operation.state == "reverted"
    assert set(model.world.running) == set(CONTAINERS) - {"flower"}
    assert any("flower does not run" in warning for warning in operation.warnings)


def test_left_database_of_another_operation_is_not_taken(model: PlatformModel) -> None:
    """Nothing is stopped for long, and the live database stays the live one."""
    model.world.databases["airflow_previous"] = {"revision": "of long ago"}
    operation = run(model)
    assert (operation.state, operation.failure["phase"]) == ("reverted", "drain")
    assert "airflow_previous" in operation.failure["message"]
    assert model.world.databases.pop("airflow_previous") == {"revision": "of long ago"}
    check(model, operation)


def test_lost_database_is_restored(model: PlatformModel) -> None:
    """There is nothing to close, to rename and to back up."""
    model.world.databases = {"airflow_next": {"revision": f"schema-of-{NEW}"}}
    change(model, kind="restore", database="bundle:/b.tar", done={"prepared": True})
    confirm(model)
    operation = run(model)
    assert operation.state == "succeeded", operation.failure
    check(model, operation)


def test_lost_database_stays_lost_on_the_way_back(model: PlatformModel) -> None:
    """The old release must not be given the new schema, with every DAG paused; and it is said."""
    lose_the_database(model)
    confirm(model, confirmed=False)
    operation = run(model)
    check_lost(model, operation)
    assert model.world.databases == {"airflow_failed": {"revision": f"schema-of-{NEW}"}}
    assert operation.warnings[0] == "there is no live database, as before the switch: restore a backup"


def lose_the_database(host: PlatformModel) -> None:
    """Have a restore that was rehearsed and is needed most."""
    host.world.databases = {"airflow_next": {"revision": f"schema-of-{NEW}"}}
    change(host, kind="restore", database="bundle:/b.tar", done={"prepared": True})


def check_lost(host: PlatformModel, operation: Operation) -> None:
    """The new database is live, or none is."""
    if operation.state == "reverted":
        assert "airflow" not in host.world.databases
        # For `check`, which asks for all else, too.
        host.world.databases["airflow"] = {"revision": f"schema-of-{OLD}"}
        check(host, operation)
        del host.world.databases["airflow"]
    else:
        check(host, operation)


def swap(host: PlatformModel) -> None:
    """Have what was rehearsed, as a restore and most rollbacks have."""
    host.world.databases["airflow_next"] = {"revision": f"schema-of-{NEW}"}
    change(host, kind="restore", database="bundle:/b.tar", done={"prepared": True})


def fill_in_the_switch(host: PlatformModel) -> None:
    """Have nothing rehearsed, as where somebody starts what is merely prepared."""
    change(host, kind="restore", database="bundle:/b.tar")


def change_the_password(host: PlatformModel) -> None:
    """Have what was rehearsed, without a webserver, since Postgres gets another password."""
    swap(host)
    del host.world.running[STANDBY]
    (host.next / "env/postgres.env").write_text("POSTGRES_PASSWORD=another\n")


def take_the_kept_one(host: PlatformModel) -> None:
    host.world.databases["airflow_kept_1"] = {"revision": f"schema-of-{OLD}"}
    change(host, kind="rollback", database="database:airflow_kept_1")


def change_the_key(host: PlatformModel) -> None:
    (host.next / "env/airflow.env").write_text("AIRFLOW__CORE__FERNET_KEY=another\n")
    change(host, kind="rotate")


ENDINGS: dict[str, Callable[[PlatformModel], None]] = {
    "good": lambda host: None,
    "refused": lambda host: confirm(host, confirmed=False),
    "ill": lambda host: host.world.ill.update({NEW: {WEBSERVER}}),
    "not backed up": lambda host: setattr(host.world, "fail", "backup"),
}
WAYS: dict[str, Callable[[PlatformModel], None]] = {
    "copied": lambda host: None,
    "swapped": swap,
    "another password": change_the_password,
    "lost": lose_the_database,
    "filled in the switch": fill_in_the_switch,
    "kept": take_the_kept_one,
    "another key": change_the_key,
    "worker hosts": lambda host: use(host, worker_hosts(OLD), worker_hosts(NEW)),
}
SWEEPS = [(way, ending) for way in WAYS for ending in ENDINGS]
SHORT = [("copied", ending) for ending in ENDINGS]
"""Each command of what most switches do is killed by default, too."""


@pytest.mark.parametrize("before", [True, False], ids=["without effect", "after its effect"])
@pytest.mark.parametrize(("way", "ending"), SWEEPS)
def test_killed_at_every_command(
    model: PlatformModel, before: bool, way: str, ending: str, tmp_path: Path
) -> None:
    """The process is killed at each command in turn, and started again as systemd does.

    Except for the upgrade every 20th by default, each one with UPGRADE_TESTS=all.
    """

    def begin(name: str) -> PlatformModel:
        host = fresh(model, tmp_path / name)
        WAYS[way](host)
        confirm(host)
        ENDINGS[ending](host)
        return host

    good = begin("good")
    end = run(good).state
    assert end == ("reverted" if ending in ("refused", "ill") else "succeeded")
    total = len(good.world.commands)
    step, killed = 1 if ALL or (way, ending) in SHORT else 20, 0
    for number in range(sum(map(ord, way + ending)) % step, total, step):
        host = begin(f"{number}")
        host.world.die_at, host.world.die_before = number, before
        with pytest.raises(Killed):
            run(host)
        operation = run(host)
        forget_kept(host)
        (check_lost if way == "lost" else check)(host, operation)
        shutil.rmtree(tmp_path / f"{number}")
        killed += 1
    assert killed >= (total - step) // step
    assert total > 25


@pytest.mark.parametrize("source", ["copy", "bundle:/b.tar"])
def test_rehearsal_says_what_it_is_doing(model: PlatformModel, source: str) -> None:
    """With a large database each of its steps takes hours, in which its command prints nothing."""
    del model.world.running[STANDBY]
    change(model, state="prepared", database=source)
    standing: list[str] = []
    model.world.during = lambda line: standing.append(read(model).standing)
    rehearsal.rehearse(model, read(model))
    lines = map(json.loads, (model.releases / "journal.jsonl").read_text().splitlines())
    said = [line["detail"] for line in lines if line["event"] == "rehearse"]
    steps = ["making", "migrating", "starting"]
    assert [text.split()[0] for text in said] == (
        ["dump", "making", "migrating", "copying", "starting"] if source == "copy" else steps
    )
    for text in said[source == "copy" :]:
        assert any(one.endswith(f"({text})") for one in standing)


@pytest.mark.parametrize(("password", "seconds"), [("pass''word", 10), ("another", 40)])
def test_rehearsal_of_a_restore_says_how_long_pages_will_be_away(
    model: PlatformModel, password: str, seconds: int
) -> None:
    """It copies nothing meanwhile, so that it is refused for no limit: it may be the only remedy."""
    (model.next / "env/postgres.env").write_text(f"POSTGRES_PASSWORD='{password}'\n")
    change(model, state="prepared", kind="restore", database="bundle:/b.tar", options={"outage_limit": 1})
    operation = read(model)
    rehearsal.rehearse(model, operation)
    assert operation.phases[0].note.endswith(f"; the switch will keep pages away for about {seconds} s")
    assert operation.done["prepared"] is True


@pytest.mark.parametrize(
    ("measured", "note"),
    [(0, "copying 1 MiB"), (200_000, "copying 1 MiB"), (2_000_000, "copying 1 MiB, about 30 s")],
)
def test_copy_is_told_with_its_size_and_time_and_is_measured(
    model: PlatformModel, monkeypatch: pytest.MonkeyPatch, measured: int, note: str
) -> None:
    """Whoever looks at the status meanwhile sees how long it takes, by the pace of the last one."""
    if measured:
        pace.remember(model, measured, seconds=60)
    standing: list[str] = []
    slept, clock = [0], time.time

    def during(line: str) -> None:
        if "CREATE DATABASE airflow_next TEMPLATE airflow " in line:
            standing.append(read(model).standing)
            slept[0] += 100

    model.world.during = during
    monkeypatch.setattr(time, "time", lambda: clock() + slept[0])
    commands_of_a_good_switch(model)
    [stood] = standing
    assert stood.startswith("switching, migrate since ")
    assert stood.endswith(f" ({note})")
    last = json.loads((model.releases / "pace.json").read_text())
    assert last == {"bytes": 1_000_000, "seconds": pytest.approx(100, abs=10)}
    assert pace.copy_seconds(model, 3_000_000) == pytest.approx(300, abs=30)


@pytest.mark.parametrize("way", ["swapped", "kept"])
def test_what_is_not_copied_from_the_live_database_says_nothing_of_a_copy(
    model: PlatformModel, way: str
) -> None:
    WAYS[way](model)
    model.world.databases.setdefault("airflow_next", {"revision": f"schema-of-{NEW}"})
    confirm(model)
    assert run(model).state == "succeeded"
    assert not (model.releases / "pace.json").exists()


@pytest.mark.parametrize(
    ("way", "services"),
    [
        ("copied", ["airflow-init-next"]),
        ("another key", ["airflow-init-next", "airflow-init-next check-fernet --re-encrypt"]),
        ("filled in the switch", ["airflow-init-next", "airflow-init-next check-fernet"]),
        ("rotation", ["airflow-init-next", "airflow-init-next check-fernet --re-encrypt"]),
        ("live", ["airflow-init check-fernet"]),
    ],
)
def test_what_reads_all_of_a_database_in_a_container_has_no_limit(
    model: PlatformModel, monkeypatch: pytest.MonkeyPatch, way: str, services: list[str]
) -> None:
    """A migration takes as long as the database is large; ten minutes are the limit of other commands."""
    limits: dict[str, float | None] = {}
    real = PlatformModel.run

    def note(host: PlatformModel, command: list[str], **arguments: Any) -> str:
        if "--rm" in command:
            once = [word for word in command[command.index("--no-TTY") + 1 :] if not word.startswith("--env")]
            limits[" ".join(once)] = arguments.get("timeout", 600)
        return real(host, command, **arguments)

    monkeypatch.setattr(PlatformModel, "run", note)
    if way == "live":
        next_database.check_live_fernet(model, 0)
    elif way == "rotation":
        model.world.databases["airflow_next"] = {"revision": f"schema-of-{OLD}"}
        next_database.try_rotation(model, 0, fernet_key=True)
    else:
        WAYS[way](model)
        commands_of_a_good_switch(model)
    assert limits == dict.fromkeys(services)


@pytest.mark.parametrize("before", [True, False], ids=["without effect", "after its effect"])
@pytest.mark.parametrize("source", ["copy", "bundle:/b.tar", "database:airflow_kept_1"])
def test_killed_rehearsal_can_be_given_up(
    model: PlatformModel, before: bool, source: str, tmp_path: Path
) -> None:
    """At each command: what runs is as it was, and nothing of what was tried stays."""

    def begin(name: str) -> PlatformModel:
        host = fresh(model, tmp_path / name)
        host.world.databases["airflow_kept_1"] = {"revision": f"schema-of-{OLD}"}
        del host.world.running[STANDBY]
        change(host, state="prepared", database=source)
        return host

    good = begin("good")
    rehearsal.rehearse(good, read(good))
    for number in range(len(good.world.commands)):
        host = begin(f"{number}")
        host.world.die_at, host.world.die_before = number, before
        with pytest.raises(Killed):
            rehearsal.rehearse(host, read(host))
        assert switch_commands._abandon(host, "id", 0, "killed", "") == 0
        assert (read(host).state, read(host).warnings) == ("abandoned", [])
        assert set(host.world.databases) == {"airflow", "airflow_kept_1"}
        assert host.world.databases["airflow"] == {"revision": f"schema-of-{OLD}"}
        assert host.world.running == dict.fromkeys(CONTAINERS, OLD)
        assert host.world.closed == set()
    assert len(good.world.commands) > 5


def forget_kept(host: PlatformModel) -> None:
    """Take away what stays by name on purpose; beside the source there is one at most."""
    host.world.databases.pop("airflow_kept_1", None)
    kept = [name for name in host.world.databases if name.startswith("airflow_kept_")]
    assert len(kept) <= 1
    for name in kept:
        del host.world.databases[name]


@pytest.mark.parametrize("part", range(0, 100, 10))
def test_killed_again_on_the_way_back(model: PlatformModel, part: int) -> None:
    """Each of these is a kill: one that comes after the end would show nothing."""
    model.world.ill = {NEW: {WEBSERVER}}
    confirm(model)
    commands = commands_until_killed(model)
    [first] = [i for i, line in enumerate(commands) if "stop --timeout=10" in line]
    model.world.die_at = first + (len(commands) - first) * part // 100
    with pytest.raises(Killed):
        run(model)
    assert read(model).state == "reverting"
    check(model, run(model))


@pytest.mark.parametrize("other", [True, False], ids=["another configuration", "the same"])
def test_haproxy_is_reloaded_by_a_second_attempt_where_it_has_to_be(
    model: PlatformModel, other: bool
) -> None:
    """The first was killed after the files were back. One without need would cost a moment."""
    if not other:
        shutil.copy(model.directory / "haproxy/haproxy.cfg", model.next / "haproxy/haproxy.cfg")
    commands = commands_until_killed(model, confirmed=False)
    [renamed] = [i for i, line in enumerate(commands) if "RENAME TO airflow_failed" in line]
    model.world.die_at = renamed
    confirm(model, confirmed=False)
    with pytest.raises(Killed):
        run(model)
    model.world.commands.clear()
    model.world.die_at = None
    assert run(model).state == "reverted"
    assert any("kill -HUP" in line for line in model.world.commands) is other


@pytest.mark.parametrize("other", [True, False], ids=["another project", "the same"])
def test_haproxy_reaches_the_next_release_before_it_serves_that(model: PlatformModel, other: bool) -> None:
    """Its networks may be others, and the standby is on the next release's already."""
    if not other:
        shutil.copy(model.directory / "docker-compose.yaml", model.next / "docker-compose.yaml")
    commands = commands_of_a_good_switch(model)
    replaced = [i for i, line in enumerate(commands) if line.endswith("--no-deps haproxy")]
    [used] = [i for i, line in enumerate(commands) if "set server airflow/standby state ready" in line]
    assert [i < used for i in replaced] == ([True] if other else [])


class LineKiller:
    """Kills the process at the n-th line of this package's own code that it executes."""

    def __init__(self, at: int) -> None:
        """Kill at this line, counted from 1."""
        self.left = at

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Follow what is in the packages `switch` and `core`."""
        return self.line if "/airflow_release/" in frame.f_code.co_filename else None

    def line(self, frame: FrameType, event: str, argument: object) -> Any:
        """Count a line."""
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise Killed
        return self.line


# A process that is killed closes no files.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", ["good", "refused", "not backed up"])
def test_killed_at_every_line(model: PlatformModel, ending: str, tmp_path: Path) -> None:
    """Every 97th by default, each one with UPGRADE_TESTS=all."""
    kills, at, killed = 0, 1, True
    while killed:
        host = fresh(model, tmp_path / f"{at}")
        confirm(host, confirmed=ending != "refused")
        host.world.fail = "backup" if ending == "not backed up" else ""
        before = sys.gettrace()
        sys.settrace(LineKiller(at).trace)
        try:
            run(host)
            killed = False
        except Killed:
            kills += 1
        finally:
            sys.settrace(before)
        operation = run(host) if killed else read(host)
        forget_kept(host)
        check(host, operation)
        shutil.rmtree(tmp_path / f"{at}")
        at += 1 if ALL else 97
    assert kills > 10


def fresh(model: PlatformModel, directory: Path) -> PlatformModel:
    """Make another platform in the state of this one's beginning."""
    host = PlatformModel(directory / "srv", directory / "backups")
    shutil.copytree(model.directory, host.directory)
    host.world_of(copy.deepcopy(model.world))
    return host


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("there", [True, False])
def test_airflow_can_read_which_database_is_its(model: PlatformModel, umask: int, there: bool) -> None:
    """Airflow's own user reads the service file, whatever the umask of who ran the command."""
    directory = model.releases / "database"
    if there:
        directory.mkdir(mode=0o700)
    before = os.umask(umask)
    try:
        next_database.point(model, "airflow_next")
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / "pg_service.conf").stat().st_mode & 0o777 == 0o644
