"""The commands around a switch: what they refuse, and what they leave behind."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO, Any

import pytest
from airflow_release import cli
from airflow_release.backup import space
from airflow_release.core import images, lock, records
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.switch import engine, next_database, pace, release_files, rollback
from airflow_release.switch.journal import ACTIVE, ENDED, PHASES, Journal, Operation
from airflow_release.switch.options import Options

from tests import compose_project
from tests.release.conftest import SOURCE
from tests.release.platform_model import CONTAINERS, Killed, PlatformModel, World
from tests.release.test_switch import NEW, OLD, render

Usage = namedtuple("Usage", "total used free")
Capture = pytest.CaptureFixture[str]
UPGRADE = {"kind": "upgrade", "airflow_version": NEW}


class Platform(PlatformModel):
    """A platform with a systemd, which notes what it is asked and starts the unit unless it is masked."""

    masked = False

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
        if command[0] != "systemctl":
            return super().run(command, input=input, doing=doing)
        self.world.commands.append(" ".join(command))
        if self.masked:
            raise ReleaseError(f"{doing} failed with code 1", "Unit docker.service is masked.")
        return ""


@pytest.fixture
def model(tmp_path: Path) -> Platform:
    host = Platform(tmp_path / "srv", tmp_path / "backups")
    host.world_of(World(databases={"airflow": {"revision": f"schema-of-{OLD}"}}))
    host.world.running = dict.fromkeys(CONTAINERS, OLD)
    render(host.directory, OLD)
    return host


def call(host: Host, *arguments: str) -> int:
    parsed = cli.parser().parse_args(arguments)
    return int(parsed.run(host, parsed))


def begin(host: Host, *more: str, command: Mapping[str, str] = UPGRADE) -> int:
    kind = command["kind"]
    return call(host, "begin", "--kind", kind, "--to-version", NEW, "--command", json.dumps(command), *more)


def read(host: Host) -> Operation:
    operation = Journal(host).read()
    assert operation is not None
    return operation


def put(host: Host, **fields: Any) -> Operation:
    """Begin an operation and set some of its fields."""
    begin(host)
    operation = read(host)
    for name, value in fields.items():
        setattr(operation, name, value)
    Journal(host).save(operation)
    return operation


def test_begin_copies_the_running_files(model: Platform) -> None:
    assert begin(model, "--options", '{"start_timeout": "60"}') == 0
    operation = read(model)
    assert (operation.state, operation.from_version, operation.to_version) == ("prepared", OLD, NEW)
    assert operation.command == UPGRADE
    assert operation.options == asdict(Options(start_timeout=60))
    assert model.environment(project=model.next)["AIRFLOW_VERSION"] == OLD
    assert model.next.stat().st_mode & 0o777 == 0o700
    assert records.current(model, "").airflow_version == OLD


def test_begin_tells_its_id(model: Platform, capsys: Capture) -> None:
    begin(model, "--json")
    assert json.loads(capsys.readouterr().out) == {"id": read(model).id}


CONTROL = {"host": "a-laptop", "pid": 17, "started": "Thu Nov 26 09:00:00 2026"}


def note_down(host: Host, *, age: float = 0, **fields: Any) -> Path:
    """Have a playbook be under way, as roles/upgrade/tasks/check.yml says it."""
    note = {"playbook": "Bring it up", "control": CONTROL, "counts_for": 60, "since": "2026-11-26T09:00:05Z"}
    path = host.releases / "playbook-a-laptop-17.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**note, **fields}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_nothing_begins_beside_a_playbook(model: Platform) -> None:
    """A running site.yml was once unknown to `begin`, and started the scheduler in the middle of a switch."""
    path = note_down(model)
    with pytest.raises(ReleaseError) as caught:
        begin(model)
    assert "'Bring it up' changes this host since 2026-11-26T09:00:05Z (process 17 on a-laptop)" in str(
        caught.value
    )
    assert f"rm {path}" in str(caught.value)
    assert Journal(model).read() is None
    assert not model.next.exists()


def test_playbook_that_notes_itself_down_at_the_same_moment_is_seen(
    model: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has found no operation in the journal, so that this one has to give way."""
    install = release_files.install

    def meanwhile(source: Path, target: Path) -> set[str]:
        note_down(model)
        return install(source, target)

    monkeypatch.setattr(release_files, "install", meanwhile)
    with pytest.raises(ReleaseError, match="'Bring it up' changes this host"):
        begin(model)
    assert read(model).state == "abandoned"


@pytest.mark.parametrize(
    "left", [{"age": 61}, {"age": -61}, {"control": {}, "counts_for": None}, {"control": None}]
)
def test_killed_playbook_bars_nothing_for_ever(model: Platform, left: dict[str, Any]) -> None:
    note_down(model, **left)
    assert begin(model) == 0


def test_empty_note_of_a_power_cut_bars_nothing(model: Platform) -> None:
    note_down(model).write_text("")
    assert begin(model) == 0


def test_restore_begins_after_the_site_of_its_own_process(model: Platform) -> None:
    note_down(model)
    assert begin(model, "--control", json.dumps(CONTROL)) == 0


@pytest.mark.parametrize("state", ACTIVE)
def test_second_begin_names_both(model: Platform, state: str) -> None:
    asked = {"kind": "restore", "backup": "a"}
    begin(model, command=asked)
    call(model, "phase", "build", "begin")
    earlier = read(model)
    earlier.state = state
    Journal(model).save(earlier)
    with pytest.raises(ReleaseError) as refused:
        begin(model, command={"kind": "restore", "backup": "b"})
    said = str(refused.value)
    assert said.startswith(f"restore {OLD} -> {NEW} ({earlier.id}) is active: {state}, build since 20")
    assert "asked for as `restore backup=a`, and nothing was begun for `restore backup=b`." in said
    assert read(model) == earlier


