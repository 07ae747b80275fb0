"""What was kept for long enough goes, what is needed or in use stays, and each thing that went is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
from airflow_checker import judge
from airflow_checker.facts import Facts
from airflow_release import cli
from airflow_release.backup import backups, store
from airflow_release.clean import databases, history, images, logs, networks
from airflow_release.core import records
from airflow_release.core.database import FAILED, SAMPLE, Database, kept_name, kept_since
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.records import Release
from airflow_release.core.settings import CLEAN, Settings, load
from airflow_release.switch.journal import Journal, Operation
from hypothesis import given
from hypothesis import strategies as st

from tests.missing import needs

DAY = 86_400
NOW = 1_800_000_000.0
ROOT = Path(__file__).resolve().parents[2]
Disk = namedtuple("Disk", "f_blocks f_frsize f_files")

some_logs = st.lists(
    st.builds(logs.Log, st.floats(0, NOW), st.uuids().map(str), st.integers(0, 2**40)), max_size=30
)


# Logs


@given(some_logs, st.integers(-(2**42), 2**42), st.integers(-40, 40))
def test_choice_is_the_shortest_row_of_the_oldest_that_is_enough(
    found: list[logs.Log], bytes_over: int, files_over: int
) -> None:
    chosen = logs.choose(found, bytes_over=bytes_over, files_over=files_over)
    stays = set(found) - set(chosen)
    assert set(chosen) <= set(found)
    assert not [log for log in stays if chosen and log.modified < chosen[-1].modified]

    def enough(row: list[logs.Log]) -> bool:
        return sum(log.size for log in row) >= bytes_over and len(row) >= files_over

    assert enough(chosen) or not stays
    assert not chosen or not enough(chosen[:-1])


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with logs whose disk is of 1 MiB, in files of 64 KiB; the settings allow tasks' 20 %."""
    host = Host(tmp_path / "srv", tmp_path / "backups")
    for name, days in {
        "dag_id=a/run_id=1/task_id=t/attempt=1.log": 100,
        "dag_id=a/run_id=2/task_id=t/attempt=1.log": 50,
        "dag_id=a/run_id=3/task_id=t/attempt=1.log": 40,
        "dag_id=b/run_id=1/task_id=t/attempt=1.log": 30,
        "dag_id=b/run_id=2/task_id=t/attempt=1.log": 0,
        "scheduler/2026-01-01/one.py.log": 95,
        "scheduler/2026-05-01/one.py.log": 2,
        "dag_processor_manager/dag_processor_manager.log": 0,
    }.items():
        write(host.directory / "logs" / name, days)
    real = os.statvfs
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda path: Disk(2**20, 1, 0) if Path(path) == host.directory / "logs" else real(path),
    )
    monkeypatch.setattr(logs, "TMPFILES", tmp_path / "tmpfiles.conf")
    monkeypatch.setattr(logs, "CONTAINERS", tmp_path / "none")
    template = (ROOT / "templates/etc/airflow-release/tmpfiles.conf.j2").read_text()
    for name, value in {
        "ansible_managed | comment": "# managed",
        "airflow_release_directory": str(host.directory),
        "airflow_release_log_days": "90",
        "airflow_release_scheduler_log_days": "90",
    }.items():
        template = template.replace(f"{{{{ {name} }}}}", value)
    logs.TMPFILES.write_text(template)
    return host


def write(file: Path, days: float, size: int = 2**16) -> None:
    """Write a file and age it, with the directories in which it is alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    then = time.time() - days * DAY
    os.utime(file, (then, then))
    for folder in list(file.parents)[:3]:
        if folder.name != "logs":
            os.utime(folder, (then, then))


def names(host: Host) -> list[str]:
    """Return the logs that are there."""
    top = host.directory / "logs"
    return sorted(str(file.relative_to(top)) for file in top.rglob("*") if file.is_file())


needs_tmpfiles = needs("systemd-tmpfiles")


@pytest.fixture
def containers(platform: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's directory with a container: its current log, three that were rotated, and what else it has."""
    place = tmp_path / "containers"
    monkeypatch.setattr(logs, "CONTAINERS", place)
    for name, days in {
        "0a/0a-json.log": 200,
        "0a/0a-json.log.1": 2,
        "0a/0a-json.log.2": 50,
        "0a/0a-json.log.3.gz": 100,
        "0a/config.v2.json": 200,
        "0a/mounts/0a-json.log.9": 200,
    }.items():
        write(place / name, days)
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: Disk(2**20, 1, 0) if path == place else real(path))
    return place


def of_container(containers: Path) -> list[str]:
    return sorted(str(path.relative_to(containers)) for path in containers.rglob("*") if path.is_file())


@needs_tmpfiles
@pytest.mark.parametrize(
    ("percent", "said", "gone"),
    [
        (90, ["1 files, 0.1 MiB, not written to for 90 days"], {"0a/0a-json.log.3.gz"}),
        (
            # The files have 64 KiB of a disk of 1 MiB.
            10,
            [
                "1 files, 0.1 MiB, not written to for 90 days",
                "1 files, 0.1 MiB, the oldest, because they took more than 10 % of the disk",
            ],
            {"0a/0a-json.log.3.gz", "0a/0a-json.log.2"},
        ),
    ],
)
def test_rotated_logs_of_containers_go_and_nothing_else_of_them(
    platform: Host, containers: Path, percent: int, said: list[str], gone: set[str]
) -> None:
    settings = Settings(log_percent=90, scheduler_log_percent=90, container_log_percent=percent)
    before = of_container(containers)
    expected = [f"logs of containers: {line}" for line in said]
    assert [line for line in logs.clean(platform, settings, dry_run=True) if "containers" in line] == expected
    assert of_container(containers) == before
    logs.TMPFILES.write_text("")
    assert [line for line in logs.clean(platform, settings) if "containers" in line] == expected
    assert of_container(containers) == sorted({*before} - gone)
    assert [line for line in logs.clean(platform, settings) if "containers" in line] == []


def test_docker_that_keeps_its_logs_elsewhere_is_let_be(platform: Host, tmp_path: Path) -> None:
    kinds = logs._kinds(platform, Settings())
    assert [kind.directories for kind in kinds if kind.rotated] == [()]


@needs_tmpfiles
def test_old_logs_and_their_directories_go_by_days(platform: Host) -> None:
    settings = Settings(log_percent=90, scheduler_log_percent=90)
    expected = logs.clean(platform, settings, dry_run=True)
    assert len(names(platform)) == 8
    assert logs.clean(platform, settings) == expected
    assert expected == [
        "logs of tasks: 1 files, 0.1 MiB, not written to for 90 days",
        "logs of the scheduler: 1 files, 0.1 MiB, not written to for 90 days",
    ]
    assert len(names(platform)) == 6
    assert not (platform.directory / "logs/dag_id=a/run_id=1").exists()
    assert not (platform.directory / "logs/scheduler/2026-01-01").exists()
    assert (platform.directory / "logs/scheduler").is_dir()


@needs_tmpfiles
def test_kinds_have_days_of_their_own(platform: Host) -> None:
    text = logs.TMPFILES.read_text()
    logs.TMPFILES.write_text(text.replace("logs/scheduler - - - mM:90d", "logs/scheduler - - - mM:200d"))
    logs.clean(platform, Settings(log_percent=90, scheduler_log_percent=90, scheduler_log_days=200))
    assert "scheduler/2026-01-01/one.py.log" in names(platform)
    assert "dag_id=a/run_id=1/task_id=t/attempt=1.log" not in names(platform)