def test_two_releases_of_one_version_are_two_commands(model: Platform) -> None:
    begin(model, command={"kind": "rollback", "release": f"20260101T000000Z-{OLD}"})
    earlier = read(model)
    with pytest.raises(ReleaseError) as refused:
        begin(model, command={"kind": "rollback", "release": f"20260201T000000Z-{OLD}"})
    assert f"`rollback release=20260101T000000Z-{OLD}`" in str(refused.value)
    assert f"nothing was begun for `rollback release=20260201T000000Z-{OLD}`." in str(refused.value)
    assert read(model) == earlier


@pytest.mark.parametrize("state", ENDED)
def test_what_is_over_is_in_nobodys_way(model: Platform, state: str) -> None:
    put(model, state=state)
    assert begin(model) == 0


def test_interrupted_preparation_is_taken_over_by_its_id(model: Platform) -> None:
    begin(model)
    earlier = read(model)
    assert begin(model, "--take-over", earlier.id) == 0
    assert read(model).id != earlier.id


def test_no_other_one_is_taken_over(model: Platform) -> None:
    """Between looking and taking over, somebody else has done so."""
    begin(model)
    earlier = read(model)
    with pytest.raises(
        ReleaseError, match=rf"{earlier.id}.* The operation to take over is another one: the-one-before"
    ):
        begin(model, "--take-over", "the-one-before")
    assert read(model) == earlier


@pytest.mark.parametrize("state", ["switching", "unconfirmed", "finishing", "reverting"])
def test_a_switch_is_never_taken_over(model: Platform, state: str) -> None:
    operation = put(model, state=state, done={"begun": True})
    with pytest.raises(ReleaseError, match=state):
        begin(model, "--take-over", operation.id)


@pytest.mark.parametrize("command", [("phase", "build", "begin"), ("abandon",), ("rehearse",), ("start",)])
def test_earlier_driver_is_refused_after_a_take_over(model: Platform, command: tuple[str, ...]) -> None:
    begin(model)
    earlier = read(model)
    begin(model, "--take-over", earlier.id)
    later = read(model)
    with pytest.raises(ReleaseError, match=rf"another one than {earlier.id}: .*\({later.id}\)"):
        call(model, *command, "--operation", earlier.id)
    assert read(model) == later


@pytest.mark.parametrize("command", [("confirm",), ("refuse", "--message", "no")])
def test_verdict_on_another_operation_is_refused(model: Platform, command: tuple[str, ...]) -> None:
    put(model, state="unconfirmed")
    with pytest.raises(ReleaseError, match="another one than the-one-before"):
        call(model, *command, "--operation", "the-one-before")
    assert not (model.releases / "verdict.json").exists()


@pytest.mark.parametrize(("limit", "refused"), [(900, False), (30, True)])
def test_copy_that_takes_too_long_is_refused_beforehand(model: Platform, limit: int, refused: bool) -> None:
    """Also where nothing is rehearsed, such as for a rollback: by the pace of the last copy on this host."""
    pace.remember(model, size=1_000_000, seconds=60)
    command = (
        "begin",
        "--kind",
        "rollback",
        "--to-version",
        OLD,
        "--options",
        json.dumps({"outage_limit": limit}),
    )
    if not refused:
        call(model, *command)
        return
    with pytest.raises(ReleaseError, match=r"about 100 s, .* upgrade_outage_limit is 30 s"):
        call(model, *command)
    assert Journal(model).read() is None


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (1_000_000, r"^Airflow's pages will be away for about 100 s\.$"),
        (200_000, r"is measured before anything stops: no copy of a database of about 1 MiB was measured "),
        (
            0,
            r"is measured before anything stops: .* upgrade_outage_limit, the rollback is refused\.$",
        ),
    ],
)
def test_rollback_says_how_long_pages_will_be_away(
    model: Platform, capsys: Capture, measured: int, says: str
) -> None:
    """One that keeps the database copies it, which nobody has rehearsed."""
    release = left_release(model)
    release.revision, release.since = f"schema-of-{OLD}", 1.0
    records.save(model, release)
    running = records.new(model, model.directory, release.revision)
    running.id = "the-one-that-runs"
    records.save(model, running)
    records.make_current(model, running)
    if measured:
        pace.remember(model, size=measured, seconds=60)
    call(model, "plan-rollback")
    plan = json.loads(capsys.readouterr().out)
    assert (plan["database"], plan["lost"]) == ("copy", [])
    assert re.search(says, plan["outage"])


@pytest.mark.parametrize(
    ("measured", "size", "seconds"),
    [
        (12 * 2**20, 8 * 2**30, None),
        (12 * 2**20, 48 * 2**20, 8.0),
        (12 * 2**20, 48 * 2**20 + 1, None),
        (2**30 - 1, 36 * 2**30, None),
        (2**30, 36 * 2**30, 72.0),
        (36 * 2**30, 2**30, 2 / 36),
    ],
)
def test_copy_of_a_small_database_says_nothing_of_a_large_one(
    model: Platform, measured: int, size: int, seconds: float | None
) -> None:
    pace.remember(model, measured, seconds=2)
    assert pace.copy_seconds(model, size) == (None if seconds is None else pytest.approx(seconds))


ROLLBACK = ("begin", "--kind", "rollback", "--to-version", OLD)
SAMPLE_COPIED = "CREATE DATABASE airflow_scratch TEMPLATE airflow_sample"