@needs_tmpfiles
def test_oldest_go_until_a_kind_has_its_share(platform: Host) -> None:
    """Of four files with 64 KiB three are 192 KiB, less than 20 % of 1 MiB; the scheduler's have 5 %."""
    said = logs.clean(platform, Settings(scheduler_log_percent=7))
    assert said == [
        "logs of tasks: 1 files, 0.1 MiB, not written to for 90 days",
        "logs of tasks: 1 files, 0.1 MiB, the oldest, because they took more than 20 % of the disk",
        "logs of the scheduler: 1 files, 0.1 MiB, not written to for 90 days",
        "logs of the scheduler: 1 files, 0.1 MiB, the oldest, because they took more than 7 % of the disk",
    ]
    assert names(platform) == [
        "dag_id=a/run_id=3/task_id=t/attempt=1.log",
        "dag_id=b/run_id=1/task_id=t/attempt=1.log",
        "dag_id=b/run_id=2/task_id=t/attempt=1.log",
        "dag_processor_manager/dag_processor_manager.log",
    ]
    assert not (platform.directory / "logs/dag_id=a/run_id=2").exists()


@needs_tmpfiles
def test_log_of_a_running_task_stays(platform: Host) -> None:
    """Though it is the oldest: a task that is silent for days has its log open all the time."""
    with (platform.directory / "logs/dag_id=a/run_id=2/task_id=t/attempt=1.log").open("a"):
        logs.clean(platform, Settings(scheduler_log_percent=90))
    assert "dag_id=a/run_id=2/task_id=t/attempt=1.log" in names(platform)
    assert "dag_id=a/run_id=3/task_id=t/attempt=1.log" not in names(platform)


@needs_tmpfiles
def test_share_that_cannot_be_kept_is_told(platform: Host) -> None:
    with pytest.raises(ReleaseError) as told:
        logs.clean(platform, Settings(log_percent=1, scheduler_log_percent=90))
    assert "logs of tasks take 0.1 MiB and 0 files more than 1 % of the disk, and all were" in str(told.value)
    assert "removed: logs of tasks: 3 files" in str(told.value)
    assert "dag_id=b/run_id=2/task_id=t/attempt=1.log" in names(platform)


def test_process_that_ends_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at /proc and the one at its open files."""
    log = tmp_path / "log"
    log.touch()
    for process in ("7", "8"):
        (tmp_path / process / "fd").mkdir(parents=True)
        (tmp_path / process / "fd" / "3").symlink_to(log)
    ended = str(tmp_path / "7" / "fd")

    def unless_ended(look: Callable[..., object]) -> Callable[..., object]:
        def looked(path: object = ".") -> object:
            if str(path) == ended:
                raise FileNotFoundError(ended)
            return look(path)

        return looked

    monkeypatch.setattr(os, "listdir", unless_ended(os.listdir))
    monkeypatch.setattr(os, "scandir", unless_ended(os.scandir))
    assert logs.open_files(tmp_path) == {(log.stat().st_dev, log.stat().st_ino)}


@needs_tmpfiles
def test_share_of_inodes_counts_too(platform: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: Disk(2**40, 1, 10))
    logs.clean(platform, Settings(log_percent=20, scheduler_log_percent=90))
    assert len([name for name in names(platform) if name.startswith("dag_id")]) == 2


def test_share_is_kept_though_tmpfiles_fails(platform: Host) -> None:
    logs.TMPFILES.unlink()
    with pytest.raises(
        ReleaseError, match=r"removing the oldest logs failed.*removed: logs of tasks: 2 files"
    ):
        logs.clean(platform, Settings())


def test_what_lies_beside_the_logs_is_not_touched(platform: Host, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    write(outside / "file", 400)
    (platform.directory / "logs/link").symlink_to(outside)
    (platform.directory / "logs/dag_id=a/link").symlink_to(outside / "file")
    with pytest.raises(ReleaseError):
        logs.clean(platform, Settings(log_percent=0))
    assert (outside / "file").exists()


# Images

RUNS, REMOVED = "airflow-platform/airflow:2.11.2-aaaaaaaaaaaa", "airflow-platform/airflow:2.5.3-cccccccccccc"
BEFORE = "airflow-platform/airflow:2.6.1-bbbbbbbbbbbb"


class Images(Host):
    """A host that knows images, each with its age in days."""

    there: dict[str, float]
    containers: list[str]
    removed: list[str]
    fails: str

    def of(self, ages: Mapping[str, float], containers: Collection[str] = (), fails: str = "") -> Images:
        """Give it images."""
        vars(self).update(there=dict(ages), containers=list(containers), removed=[], fails=fails)
        return self

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
        """Answer as Docker does."""
        if command[1:3] == ["image", "ls"]:
            assert "--filter=reference=airflow-platform/*" in command
            return "".join(f"{name}\n" for name in self.there)
        if command[1:3] == ["image", "inspect"]:
            return "".join(
                time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z\n", time.gmtime(NOW - self.there[name] * DAY))
                for name in command[4:]
            )
        if command[1:3] == ["image", "rm"]:
            assert "--force" not in command
            if command[3] == self.fails:
                raise ReleaseError(f"{doing} failed with code 1", "conflict: container 12ab is using it\n")
            self.removed.append(command[3])
            return ""
        assert command[1:3] == ["container", "ls"], command
        return "\n".join(self.containers)


@pytest.fixture
def engine(tmp_path: Path) -> Images:
    """A host with a release that runs, the one before, and an earlier one that was left 40 days ago."""
    host = Images(tmp_path / "srv", tmp_path / "backups")
    (host.directory / "build").mkdir(parents=True)
    (host.directory / ".env").write_text(f"AIRFLOW_IMAGE={RUNS}\nREDIS_IMAGE=redis:7.0-bookworm\n")
    (host.directory / "docker-compose.yaml").write_text(
        'AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE: "airflow-platform/annotate:1-dddddddddddd"\n'
    )
    bake = {"target": {"airflow-base": {"tags": ["airflow-platform/airflow-base:2.11.2-eeeeeeeeeeee"]}}}
    (host.directory / "build/docker-bake.json").write_text(json.dumps(bake))
    for number, (version, image, since) in enumerate(
        [("2.5.3", REMOVED, 90), ("2.6.1", BEFORE, 40), ("2.11.2", RUNS, 10)]
    ):
        release = Release(str(number), version, NOW - since * DAY, images={"AIRFLOW_IMAGE": image})
        records.save(host, release)
        release.files(host).mkdir()
    return host


NEEDED = {
    RUNS: 10,
    BEFORE: 200,
    "airflow-platform/annotate:1-dddddddddddd": 200,
    "airflow-platform/airflow-base:2.11.2-eeeeeeeeeeee": 200,
}


def test_images_that_nothing_needs_go(engine: Images) -> None:
    edited = "airflow-platform/webhook:1-ffffffffffff"
    engine.of({**NEEDED, REMOVED: 200, edited: 31, "airflow-platform/webhook:1-999999999999": 29})
    assert images.clean(engine, Settings(), short=False, dry_run=True, now=NOW) == [
        f"the image {REMOVED}",
        f"the image {edited}",
    ]
    assert engine.removed == []
    images.clean(engine, Settings(), short=False, now=NOW)
    # The first was left 40 days ago, whenever it was built.
    assert engine.removed == [REMOVED, edited]


def test_image_stays_for_its_days_after_its_release_was_left(engine: Images) -> None:
    engine.of({**NEEDED, REMOVED: 400})
    images.clean(engine, Settings(image_days=41), short=False, now=NOW)
    assert engine.removed == []


@pytest.mark.parametrize("name", [REMOVED, f"docker.io/{REMOVED}"])
def test_image_of_a_container_stays(engine: Images, name: str) -> None:
    """Also of one that another Compose project, or a person, made and stopped; a DAG's has the full name."""
    engine.of({**NEEDED, REMOVED: 200}, containers=[name, "redis:7.0-bookworm"])
    images.clean(engine, Settings(), short=False, now=NOW)
    assert engine.removed == []