@pytest.mark.parametrize("earlier", [0, 200_000])
@pytest.mark.parametrize(("limit", "refused"), [(2000, False), (900, True)])
def test_rollback_measures_a_copy_where_nothing_like_it_was_measured(
    model: Platform, monkeypatch: pytest.MonkeyPatch, capsys: Capture, earlier: int, limit: int, refused: bool
) -> None:
    """It once went on, however long the pages would be away. It is refused before anything has begun."""
    if earlier:
        pace.remember(model, size=earlier, seconds=1)
    slept, clock = [0], time.time

    def during(line: str) -> None:
        slept[0] += 1000 * (SAMPLE_COPIED in line)

    model.world.during = during
    monkeypatch.setattr(time, "time", lambda: clock() + slept[0])
    command = (*ROLLBACK, "--options", json.dumps({"outage_limit": limit}))
    if refused:
        with pytest.raises(ReleaseError, match=r"about 1040 s, .* upgrade_outage_limit is 900 s"):
            call(model, *command)
        assert Journal(model).read() is None
    else:
        call(model, *command)
        assert read(model).state == "prepared"
    assert slept == [1000]
    assert "copying a sample of 0 MiB" in capsys.readouterr().err
    assert set(model.world.databases) == {"airflow"}
    # It is remembered: the next attempt knows it.
    assert pace.copy_seconds(model, 1_000_000) == pytest.approx(1000, abs=10)


@pytest.mark.parametrize(
    ("kind", "source"), [("rotate", "copy"), ("rollback", "bundle:/b.tar"), ("upgrade", "copy")]
)
def test_nothing_else_is_measured_when_it_begins(model: Platform, kind: str, source: str) -> None:
    """The vault has the rotation's new values by then; what is rehearsed is measured there, or not copied."""
    begin(model, "--database", source, command={"kind": kind})
    assert not [line for line in model.world.commands if "airflow_sample" in line]