def test_without_disk_all_but_what_was_just_built_go(engine: Images) -> None:
    engine.of(
        {
            **NEEDED,
            "airflow-platform/webhook:1-ffffffffffff": 1.1,
            "airflow-platform/webhook:1-999999999999": 0.9,
        }
    )
    images.clean(engine, Settings(), short=True, now=NOW)
    assert engine.removed == ["airflow-platform/webhook:1-ffffffffffff"]


def test_image_that_cannot_go_is_told_and_keeps_no_other(engine: Images) -> None:
    other = "airflow-platform/webhook:1-ffffffffffff"
    engine.of({**NEEDED, REMOVED: 200, other: 31}, fails=REMOVED)
    with pytest.raises(
        ReleaseError, match=rf"{REMOVED} failed with code 1: conflict: .*; removed: .*{other}"
    ):
        images.clean(engine, Settings(), short=False, now=NOW)
    assert engine.removed == [other]


class Builder(Host):
    """A host whose Docker says so much of its build cache."""

    def run(self, command: Sequence[str], **_: object) -> str:
        """Answer, and remember the question."""
        vars(self)["asked"] = list(command)
        return str(vars(self)["answer"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("ID\tRECLAIMABLE\tSIZE\nab\ttrue\t1.1GB\nTotal:\t1.2GB\n", ["build cache of 1.2GB"]),
        ("Total reclaimed space: 512MB\n", ["build cache of 512MB"]),
        ("Total:\t0B\n", []),
        ("", []),
    ],
)
@pytest.mark.parametrize("short", [False, True])
def test_build_cache_goes_by_dockers_own_filter(
    tmp_path: Path, answer: str, said: list[str], short: bool
) -> None:
    host = Builder(tmp_path)
    vars(host)["answer"] = answer
    assert images.clean_build_cache(host, Settings(), short=short) == said
    asked = vars(host)["asked"]
    assert asked[:3] == ["docker", "builder", "prune"]
    assert ("--filter=until=720h" in asked) is not short


def test_bare_host_needs_what_its_files_name(engine: Images) -> None:
    shutil.rmtree(engine.releases)
    engine.of(NEEDED)
    images.clean(engine, Settings(), short=False, now=NOW)
    assert engine.removed == [BEFORE]


# Databases


@pytest.fixture
def left(host: Host, database: Database) -> Database:
    """Databases that operations left: one that failed now, and two kept ones, the second needed."""
    for name in (FAILED, "airflow_kept_20260101t000000z", "airflow_kept_20260102t000000z", "somebody_elses"):
        database.create(name)
    for number, kept in enumerate(("airflow_kept_20260101t000000z", "airflow_kept_20260102t000000z", "")):
        release = Release(str(number), "2.6.1", float(number), kept=kept)
        records.save(host, release)
        release.files(host).mkdir()
    return database


@pytest.mark.parametrize(
    ("name", "since"),
    [
        (kept_name(1_767_225_600.5), 1_767_225_600.0),
        ("airflow_kept_20260101t000000z", 1_767_225_600.0),
        ("airflow_kept_1", None),
        ("airflow_kept_20269901t000000z", None),
        ("airflow_kept_20260101T000000Z", None),
        ("airflow_previous", None),
        (FAILED, None),
    ],
)
def test_name_of_a_kept_database_says_since_when(name: str, since: float | None) -> None:
    """What says none is never dropped."""
    assert kept_since(name) == since


def days_from_now(days: float) -> float:
    return time.time() + days * DAY


def test_left_databases_go_by_days_and_are_named(host: Host, left: Database) -> None:
    assert databases.clean(host, Settings(), short=False, now=1_767_225_600 + 29 * DAY) == []
    said = databases.clean(host, Settings(), short=False, dry_run=True, now=days_from_now(31))
    assert FAILED in left.names()
    assert databases.clean(host, Settings(), short=False, now=days_from_now(31)) == said
    [failed, kept] = said
    assert failed.startswith(f"the database airflow_failed of {time.strftime('%Y-%m-%d', time.gmtime())}, ")
    assert kept.startswith("the database airflow_kept_20260101t000000z of 2026-01-01, ")
    # A rollback to the release before the running one takes the other.
    assert {"airflow_kept_20260102t000000z", "somebody_elses", "airflow"} <= left.names()


def test_sample_of_a_killed_command_goes_at_once(host: Host, database: Database) -> None:
    """It has nobody's data, and up to 1 GiB."""
    database.create(SAMPLE)
    [said] = databases.clean(host, Settings(), short=False)
    assert said.startswith("the database airflow_sample of ")
    assert SAMPLE not in database.names()


def test_without_disk_the_failed_one_goes_after_a_day_and_no_kept_one(host: Host, left: Database) -> None:
    settings = Settings(database_days=100_000)
    assert databases.clean(host, settings, short=True, now=days_from_now(0.9)) == []
    [said] = databases.clean(host, settings, short=True, now=days_from_now(1.1))
    assert said.startswith("the database airflow_failed")


# Networks


class Networks(Host):
    """A host whose project has one network, and whose Docker has two more of it, one with a container."""

    def run(self, command: Sequence[str], **_: object) -> str:
        """Answer, and remember what was removed."""
        if command[-2:] == ["config", "--format=json"]:
            return json.dumps(
                {"name": "airflow", "networks": {"edge-airflow": {"name": "airflow_edge-airflow"}}}
            )
        if command[1:3] == ["network", "rm"]:
            vars(self).setdefault("removed", []).append(command[3])
            return ""
        if command[1:3] == ["container", "ls"]:
            assert "--all" in command
            return "1a2b3c\n" if command[-1] == "--filter=network=airflow_used" else ""
        assert command[1:3] == ["network", "ls"], command
        assert "--filter=label=com.docker.compose.project=airflow" in command
        return "airflow_edge\nairflow_edge-airflow\nairflow_used\n"


def test_network_that_the_project_has_no_more_goes(tmp_path: Path) -> None:
    host = Networks(tmp_path)
    assert networks.clean(host, dry_run=True) == ["the network airflow_edge"]
    assert "removed" not in vars(host)
    assert networks.clean(host) == ["the network airflow_edge"]
    assert vars(host)["removed"] == ["airflow_edge"]