@pytest.mark.parametrize("size", [2**20, 36 * 2**30])
def test_sample_is_not_copied_without_disk(
    model: Platform, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A full disk stops Postgres. A large database needs no larger sample than 1 GiB."""
    needed = 2 * min(size // 4 + 1, 2**30) + space.RESERVE_BYTES
    model.backups.mkdir()
    monkeypatch.setattr("airflow_release.core.database.Database.size", lambda self, name="airflow": size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * needed, 0, needed - 1))
    with pytest.raises(ReleaseError, match="too little disk"):
        call(model, *ROLLBACK)
    assert not [line for line in model.world.commands if "airflow_sample" in line]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * needed, 0, needed))
    call(model, *ROLLBACK)
    assert [line for line in model.world.commands if SAMPLE_COPIED in line]


@pytest.mark.parametrize("fault", ["CREATE UNLOGGED TABLE", SAMPLE_COPIED])
def test_sample_that_cannot_be_copied_begins_nothing(model: Platform, fault: str) -> None:
    """The switch could not copy the live database either. Nothing of the sample stays."""
    model.world.fail = fault
    with pytest.raises(ReleaseError, match="failed with code 1"):
        call(model, *ROLLBACK)
    assert Journal(model).read() is None
    assert set(model.world.databases) == {"airflow"}


@pytest.mark.parametrize("before", [True, False], ids=["without effect", "after its effect"])
def test_rollback_killed_while_it_is_measured_is_begun_again(model: Platform, before: bool) -> None:
    """At each command: what runs is as it was, and nothing of the sample stays in the end."""
    call(model, *ROLLBACK)
    total = len(model.world.commands)
    for number in range(total):
        shutil.rmtree(model.releases)
        model.world.commands.clear()
        model.world.die_at, model.world.die_before = number, before
        with pytest.raises(Killed):
            call(model, *ROLLBACK)
        model.world.die_at = None
        assert model.world.databases["airflow"] == {"revision": f"schema-of-{OLD}"}
        assert model.world.closed == set()
        begun = Journal(model).read()
        call(model, *ROLLBACK, *(["--take-over", begun.id] if begun else []))
        assert set(model.world.databases) == {"airflow"}
    assert total > 5


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dumps of a model's database; real ones are in test_switch_on_postgres.py."""

    def dump(database: Database, file: Path, name: str = "airflow") -> dict[str, int]:
        database.counts(name)
        file.write_text("a dump")
        return {}

    monkeypatch.setattr(Database, "dump", dump)


@pytest.mark.usefixtures("dumps")
@pytest.mark.parametrize(("accepted", "refused"), [(0, True), (1, False)])
def test_rotation_is_refused_for_a_value_that_the_key_does_not_decrypt(
    model: Platform, accepted: int, refused: bool
) -> None:
    """By the running release, before the vault has a new key; later it was found with the pages away."""

    def during(line: str) -> None:
        if "check-fernet" in line:
            log = "40 of 41 encrypted values can be decrypted\nnot with this key: variable a"
            raise ReleaseError("decrypting failed with code 1", log)

    model.world.during = during
    options = json.dumps({"accept_undecryptable": accepted})
    command = ("check-rotation", "--fernet-key", "--options", options)
    if refused:
        with pytest.raises(ReleaseError, match=r"does not decrypt 1 of 41 encrypted values: variable a\."):
            call(model, *command)
    else:
        assert call(model, *command) == 0
    first, *others = [line for line in model.world.commands if "check-fernet" in line]
    assert f"--project-directory {model.directory} " in first
    assert first.endswith("airflow-init check-fernet")
    assert len(others) == (not refused)


@pytest.mark.usefixtures("dumps")
@pytest.mark.parametrize("fernet_key", [True, False])
def test_rotation_that_will_not_fit_is_refused_before_the_vault_changes(
    model: Platform, fernet_key: bool
) -> None:
    more = ["--fernet-key"] if fernet_key else []
    with pytest.raises(ReleaseError, match="upgrade_outage_limit is 5 s"):
        call(model, "check-rotation", "--options", '{"outage_limit": 5}', *more)
    assert set(model.world.databases) == {"airflow"}


@pytest.mark.usefixtures("dumps")
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("state", ["prepared", "unconfirmed"])
def test_rotation_is_not_tried_beside_an_operation(model: Platform, state: str, named: bool) -> None:
    """Its next database would be gone; what is prepared and named is replaced in any case."""
    operation = put(model, state=state)
    model.world.databases["airflow_next"] = {"revision": ""}
    command = ("check-rotation", *(["--take-over", operation.id] if named else []))
    if named and state == "prepared":
        assert call(model, *command) == 0
        assert "airflow_next" not in model.world.databases
    else:
        with pytest.raises(ReleaseError, match="is active"):
            call(model, *command)
        assert "airflow_next" in model.world.databases


@pytest.mark.usefixtures("dumps")
@pytest.mark.parametrize("before", [True, False], ids=["without effect", "after its effect"])
def test_rotation_killed_while_it_is_tried_is_tried_again(model: Platform, before: bool) -> None:
    """At each command: what runs is as it was, and the next one leaves nothing of what was tried."""
    command = ("check-rotation", "--fernet-key")
    world = model.world
    call(model, *command)
    total = len(world.commands)
    for number in range(total):
        world.commands.clear()
        world.die_at, world.die_before = number, before
        with pytest.raises(Killed):
            call(model, *command)
        world.die_at = None
        assert world.databases["airflow"] == {"revision": f"schema-of-{OLD}"}
        assert call(model, *command) == 0
        assert set(world.databases) == {"airflow"}
        assert world.running == dict.fromkeys(CONTAINERS, OLD)
        assert world.closed == set()
    assert total > 10


def test_nothing_begins_during_a_backup(model: Platform) -> None:
    with (
        lock.exclusive(model.lock, doing="a backup"),
        pytest.raises(ReleaseError, match="a backup has been active"),
    ):
        begin(model)


@pytest.mark.parametrize(
    "options",
    [{"speed": 1}, {"start_timeout": "5m"}, {"on_drain_timeout": "terminat"}, {"drain_timeout": [1]}],
)
def test_mistyped_option_begins_nothing(model: Platform, options: dict[str, Any]) -> None:
    for command in ("check-options",), ("begin", "--kind", "upgrade", "--to-version", NEW):
        with pytest.raises(ReleaseError, match=f"upgrade_{next(iter(options))} is"):
            call(model, *command, "--options", json.dumps(options))
    assert Journal(model).read() is None
    assert not model.next.exists()


def test_good_options_are_said_to_be_so(model: Platform) -> None:
    assert call(model, "check-options", "--options", '{"start_timeout": "60"}') == 0


@pytest.mark.parametrize(
    "given",
    [
        ("--options", "[]"),
        ("--options", "{"),
        ("--options", "[" * 100_000),
        ("--command", '{"backup": 1}'),
        ("--control", "1"),
    ],
    ids=lambda given: f"{given[0]} {given[1][:10]}",
)
def test_what_is_no_json_object_is_a_wrong_call(
    model: Platform, given: tuple[str, str], capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(model, *given)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "source",
    ["tape:7", "bundle:", "bundle:relative", "database:airflow", "database:airflow_kept_A", "copy:x", ""],
)
def test_unknown_source_begins_nothing(model: Platform, source: str) -> None:
    with pytest.raises(ReleaseError, match="is no source for a database"):
        begin(model, "--database", source)
    assert Journal(model).read() is None


@pytest.mark.parametrize(
    "source", ["copy", "bundle:/b/a.tar", "sql:/b/a.sql", "database:airflow_kept_20260101t000000z"]
)
def test_source_is_kept(model: Platform, source: str) -> None:
    begin(model, "--database", source)
    assert read(model).database == source


@pytest.mark.parametrize("release", ["none", "../../etc"])
def test_unknown_release_is_refused(model: Platform, release: str) -> None:
    with pytest.raises(ReleaseError, match="no release"):
        begin(model, "--release", release)


def left_release(host: Platform) -> records.Release:
    """Leave a record of a release of which site.yml has built another image meanwhile."""
    release = records.current(host, "")
    release.images = {"AIRFLOW_IMAGE": "airflow:removed"}
    records.save(host, release)
    shutil.copytree(host.directory, release.files(host), ignore=shutil.ignore_patterns("releases"))
    return release


def test_rollback_asks_for_the_images_of_the_files(model: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    release = left_release(model)
    monkeypatch.setattr(images, "has_image", lambda host, image: image != "airflow:removed")
    assert begin(model, "--release", release.id, command={"kind": "rollback", "release": ""}) == 0


def test_rollback_without_an_image_is_refused(model: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    release = left_release(model)
    monkeypatch.setattr(images, "has_image", lambda host, image: False)
    with pytest.raises(ReleaseError, match=rf"no image airflow:{OLD} any more"):
        begin(model, "--release", release.id)


def test_release_without_files_is_refused(model: Platform) -> None:
    release = records.current(model, "")
    with pytest.raises(ReleaseError, match="has no files of it"):
        begin(model, "--release", release.id)


@pytest.mark.parametrize("kind", ["restore", "rollback"])
@pytest.mark.parametrize("ill", ["stopped", "damaged"])
def test_remedy_begins_on_an_ill_platform(model: Platform, kind: str, ill: str) -> None:
    break_database(model, ill)
    assert begin(model, command={"kind": kind}) == 0
    assert "postgres" in model.world.running
    assert read(model).state == "prepared"


@pytest.mark.parametrize("kind", ["upgrade", "rotate"])
@pytest.mark.parametrize("ill", ["stopped", "damaged"])
def test_nothing_else_does(model: Platform, kind: str, ill: str) -> None:
    break_database(model, ill)
    with pytest.raises(ReleaseError):
        begin(model, command={"kind": kind})
    assert Journal(model).read() is None


def break_database(host: Platform, how: str) -> None:
    if how == "stopped":
        del host.world.running["postgres"]
    else:
        host.world.fail = "alembic_version"


def test_abandon_keeps_the_reason(model: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that would be too long for a command line, and is not for everybody's eyes."""
    begin(model)
    call(model, "phase", "build", "begin")
    log = "\x1b[34m" + "x" * 200_000 + "end\x1b[0m"
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"message": "no network", "log": log})))
    call(model, "abandon", "--reason-from-stdin")
    operation = read(model)
    assert operation.state == "abandoned"
    assert (operation.failure["phase"], operation.failure["message"]) == ("build", "no network")
    assert operation.failure["log"].endswith("xend")
    assert begin(model) == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"message": 1}', '{"message": "a", "log": null}', "[" * 10**5]
)
def test_reason_that_is_none_changes_nothing(
    model: Platform, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    begin(model)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    with pytest.raises(ReleaseError, match="Standard input is no JSON"):
        call(model, "abandon", "--reason-from-stdin")
    assert read(model).state == "prepared"


def test_abandon_where_nothing_can_be_cleaned_up(model: Platform) -> None:
    """The platform is ill: all the more has one to be able to begin something else."""
    begin(model)
    del model.world.running["postgres"]
    assert call(model, "abandon") == 0
    operation = read(model)
    assert operation.state == "abandoned"
    assert "is not removed: Postgres does not run" in operation.warnings[0]


def test_abandon_waits_for_the_rehearsal(model: Platform) -> None:
    """Which would go on in what was removed, and write its operation over the end of this one."""
    begin(model)
    with (
        lock.exclusive(model.lock, doing="the rehearsal"),
        pytest.raises(ReleaseError, match="the rehearsal"),
    ):
        call(model, "abandon", "--wait", "0")
    assert read(model).state == "prepared"


def test_unit_that_cannot_start_leaves_it_prepared(model: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(model)
    monkeypatch.setattr(Platform, "masked", True)
    with pytest.raises(ReleaseError) as failed:
        call(model, "start")
    assert "masked" in failed.value.log
    assert read(model).state == "prepared"
    assert call(model, "abandon") == 0


def test_start_hands_it_to_the_unit(model: Platform) -> None:
    begin(model)
    (model.releases / "verdict.json").write_text("of an earlier one")
    call(model, "start", "--operation", read(model).id)
    assert read(model).state == "switching"
    assert model.world.commands[-1] == "systemctl restart airflow-release.service"
    assert not (model.releases / "verdict.json").exists()


@pytest.mark.parametrize("command", [("abandon", "--message", "no"), ("refuse", "--message", "no")])
@pytest.mark.parametrize("done", [{}, {"prepared": True}], ids=["unprepared", "rehearsed"])
def test_switch_that_never_began_can_be_ended(
    model: Platform, command: tuple[str, ...], done: dict[str, Any]
) -> None:
    """For example because `start` was killed before it spoke to systemd."""
    put(model, state="switching", done=done)
    assert call(model, *command) == 0
    assert (read(model).state, read(model).failure["message"]) == ("abandoned", "no")


@pytest.mark.parametrize("command", [("abandon",), ("refuse", "--message", "no")])
@pytest.mark.parametrize("done", [{}, {"begun": True}], ids=["begins", "has begun"])
def test_switch_at_work_cannot(model: Platform, command: tuple[str, ...], done: dict[str, Any]) -> None:
    operation = put(model, state="switching", done=done)
    wait = ("--wait", "0") if command == ("abandon",) and not done else ()
    with lock.exclusive(model.lock, doing="a switch"), pytest.raises(ReleaseError):
        call(model, *command, *wait)
    assert read(model) == operation


@pytest.mark.parametrize("command", ["rehearse", "run"])
def test_backup_under_way_is_awaited_however_long_it_takes(
    model: Platform, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    begin(model)
    real = lock.exclusive
    waits: list[float] = []

    def exclusive(path: Path, wait_seconds: float = 0, **doing: str) -> AbstractContextManager[None]:
        if path == model.lock:
            waits.append(wait_seconds)
            raise ReleaseError("a backup is active")
        return real(path, wait_seconds, **doing)

    monkeypatch.setattr(lock, "exclusive", exclusive)
    with pytest.raises(ReleaseError, match="a backup is active"):
        call(model, command)
    assert waits == [math.inf]


@pytest.mark.parametrize("state", ENDED)
def test_what_is_over_is_not_abandoned(model: Platform, state: str) -> None:
    operation = put(model, state=state)
    with pytest.raises(ReleaseError, match=rf"is {state}, not prepared\.$"):
        call(model, "abandon")
    assert read(model) == operation


def test_verdict_needs_an_unconfirmed_release(model: Platform) -> None:
    begin(model)
    with pytest.raises(ReleaseError, match="not unconfirmed"):
        call(model, "confirm")


def test_verdict_names_its_operation(model: Platform) -> None:
    operation = put(model, state="unconfirmed")
    call(model, "confirm", "--operation", operation.id)
    assert json.loads((model.releases / "verdict.json").read_text()) == {
        "operation": operation.id,
        "confirmed": True,
    }


@pytest.mark.parametrize("state", ["reverting", "reverted"])
def test_refusal_finds_the_host_on_its_way_back(model: Platform, capsys: Capture, state: str) -> None:
    """It had found a reason of its own, which stays."""
    failure = {"phase": "backup", "message": "no space left", "log": ""}
    operation = put(model, state=state, failure=failure)
    assert call(model, "refuse", "--message", "smoke is red") == 0
    assert "backup failed: no space left" in capsys.readouterr().out
    assert read(model) == operation
    assert not (model.releases / "verdict.json").exists()


REMEDIES = {
    "prepared": "airflow-release abandon",
    "switching": "airflow-release wait end",
    "unconfirmed": "airflow-release refuse",
    "finishing": "airflow-release wait end",
    "reverting": "airflow-release wait end",
}


@pytest.mark.parametrize("state", ACTIVE)
def test_guard_names_what_is_under_way(model: Platform, capsys: Capture, state: str) -> None:
    operation = put(model, state=state, done={"begun": True})
    with Journal(model).phase(operation, "drain"):
        capsys.readouterr()
        assert call(model, "guard") == 1
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(f"upgrade {OLD} -> {NEW} ({operation.id}) is active: {state}, drain since 20")
    assert REMEDIES[state] in said


STOPPED = ("airflow-worker", "flower", "postgres")


@pytest.mark.parametrize("state", ["none", "prepared", *ENDED])
def test_what_does_not_run_is_started(model: Platform, capsys: Capture, state: str) -> None:
    """As after a shutdown, or a Docker that stopped what it found running."""
    if state != "none":
        put(model, state=state)
    for service in STOPPED:
        del model.world.running[service]
    assert call(model, "up") == 0
    assert model.world.running == dict.fromkeys(CONTAINERS, OLD)
    assert f"{', '.join(STOPPED)}: not running, and started now." in capsys.readouterr().out


@pytest.mark.parametrize("state", [state for state in ACTIVE if state != "prepared"])
def test_nothing_is_started_in_a_switch(model: Platform, capsys: Capture, state: str) -> None:
    """What it has stopped is stopped for a reason."""
    operation = put(model, state=state, done={"begun": True})
    model.world.running.clear()
    assert call(model, "up") == 0
    assert model.world.running == {}
    assert f"{operation.id}) decides what runs" in capsys.readouterr().out


def test_nothing_is_done_where_everything_runs(model: Platform, capsys: Capture) -> None:
    """It is asked whenever Docker starts."""
    assert call(model, "up") == 0
    assert not [line for line in model.world.commands if " up " in line]
    assert "nothing is started" in capsys.readouterr().out


def test_files_that_nobody_applied_are_not_applied_by_a_boot(model: Platform) -> None:
    """Their images may not be built, nor their database migrated."""
    render(model.directory / "later", NEW)
    (model.directory / ".env").write_text((model.directory / "later/.env").read_text())
    del model.world.running["flower"]
    assert call(model, "up") == 0
    assert model.world.running == dict.fromkeys(CONTAINERS, OLD) | {"flower": NEW}
    [line] = [line for line in model.world.commands if " up " in line]
    assert {"--no-build", "--pull=never", "--no-recreate"} <= set(line.split())


def test_service_that_cannot_be_started_keeps_no_other_away(model: Platform, capsys: Capture) -> None:
    for service in STOPPED:
        del model.world.running[service]
    model.world.fail = "flower"
    assert call(model, "up") == 1
    assert set(CONTAINERS) - set(model.world.running) == {"flower"}
    assert "starting flower failed with code 1: as asked" in capsys.readouterr().out


def test_second_worker_is_looked_after(model: Platform, capsys: Capture) -> None:
    """The project says that it should run; nothing else has to."""
    project = compose_project.project(OLD, compose_project.SECOND_WORKER)
    (model.directory / "docker-compose.yaml").write_text(json.dumps(project))
    assert call(model, "health") == 1
    assert f"{compose_project.SECOND} does not run" in capsys.readouterr().out
    assert call(model, "up") == 0
    assert call(model, "health") == 0
    assert model.world.running[compose_project.SECOND] == OLD


@pytest.mark.parametrize("state", ["none", *ENDED])
def test_guard_lets_pass_what_is_alone(model: Platform, state: str) -> None:
    if state != "none":
        put(model, state=state)
    assert call(model, "guard") == 0


Poll = Callable[..., dict[str, Any]]


@pytest.fixture
def poll(model: Platform, capsys: Capture) -> Poll:
    def answer(phase: str) -> dict[str, Any]:
        capsys.readouterr()
        assert call(model, "wait", phase, "--json", "--seconds", "0") == 0
        return dict(json.loads(capsys.readouterr().out))

    return answer


def test_poll_of_what_goes_on(model: Platform, poll: Poll) -> None:
    operation = put(model, state="switching")
    with Journal(model).phase(operation, "drain"):
        answer = poll("drain")
    assert (answer["over"], answer["failed"]) == (False, False)
    assert answer["said"].startswith("switching, drain since 20")
    assert poll("end")["over"] is False


def test_poll_of_a_phase_that_is_done(model: Platform, poll: Poll) -> None:
    operation = put(model, state="switching")
    with Journal(model).phase(operation, "drain") as phase:
        phase.note = "every task finished"
    assert poll("drain") == {"over": True, "failed": False, "said": "drain: 0.0 s, every task finished"}


@pytest.mark.parametrize("state", ["reverting", "reverted"])
def test_poll_of_a_phase_that_failed(model: Platform, poll: Poll, state: str) -> None:
    put(model, state=state, failure={"phase": "migrate", "message": "no such column", "log": ""})
    answer = poll("migrate")
    assert (answer["over"], answer["failed"]) == (True, True)
    assert answer["said"].endswith("migrate failed: no such column")
    assert poll("end")["over"] is (state == "reverted")


@pytest.mark.parametrize(("state", "failed"), [("succeeded", False), ("reverted", True), ("abandoned", True)])
def test_end_is_awaited(model: Platform, poll: Poll, state: str, failed: bool) -> None:
    put(model, state=state)
    assert poll("end")["over"] is True
    assert poll("end")["failed"] is failed
    assert call(model, "wait", "end") == failed


def test_wait_without_an_end(model: Platform) -> None:
    put(model, state="switching")
    with pytest.raises(ReleaseError, match="end did not end within 0 s"):
        call(model, "wait", "end", "--seconds", "0")


def test_wait_for_nothing_is_no_answer(model: Platform) -> None:
    with pytest.raises(ReleaseError, match="no operation"):
        call(model, "wait", "end", "--json")


def test_health_names_what_is_wrong(model: Platform, capsys: Capture) -> None:
    assert call(model, "health") == 0
    del model.world.running["airflow-scheduler"]
    assert call(model, "health") == 1
    assert "airflow-scheduler does not run" in capsys.readouterr().out


def test_pending_migration_is_named(model: Platform, capsys: Capture) -> None:
    model.world.databases["airflow"]["revision"] = "0123456789ab"
    assert call(model, "health") == 1
    said = capsys.readouterr().out
    assert "pending: the database has the schema 0123456789ab" in said
    assert f"Airflow {OLD} needs schema-of-{OLD}\n" in said


@pytest.mark.parametrize("images", [0, 3 * 2**30])
def test_space_is_compared(
    model: Platform, monkeypatch: pytest.MonkeyPatch, capsys: Capture, images: int
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


def test_status_is_json(model: Platform, capsys: Capture) -> None:
    assert call(model, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"running_version": OLD, "operation": None}
    begin(model)
    capsys.readouterr()
    call(model, "status", "--json")
    assert json.loads(capsys.readouterr().out)["operation"] == asdict(read(model))


# What the journal keeps.


def test_first_failure_is_the_cause(model: Platform) -> None:
    """A kill between the failure and the way back, and what fails on the way back, do not hide it."""
    operation, journal = put(model, state="switching", done={"begun": True}), Journal(model)
    with pytest.raises(ReleaseError), journal.phase(operation, "migrate"):
        raise ReleaseError("no such column", "the log")
    engine.Engine(model, operation)._interrupted()
    journal.fail(operation, "revert", "no Docker")
    assert read(model).failure == {"phase": "migrate", "message": "no such column", "log": "the log"}
    lines = (model.releases / "journal.jsonl").read_text()
    assert "interrupted failed" in lines
    assert "no Docker" in lines


def test_failure_that_was_overcome_is_a_warning(model: Platform, capsys: Capture) -> None:
    operation, journal = put(model, state="finishing"), Journal(model)
    with pytest.raises(ReleaseError), journal.phase(operation, "finish"):
        raise ReleaseError("the server is starting up")
    assert "the new release stays; finish failed: the server is starting up" in read(model).outcome
    with journal.phase(operation, "finish"):
        pass
    journal.move(operation, "succeeded")
    operation = read(model)
    assert (operation.failure, len(operation.warnings)) == ({}, 1)
    assert operation.outcome.endswith(": succeeded")
    call(model, "status")
    assert "warning: finish failed at first" in capsys.readouterr().out


def test_warning_is_kept_once(model: Platform) -> None:
    operation = put(model)
    for _ in range(2):
        Journal(model).warn(operation, "kept as airflow_kept_1")
    assert read(model).warnings == ["kept as airflow_kept_1"]


def test_phases_are_written_alike(model: Platform) -> None:
    """By Ansible, a command a step, and by the host."""
    operation = put(model)
    call(model, "phase", "build", "begin")
    call(model, "phase", "build", "done", "--note", "two images")
    operation = read(model)
    with Journal(model).phase(operation, "rehearse") as phase:
        phase.note = "fine"
    assert [(one.name, one.state, one.note) for one in read(model).phases] == [
        ("build", "done", "two images"),
        ("rehearse", "done", "fine"),
    ]
    lines = [json.loads(line) for line in (model.releases / "journal.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines][-4:] == [
        "build begins",
        "build done",
        "rehearse begins",
        "rehearse done",
    ]


def test_phase_that_never_began_is_refused(model: Platform) -> None:
    begin(model)
    with pytest.raises(ReleaseError, match=r"build .* has not begun"):
        call(model, "phase", "build", "done")


def test_unknown_phase_is_refused(model: Platform) -> None:
    with pytest.raises(ReleaseError, match=f"'bild' is no phase. There are: {PHASES[0]}, "):
        Journal(model).record(put(model), "bild", "begin")


def test_journal_line_is_not_worth_a_failure(model: Platform, capsys: Capture) -> None:
    """On a full disk the way back needs the operation's file alone."""
    operation = put(model, state="unconfirmed")
    (model.releases / "journal.jsonl").unlink()
    (model.releases / "journal.jsonl").mkdir()
    Journal(model).move(operation, "reverting")
    assert read(model).state == "reverting"
    assert f"{operation.id}: reverting" in capsys.readouterr().out


def test_operation_of_an_earlier_version_is_read(model: Platform) -> None:
    operation = {
        "id": "an-id",
        "kind": "upgrade",
        "from_version": OLD,
        "to_version": NEW,
        "state": "succeeded",
        "held": ["weather"],
        "failure": {"phase": "finish", "message": "starting up", "log": ""},
        "phases": [{"name": "finish", "state": "done", "colour": "red"}],
        "done": {"door_shut": 1.0, "door_open": 2.0, "renaming": True},
        "speed": 1,
    }
    model.releases.mkdir(exist_ok=True)
    (model.releases / "operation.json").write_text(json.dumps(operation))
    found = read(model)
    assert (found.paused, found.command, found.phases[0].name) == (["weather"], {}, "finish")
    assert found.done == {"pages_closed": 1.0, "pages_open": 2.0, "renaming": True}
    assert found.outcome == f"upgrade {OLD} -> {NEW} (an-id): succeeded"


DAMAGED = {
    "empty": "",
    "cut off": '{"id": "a", "kin',
    "no text": "\ud800",
    "no object": "[]",
    "lacks all": "{}",
    "other state": '{"id": "a", "kind": "b", "from_version": "c", "to_version": "d", "state": "e"}',
    "other type": '{"id": "a", "kind": "b", "from_version": "c", "to_version": "d", "done": []}',
    "phases": '{"id": "a", "kind": "b", "from_version": "c", "to_version": "d", "phases": ["drain"]}',
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(
    "command", [["status"], ["guard"], ["wait", "end"], ["confirm"], ["run"]], ids="".join
)
def test_damaged_operation_is_said_to_be_so(
    model: Platform, capsys: Capture, content: str, command: list[str]
) -> None:
    (model.releases).mkdir(exist_ok=True)
    (model.releases / "operation.json").write_bytes(content.encode(errors="surrogatepass"))
    assert cli.main(["--directory", str(model.directory), *command]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{model.releases}/operation.json is damaged: ")
    assert len(said.err.splitlines()) == 1


# Each of these commands may be killed at any line of it.


class Killer:
    """Kills at the n-th line that the commands and the journal execute."""

    FILES = ("switch/commands.py", "switch/journal.py", "core/files.py")

    def __init__(self, line: int) -> None:
        self.left = line

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(self.FILES):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise Killed
        return self.trace


def killed(host: Platform, line: int, *command: str) -> bool:
    """Run a command, and say whether it was killed at that line before its end."""
    parsed = cli.parser().parse_args(command)
    before = sys.gettrace()
    sys.settrace(Killer(line).trace)
    try:
        parsed.run(host, parsed)
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


# A real kill closes the files that this one leaves open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("command", ["begin", "phase", "start", "abandon"])
def test_killed_at_any_line_strands_nobody(model: Platform, command: str) -> None:
    """What was to happen has happened or has not, and can be done again or ended either way."""
    kills = 0
    for line in range(1, 10_000, 7):
        begin(model)
        earlier = read(model)
        more = {
            "begin": ("--kind", "rotate", "--to-version", NEW, "--take-over", earlier.id),
            "phase": ("build", "begin"),
        }
        over = not killed(model, line, command, *more.get(command, ()))
        now = read(model)
        assert (now.id == earlier.id) or (now.state == "prepared" and command == "begin")
        assert now.state in ("prepared", "abandoned", "switching")
        if now.active:
            call(model, "abandon")
        shutil.rmtree(model.releases / "records")
        (model.releases / "current").unlink()
        if over:
            break
        kills += 1
    assert kills > 10


# What the program says when it cannot.


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def plan(host: Host, release: str) -> None:
        raise error

    monkeypatch.setattr(rollback, "plan", plan)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(107, "not connected", "/var/backups"), "OSError: [Errno 107] not connected: '/var/backups'"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (KeyError("AIRFLOW_VERSION"), "KeyError: 'AIRFLOW_VERSION'"),
        (RecursionError(), "RecursionError: "),
    ],
)
def test_crash_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: Exception, words: str
) -> None:
    fail_with(monkeypatch, error)
    (tmp_path / "releases").mkdir()
    old = os.umask(0)
    try:
        assert cli.main(["--directory", str(tmp_path), "plan-rollback"]) == 4
    finally:
        os.umask(old)
    log = tmp_path / "releases/crash.log"
    said = capsys.readouterr().err
    assert said == f"airflow-release plan-rollback: unexpected {words}; details in {log}\n"
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_crash_without_a_place_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fail_with(monkeypatch, ValueError("psql said 'notice'"))
    assert cli.main(["--directory", str(tmp_path / "none"), "plan-rollback"]) == 4
    assert capsys.readouterr().err == (
        "airflow-release plan-rollback: unexpected ValueError: psql said 'notice'\n"
    )


def test_crashes_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A unit that crashes is started every ten seconds."""
    (tmp_path / "releases").mkdir()
    log = tmp_path / "releases/crash.log"
    log.write_text("x" * (cli.CRASHES_KEPT + 1))
    fail_with(monkeypatch, ValueError())
    for _ in range(2):
        cli.main(["--directory", str(tmp_path), "plan-rollback"])
    assert log.read_text().count("Traceback") == 2
    assert log.stat().st_size < cli.CRASHES_KEPT


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ReleaseError("no backup"), 3, "no backup\n"),
        (ReleaseError("no backup", "\na log\nof two lines\n"), 3, "no backup\n\na log\nof two lines\n"),
        (KeyboardInterrupt(), 3, "airflow-release plan-rollback: interrupted\n"),
    ],
)
def test_what_cannot_be_done_is_code_3(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    fail_with(monkeypatch, error)
    assert cli.main(["--directory", str(tmp_path), "plan-rollback"]) == code
    assert capsys.readouterr().err == said


def test_answer_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    """As in `airflow-release status | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "airflow_release", "--directory", str(tmp_path), "guard"]
    with open(writing, "w") as output:
        done = subprocess.run(
            program,
            stdout=output,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(SOURCE)},
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        3,
        "airflow-release guard: nobody read its answer to the end\n",
    )


@pytest.mark.parametrize("there", [True, False])
def test_umask_does_not_hide_the_database_from_airflow(model: Platform, there: bool) -> None:
    directory = model.releases / "database"
    old = os.umask(0o077)
    try:
        if there:
            directory.mkdir(parents=True)
        next_database.point(model, "airflow_next")
    finally:
        os.umask(old)
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / "pg_service.conf").stat().st_mode & 0o777 == 0o644