# The command

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def command(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `airflow-release clean`; its steps only say that they were taken."""

    def say(name: str) -> Callable[..., list[str]]:
        return lambda *_, **__: [name]

    for module, name in [
        (logs, "logs"),
        (images, "images"),
        (networks, "networks"),
        (databases, "databases"),
        (history, "history"),
    ]:
        monkeypatch.setattr(module, "clean", say(f"old {name}"))
    monkeypatch.setattr(images, "clean_build_cache", say("build cache of 1GB"))
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"keep_days": 7, "keep_count": 1, "remote": "", "fernet_key": {}}))

    def run(*arguments: str) -> int:
        common = [f"--directory={host.directory}", f"--backups={host.backups}"]
        return cli.main([*common, "clean", *arguments, f"--settings={settings}"])

    return run


def test_says_what_it_removed(command: Command, capsys: Captured) -> None:
    assert command() == 0
    assert capsys.readouterr().out.splitlines() == [
        "removed old logs",
        "removed old images",
        "removed build cache of 1GB",
        "backups: nothing to remove",
        "removed old networks",
        "removed old databases",
        "removed old history",
    ]
    assert command("--json") == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in steps][-1] == "history"
    assert {"name": "logs", "removed": ["old logs"], "failed": ""} in steps


def test_dry_run_only_says(command: Command, capsys: Captured) -> None:
    assert command("--dry-run") == 0
    out = capsys.readouterr().out
    assert "would remove old history" in out
    assert "removed" not in out


@pytest.mark.parametrize("error", [ReleaseError("too bad"), ValueError("too bad")])
def test_one_failure_keeps_no_other_step_and_is_loud(
    command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> list[str]:
        raise error

    monkeypatch.setattr(images, "clean", fail)
    assert command() == cli.NOT_DONE
    said = capsys.readouterr()
    assert "removed old history" in said.out
    assert "images: " in said.err
    assert "too bad" in said.err


def test_checker_can_read_how_it_went(
    command: Command, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """By the names that airflow_checker.judge knows; neither a dry run nor one that was skipped counts."""
    file = host.status / "clean.json"
    assert command("--dry-run") == 0
    assert not file.exists()
    assert command() == 0
    known = json.loads(file.read_text())
    assert time.time() - known["at"] < 60
    assert known["failed"] == ""
    assert file.stat().st_mode & 0o777 == 0o644

    def fail(*_: object, **__: object) -> list[str]:
        raise ReleaseError("too\nbad")

    monkeypatch.setattr(images, "clean", fail)
    assert command() == cli.NOT_DONE
    known = json.loads(file.read_text())
    assert known["failed"] == "images: too bad"
    assert "clean-failed" in {finding.light for finding in judge.clean(Facts(now=time.time(), clean=known))}
    Journal(host, quiet=True).move(Operation("1", "upgrade", "2.5.3", "2.6.1"), "prepared")
    assert command() == 1
    assert json.loads(file.read_text()) == known


def test_during_an_operation_only_logs_go(command: Command, host: Host, capsys: Captured) -> None:
    Journal(host, quiet=True).move(Operation("1", "upgrade", "2.5.3", "2.6.1"), "prepared")
    assert command() == 1
    said = capsys.readouterr()
    assert said.out == "removed old logs\n"
    assert "An operation is active" in said.err


def test_it_waits_for_the_lock(command: Command, host: Host, capsys: Captured) -> None:
    host.releases.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(["flock", str(host.lock), "cat"], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while command() == 0 and time.monotonic() < deadline:
            capsys.readouterr()
        said = capsys.readouterr()
        assert said.out == "removed old logs\n"
        assert "all but logs: " in said.err
    finally:
        holder.communicate()
    assert command("--wait", "10") == 0


def test_old_backups_go_where_none_is_taken_any_more(
    command: Command, host: Host, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for a new backup gets some."""
    backups.take(host, reason="a test", settings=Settings())
    for day in ("01", "02"):
        newest = host.backups / store.names(host)[0]
        shutil.copy(newest, host.backups / f"airflow-202001{day}T000000Z-2.6.1.tar")
    assert command() == 0
    assert "removed airflow-20200101T000000Z-2.6.1.tar" in capsys.readouterr().out
    assert len(store.names(host)) == 1


# Settings


def test_settings_are_those_of_the_inventory(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    given = {"keep_days": 1, "keep_count": 1, "remote": "", "fernet_key": {}}
    file.write_text(json.dumps(given))
    assert load(file).history_days == 90
    file.write_text(json.dumps({**given, "clean": {"history_days": 7, "free_percent": 3, "of_later": 1}}))
    assert load(file) == replace(load(file), history_days=7, free_percent=3)
    assert (load(file).history_days, load(file).log_days) == (7, 90)
    assert load(file).disk_full_percent == 5
    file.write_text(json.dumps({**json.loads(file.read_text()), "disk_full_percent": "3"}))
    assert load(file).disk_full_percent == 3


def test_role_renders_every_setting() -> None:
    text = (ROOT / "roles/airflow_release/vars/main.yml").read_text()
    assert all(f"  {name}: " in text for name in CLEAN)
