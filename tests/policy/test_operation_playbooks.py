"""Operations as Ansible drives them: what is refused and resumed, how failures are told, what is pinned."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.missing import missing, needs
from tests.policy.conftest import PLAYBOOKS, ROOT, load
from tests.policy.operations import ELSEWHERE, GONE, Hosts, said

UPGRADE: dict[str, Any] = {
    "upgrade_kind": "rollback",
    "upgrade_release": "20260101T000000Z-2.6.1",
    "upgrade_target_version": "2.6.1",
    "upgrade_command": {"kind": "upgrade", "airflow_version": "2.6.1"},
    "upgrade_report_directory": "{{ airflow_directory }}/reports",
}
"""An operation with the files of an earlier release: nothing is rendered or built for it."""
RESTORE = {"kind": "restore", "backup": "A"}
ROLLBACK = {"kind": "rollback", "release": "20260101T000000Z-2.6.1"}
OTHER = "20260201T000000Z-2.6.1"


ASK_NOTHING = ("playbooks/status.yml", "playbooks/workers.yml")
"""The one changes nothing, the other is the end of playbooks that have asked."""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path, "one")


@pytest.mark.parametrize("playbook", [name for name in PLAYBOOKS if name not in ASK_NOTHING])
def test_every_playbook_asks_what_is_under_way_first(playbook: str) -> None:
    """Before a role or a task can change anything; only questions about the command line come before it."""
    play = load(ROOT / playbook)[0]
    tasks = [*play.get("pre_tasks", []), *play.get("tasks", [])]
    first = next(index for index, task in enumerate(tasks) if "ansible.builtin.assert" not in task)
    assert tasks[first].get("ansible.builtin.include_tasks") == "tasks/guard.yml"
    assert "when" not in tasks[first]
    assert not play.get("roles") or first < len(play.get("pre_tasks", []))


def test_status_changes_nothing() -> None:
    """It runs while an operation does, to say so."""
    [play] = load(ROOT / "playbooks/status.yml")
    [control] = play["pre_tasks"]
    assert control["ansible.builtin.include_role"] == {"name": "preflight", "tasks_from": "control"}
    allowed = {"ansible.builtin.debug", "ansible.builtin.assert"}
    assert not play.get("roles")
    assert [
        task for task in play["tasks"] if not allowed & set(task) and task.get("changed_when") is not False
    ] == []


@pytest.mark.parametrize("playbook", ["upgrade", "rollback", "restore", "rotate"])
def test_operations_take_one_host_after_the_other(playbook: str) -> None:
    plays = [play for play in load(ROOT / f"playbooks/{playbook}.yml") if "hosts" in play]
    assert [play["serial"] for play in plays] == [1] * len(plays)
    assert all(play["vars"]["upgrade_command"]["kind"] == playbook for play in plays)


@pytest.mark.parametrize("state", ["prepared", "switching", "unconfirmed", "finishing", "reverting"])
def test_others_are_refused_while_an_operation_is_active(hosts: Hosts, state: str) -> None:
    """With its name, its phase and since when. The host's command is not asked, for it may be an old one."""
    hosts.journal("one", state=state)
    run = hosts.play(tasks=["guard"])
    assert run.returncode == 2, said(run)
    assert "upgrade airflow_version=2.6.1, 2.5.3 to 2.6.1, id 20261122T203952Z-upgrade-2.6.1" in said(run)
    assert f"state {state}, phase drain, since 2026-11-24 20:41:12Z" in said(run)
    assert hosts.calls("one") == []


@pytest.mark.parametrize("state", ["", "succeeded", "reverted", "abandoned"])
def test_others_go_on_when_nothing_is_under_way(hosts: Hosts, state: str) -> None:
    """Where nothing was ever installed, too."""
    if state:
        hosts.journal("one", state=state)
    else:
        (hosts.home("one") / "bin/airflow-release").unlink()
    run = hosts.play(tasks=["guard"])
    assert run.returncode == 0, said(run)


@pytest.mark.parametrize("playbook", ["site", "stop", "smoke", "backup"])
def test_playbook_says_last_that_operations_may_begin(playbook: str) -> None:
    """destroy.yml removes the note with all else, and preflight.yml changes nothing."""
    play = [play for play in load(ROOT / f"playbooks/{playbook}.yml") if play.get("hosts") == "airflow"][-1]
    last = (play.get("post_tasks") or play["tasks"])[-1]
    assert last["ansible.builtin.include_tasks"] == "tasks/unguard.yml"
    assert "when" not in last


def test_note_is_there_while_a_playbook_runs_and_no_longer(hosts: Hosts) -> None:
    """By it `airflow-release begin` knows; nothing is reported as changed."""
    run = hosts.play(tasks=["guard"])
    assert run.returncode == 0, said(run)
    assert "changed=0" in said(run)
    [note] = hosts.notes("one")
    assert json.loads(note.read_text())["playbook"] == "Operate"
    assert note.stat().st_mode & 0o777 == 0o600
    note.unlink()
    run = hosts.play(tasks=["guard", "unguard"])
    assert run.returncode == 0, said(run)
    assert "changed=0" in said(run)
    assert hosts.notes("one") == []


@pytest.mark.parametrize("reason", ["check", "refused", "nothing changes", "bare", "operation"])
def test_no_note_of_what_does_not_change_the_host(hosts: Hosts, reason: str) -> None:
    if reason == "refused":
        hosts.journal("one")
    if reason == "bare":
        shutil.rmtree(hosts.home("one") / "releases")
    options = ["--check"] if reason == "check" else []
    variables: dict[str, Any] = {"nothing changes": {"upgrade_note": ""}, "operation": UPGRADE}.get(
        reason, {}
    )
    run = hosts.play(*options, tasks=["guard"], **variables)
    assert run.returncode == (2 if reason == "refused" else 0), said(run)
    assert hosts.notes("one") == []


def test_note_that_cannot_be_written_keeps_nobody_from_stopping_the_platform(hosts: Hosts) -> None:
    run = hosts.play(tasks=["guard"], upgrade_note="/proc/playbook.json")
    assert run.returncode == 0, said(run)


def test_operation_is_refused_while_a_playbook_changes_the_host(hosts: Hosts) -> None:
    """Before a vault has another key, for one; `begin` asks again."""
    path = hosts.note("one", ELSEWHERE)
    run = hosts.play(**UPGRADE)
    assert run.returncode == 2, said(run)
    assert "'Bring it up' changes one since 2026-11-26T09:00:05Z (process 1 on a-laptop)" in said(run)
    assert f"rm {path}" in said(run)
    assert hosts.calls("one") == []


@pytest.mark.parametrize(("control", "age"), [(GONE, 0), (ELSEWHERE, 14_500)])
def test_killed_playbook_keeps_no_operation_from_beginning(
    hosts: Hosts, control: dict[str, Any], age: float
) -> None:
    hosts.note("one", control, age=age)
    run = hosts.play(**UPGRADE)
    assert run.returncode == 0, said(run)
    assert "begin" in hosts.commands("one")
    # What of it is too old is removed by `begin`.
    assert bool(hosts.notes("one")) is bool(age)


@pytest.mark.parametrize(
    ("begun", "command", "control", "state", "says"),
    [
        (RESTORE, {**RESTORE, "backup": "B"}, GONE, "switching", "another one: restore backup=B."),
        (RESTORE, RESTORE, ELSEWHERE, "unconfirmed", "-e upgrade_take_over=an-id."),
        (RESTORE, RESTORE, ELSEWHERE, "prepared", "-e upgrade_take_over=an-id."),
        # Two releases of one version, as `upgrade.yml` makes them when the team changes its own files.
        (
            ROLLBACK,
            {**ROLLBACK, "release": OTHER},
            GONE,
            "switching",
            f"another one: rollback release={OTHER}.",
        ),
        (ROLLBACK, {**ROLLBACK, "release": ""}, GONE, "unconfirmed", "another one: rollback."),
    ],
)
def test_only_the_same_command_goes_on(
    hosts: Hosts, begun: dict[str, str], command: dict[str, str], control: Any, state: str, says: str
) -> None:
    """`restore -e backup=B` once finished an interrupted `backup=A`, and reported B's success."""
    hosts.journal("one", command=begun, kind=begun["kind"], id="an-id", state=state, control=control)
    run = hosts.play(**UPGRADE | {"upgrade_command": command})
    assert run.returncode == 2, said(run)
    assert " ".join([begun["kind"], *(f"{name}={begun[name]}" for name in begun if name != "kind")]) in said(
        run
    )
    assert says in said(run)
    assert hosts.calls("one") == []


def test_same_release_goes_on(hosts: Hosts) -> None:
    hosts.journal("one", command=ROLLBACK, kind="rollback", state="unconfirmed")
    run = hosts.play(**UPGRADE | {"upgrade_command": ROLLBACK})
    assert run.returncode == 0, said(run)
    assert "begin" not in hosts.commands("one")


@pytest.mark.parametrize("state", ["switching", "unconfirmed"])
def test_other_options_are_another_command(hosts: Hosts, state: str) -> None:
    """`upgrade_on_drain_timeout=terminate` was once ignored in silence, and the drain aborted."""
    kept = {"on_drain_timeout": "abort", "drain_timeout": 1800, "of_an_earlier_version": 1}
    hosts.journal("one", state=state, options=kept)
    run = hosts.play("--extra-vars=upgrade_on_drain_timeout=terminate", **UPGRADE)
    assert run.returncode == 2, said(run)
    assert "this command has upgrade_on_drain_timeout=terminate." in said(run)
    assert "-e upgrade_on_drain_timeout=abort" in said(run)
    assert "drain_timeout=1800" not in said(run)
    assert hosts.calls("one") == []


def test_same_options_in_another_form_are_the_same_command(hosts: Hosts) -> None:
    hosts.journal("one", state="unconfirmed", options={"start_timeout": 60, "drain_timeout": "1800"})
    run = hosts.play("--extra-vars=upgrade_start_timeout=060", **UPGRADE)
    assert run.returncode == 0, said(run)


@pytest.mark.parametrize("given", ["true", "false", "yes", "20260101T000000Z-upgrade-2.6.1"])
def test_take_over_wants_the_id_that_was_seen(hosts: Hosts, given: str) -> None:
    found = hosts.journal("one", control=ELSEWHERE, state="prepared")
    run = hosts.play(f"--extra-vars=upgrade_take_over={given}", **UPGRADE)
    assert run.returncode == 2, said(run)
    assert f"upgrade_take_over is '{given}'" in said(run)
    assert f"-e upgrade_take_over={found['id']}" in said(run)
    assert hosts.calls("one") == []


def test_taken_over_is_what_was_named(hosts: Hosts) -> None:
    found = hosts.journal("one", control=ELSEWHERE, state="prepared")
    run = hosts.play(f"--extra-vars=upgrade_take_over={found['id']}", **UPGRADE)
    assert run.returncode == 0, said(run)
    [begun] = [arguments for arguments, _ in hosts.calls("one") if arguments[0] == "begin"]
    assert begun[begun.index("--take-over") + 1] == found["id"]


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("upgrade/tasks/begin.yml", "begin"),
        ("upgrade/tasks/go_back.yml", "abandon"),
        ("airflow_release/tasks/take.yml", "take"),
    ],
)
def test_backup_under_way_is_awaited_however_long_it_takes(file: str, command: str) -> None:
    """A large database's takes hours; ten minutes were the limit once."""
    asked = [str(task.get("airflow_release", {}).get("arguments")) for task in load(ROOT / "roles" / file)]
    [arguments] = [text for text in asked if re.search(rf"\b{command}\b", text)]
    [wait] = re.findall(r"--wait\W+(\w+)", arguments)
    assert wait == "inf"


def test_operation_goes_to_its_end(hosts: Hosts) -> None:
    """With short polls, and every command for the operation that it began."""
    hosts.says("one", warnings=["the old database is kept as airflow_kept_1"])
    run = hosts.play(**UPGRADE)
    assert run.returncode == 0, said(run)
    commands = hosts.commands("one")
    assert [name for name in commands if name not in ("status", "wait")] == [
        *("begin", "health", "space", "start", "confirm")
    ]
    assert commands.count("wait") == 12, "each phase was not over when it was asked for first"
    waits = [arguments[2:] for arguments, _ in hosts.calls("one") if arguments[0] == "wait"]
    assert waits == [["--seconds", "20", "--json"]] * 12
    assert "WARNING: the old database is kept as airflow_kept_1" in said(run)


def test_interrupted_operation_is_gone_on_with_as_it_was_begun(hosts: Hosts) -> None:
    """Whatever the inventory says by now: the footer that is expected is that of the operation's version."""
    hosts.journal("one", state="unconfirmed")
    run = hosts.play("--extra-vars=airflow_version=2.6.1", **{**UPGRADE, "upgrade_target_version": "2.11.2"})
    assert run.returncode == 0, said(run)
    assert {"begin", "start", "rehearse"}.isdisjoint(hosts.commands("one"))
    assert hosts.operation("one")["state"] == "succeeded"


def test_switch_that_never_began_is_not_gone_on_with(hosts: Hosts) -> None:
    """Waiting for it would never end."""
    hosts.journal("one", done={})
    run = hosts.play(**UPGRADE)
    assert run.returncode == 2, said(run)
    assert "Give it up on the host: airflow-release abandon" in said(run)
    assert hosts.calls("one") == []


@pytest.mark.parametrize("state", ["switching", "unconfirmed", "reverting"])
def test_check_of_what_is_carried_out_is_refused(hosts: Hosts, state: str) -> None:
    """Its end was once the refusal of a release that served."""
    hosts.journal("one", state=state)
    run = hosts.play("--check", **UPGRADE)
    assert run.returncode == 2, said(run)
    assert "a check has nothing to look at until it is over" in said(run)
    assert hosts.calls("one") == []


def test_version_of_the_command_line_does_not_contradict_what_is_gone_on_with(hosts: Hosts) -> None:
    """It wins over every fact."""
    found = hosts.journal("one", state="unconfirmed")
    run = hosts.play("--extra-vars=airflow_version=2.11.2", **UPGRADE)
    assert run.returncode == 2, said(run)
    assert f"Leave -e airflow_version out: this continues {found['id']} to Airflow 2.6.1" in said(run)
    assert hosts.calls("one") == []


def test_replaced_operation_is_not_judged_by_another(hosts: Hosts) -> None:
    hosts.journal("one", id="another", state="unconfirmed")
    run = hosts.play(role="go_back", **UPGRADE | {"upgrade_id": "an-id", "upgrade_running_version": "2.5.3"})
    assert run.returncode == 2, said(run)
    assert "an-id on one was replaced by another; nothing was done" in said(run)
    assert hosts.commands("one") == ["status"]


@pytest.mark.parametrize(("file", "command"), [("follow", "wait"), ("go_back", "status")])
def test_poll_that_cannot_succeed_ends_at_once(hosts: Hosts, file: str, command: str) -> None:
    hosts.says("one", failing={command: "the journal cannot be read"})
    run = hosts.play(role=file, **UPGRADE | {"upgrade_phases": ["drain"]})
    assert run.returncode == 2, said(run)
    assert "the journal cannot be read" in said(run)
    assert hosts.commands("one") == [command]


def test_restore_goes_to_its_end(hosts: Hosts, tmp_path: Path) -> None:
    """By its own plays: what the first of them includes is unknown in the last."""
    backup = tmp_path / "a.tar"
    backup.write_text("a bundle")
    # As an operator names it: from where the command is started.
    hosts.says("one", examine=[0, json.dumps({"database": "bundle:/b/a.tar", "replaced": []})])
    run = hosts.restore(f"--extra-vars=backup={os.path.relpath(backup, ROOT)}")
    assert run.returncode == 0, said(run)
    commands = hosts.commands("one")
    assert [name for name in commands if name not in ("status", "wait", "phase")] == [
        *("examine", "examine", "begin", "health", "space", "rehearse", "start", "confirm")
    ]
    assert hosts.calls("one")[0][0][1] == str(tmp_path / "backups/uploaded/a.tar")
    assert not (tmp_path / "backups/uploaded").exists()


THREE_DAYS_AGO = datetime.now(UTC) - timedelta(days=3)
BUNDLES = {
    "bundles": ["/b/first.tar", "/b/second.tar", "/b/third.tar"],
    "created": f"{THREE_DAYS_AGO:%Y-%m-%dT%H:%M:%SZ}",
}
"""What the host answers to one question for `latest` after another."""


def test_latest_is_asked_for_once(hosts: Hosts) -> None:
    """A timer that took a backup between two questions once had another one restored than was examined."""
    hosts.says("one", **BUNDLES)
    run = hosts.restore("--extra-vars=backup=latest")
    assert run.returncode == 0, said(run)
    calls = [arguments for arguments, _ in hosts.calls("one")]
    assert [arguments[1] for arguments in calls if arguments[0] == "examine"] == ["latest", "/b/first.tar"]
    [begun] = [arguments for arguments in calls if arguments[0] == "begin"]
    assert begun[begun.index("--database") + 1] == "bundle:/b/first.tar"
    assert f"The backup: first.tar, made {BUNDLES['created']}, 3.0 days ago" in said(run)


def test_unconfirmed_restore_says_which_backup_latest_is(hosts: Hosts) -> None:
    """And how old it is: whoever confirms must know what they lose."""
    hosts.says("one", **BUNDLES)
    run = hosts.restore("--extra-vars=backup=latest", confirmed=False)
    assert run.returncode == 2, said(run)
    assert f"a restore replaces them with first.tar, made {BUNDLES['created']}, 3.0 days ago" in said(run)
    assert "-e confirm_host=one" in said(run)
    assert "begin" not in hosts.commands("one")


def test_check_of_a_restore_with_a_file_changes_nothing(hosts: Hosts, tmp_path: Path) -> None:
    """It always failed once, where the file was of the control node."""
    backup = tmp_path / "a.tar"
    backup.write_text("a bundle")
    hosts.says("one", examine=[0, json.dumps({"database": "bundle:/b/a.tar", "replaced": []})])
    run = hosts.restore("--check", f"--extra-vars=backup={backup}")
    assert run.returncode == 0, said(run)
    assert {"begin", "rehearse", "start"}.isdisjoint(hosts.commands("one"))
    assert not (tmp_path / "backups/uploaded").exists()


def test_file_of_the_same_name_is_another_backup(hosts: Hosts, tmp_path: Path) -> None:
    """`backup=dump.sql` from another directory once went on with the first, and reported its success."""
    (tmp_path / "other").mkdir()
    for path in ("dump.sql", "other/dump.sql"):
        (tmp_path / path).touch()
    first = {"kind": "restore", "backup": str(tmp_path / "dump.sql")}
    hosts.journal("one", kind="restore", state="unconfirmed", command=first)
    run = hosts.restore(f"--extra-vars=backup={tmp_path / 'other/dump.sql'}")
    assert run.returncode == 2, said(run)
    assert f"This command is another one: restore backup={tmp_path / 'other/dump.sql'}." in said(run)


@pytest.mark.parametrize("failing", ["", "wait"])
def test_upload_stays_as_long_as_a_resumed_restore_needs_it(
    hosts: Hosts, tmp_path: Path, failing: str
) -> None:
    hosts.journal("one", kind="restore", state="unconfirmed", command={"kind": "restore", "backup": "a.tar"})
    hosts.says("one", failing={failing: "the host is busy", "refuse": "the host is busy"} if failing else {})
    upload = tmp_path / "backups/uploaded/a.tar"
    upload.parent.mkdir(parents=True)
    upload.touch()
    run = hosts.restore("--extra-vars=backup=a.tar")
    assert run.returncode == (2 if failing else 0), said(run)
    assert upload.exists() is bool(failing)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("start_timeout", "5m", "upgrade_start_timeout is '5m'; whole seconds"),
        ("on_drain_timeout", "terminat", "upgrade_on_drain_timeout is 'terminat'"),
        ("outage_limit", "-1", "upgrade_outage_limit is '-1'"),
    ],
)
def test_wrong_option_is_refused_before_the_host_is_asked(
    hosts: Hosts, option: str, value: str, says: str
) -> None:
    """`5m` once failed in every attempt to go back, for ever."""
    run = hosts.play(f"--extra-vars=upgrade_{option}={value}", **UPGRADE)
    assert run.returncode == 2, said(run)
    assert says in said(run)
    assert hosts.calls("one") == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("upgrade_start_timout=5", "upgrade_start_timeout"),
        ("relase=a", "release"),
    ],
)
def test_mistyped_name_is_refused_with_the_one_that_was_meant(hosts: Hosts, given: str, meant: str) -> None:
    run = hosts.play(f"--extra-vars={given}", tasks=["guard"])
    assert run.returncode == 2, said(run)
    assert f"{given.split('=')[0]} is no variable of this project; {meant} is" in said(run)


@pytest.mark.parametrize(
    ("kind", "health", "space", "begins"),
    [
        ("restore", 1, 0, True),
        ("rollback", 1, 0, True),
        ("rotate", 1, 0, False),
        ("restore", 0, 1, False),
        ("rollback", 0, 1, False),
    ],
)
def test_cure_goes_on_where_the_platform_is_ill(
    hosts: Hosts, kind: str, health: int, space: int, begins: bool
) -> None:
    """Restoring and going back are what one does then; without disk nothing can be done."""
    hosts.says("one", health=[health, "the scheduler is ill"], space=[space, "no disk"])
    run = hosts.play(**UPGRADE | {"upgrade_kind": kind})
    assert (run.returncode == 0) is begins, said(run)
    assert ("start" in hosts.commands("one")) is begins
    assert ("the scheduler is ill" in said(run)) is bool(health)


@pytest.mark.parametrize(("names", "key"), [("fernet_key,redis_password", True), ("redis_password", False)])
@pytest.mark.parametrize("fits", [True, False])
def test_rotation_is_tried_first(hosts: Hosts, names: str, key: bool, fits: bool) -> None:
    """Every one, since each copies the database; where there is disk for it."""
    refused = {"check-rotation": "The switch would keep Airflow's pages away for about 7 h"}
    hosts.says("one", failing={} if fits else refused, **{"check-rotation": [0, "away for about 12 s"]})
    command = {"kind": "rotate", "rotate": names}
    run = hosts.play(role="assess", **UPGRADE | {"upgrade_kind": "rotate", "upgrade_command": command})
    assert run.returncode == (0 if fits else 2), said(run)
    assert ("about 12 s" if fits else "about 7 h") in said(run)
    assert hosts.commands("one") == ["health", "space", "check-rotation"]
    assert ("--fernet-key" in hosts.calls("one")[-1][0]) is key


def test_rotation_is_not_tried_without_disk(hosts: Hosts) -> None:
    hosts.says("one", space=[1, "no disk"])
    command = {"kind": "rotate", "rotate": "fernet_key"}
    run = hosts.play(role="assess", **UPGRADE | {"upgrade_kind": "rotate", "upgrade_command": command})
    assert run.returncode == 2, said(run)
    assert hosts.commands("one") == ["health", "space"]


def test_port_of_what_stays_ill_is_not_asked(hosts: Hosts) -> None:
    """The host has said of it that it was ill before, and a restore does not fail for want of it."""
    hosts.says("one", done={"begun": True, "still_ill": ["webhook"]})
    run = hosts.play(**UPGRADE | {"upgrade_kind": "restore"})
    assert run.returncode == 0, said(run)
    assert "asked but of ['webhook']" in said(run)


@pytest.mark.parametrize("database", ["copy", "database:airflow_kept_1"])
def test_another_database_is_rehearsed_whatever_the_kind(hosts: Hosts, database: str) -> None:
    run = hosts.play(**UPGRADE | {"upgrade_kind": "restore", "upgrade_database": database})
    assert run.returncode == 0, said(run)
    assert ("rehearse" in hosts.commands("one")) is (database != "copy")


def test_failure_goes_by_standard_input(hosts: Hosts) -> None:
    """A build log over 128 KiB once broke the way back: Argument list too long."""
    hosts.says("one", failing={"rehearse": "the image was not built\n\n" + "x" * 300_000})
    run = hosts.play(**UPGRADE | {"upgrade_database": "bundle:/b.tar"})
    assert run.returncode == 2
    [(arguments, given)] = [call for call in hosts.calls("one") if call[0][0] == "abandon"]
    assert arguments == ["abandon", "--wait", "inf", "--operation", "id-of-this", "--reason-from-stdin"]
    reason = json.loads(given)
    assert reason["message"] == "Rehearse: the image was not built"
    assert len(reason["log"]) > 300_000
    assert "Nothing that runs was changed; Airflow 2.5.3 serves as before." in said(run)


def test_failed_phase_ends_in_its_words(hosts: Hosts) -> None:
    hosts.says("one", failed_phase="migrate")
    run = hosts.play(**UPGRADE)
    assert run.returncode == 2
    assert "migrate failed: no disk" in said(run)
    assert "start" not in [arguments[1] for arguments, _ in hosts.calls("one") if arguments[0] == "wait"]


def test_failure_after_the_confirmation_is_a_warning(hosts: Hosts) -> None:
    """Nobody goes back from what is confirmed, and the end of the command says what failed all the same."""
    hosts.says("one", failed_phase="end")
    run = hosts.play(**UPGRADE)
    assert run.returncode == 0, said(run)
    assert (
        "WARNING: Airflow 2.6.1 runs and is confirmed, although this failed afterwards: "
        "follow | Check that all of it went well: end failed: no disk"
    ) in said(run)
    assert {"refuse", "abandon"}.isdisjoint(hosts.commands("one"))
    assert hosts.operation("one")["state"] == "succeeded"


@pytest.mark.parametrize("failing", [["one"], ["two"]])
def test_failure_of_one_host_is_that_hosts_own(tmp_path: Path, failing: list[str]) -> None:
    """Both rescues once broke over `ansible_failed_task`, and neither host was told to go back."""
    hosts = Hosts(tmp_path, "one", "two")
    hosts.inventory(**{name: {"the_run_passes": False} for name in failing})
    run = hosts.play(**UPGRADE)
    assert run.returncode == 2
    assert "is undefined" not in said(run)
    states = {
        name: hosts.operation(name)["state"]
        for name in ("one", "two")
        if (hosts.home(name) / "releases/operation.json").exists()
    }
    assert states == ({"one": "reverted"} if failing == ["one"] else {"one": "succeeded", "two": "reverted"})
    assert "Run it: the run failed" in hosts.operation(failing[0])["failure"]["message"]


PIN = "airflow_version: 2.5.3"
OWN, SHARED = "host_vars/one.yml", "group_vars/airflow.yml"
RUNNING = {"upgrade_running_version": "2.5.3"}


@pytest.mark.parametrize(
    ("names", "pins", "written"),
    [
        (("one",), [OWN], [OWN]),
        (("one",), ["host_vars/one/main.yml"], ["host_vars/one/main.yml"]),
        (("one",), [SHARED], [SHARED]),
        (("one",), ["group_vars/airflow/main.yml"], ["group_vars/airflow/main.yml"]),
        (("one", "two"), [OWN, "host_vars/two.yml"], [OWN]),
        (("one", "two"), [SHARED], []),
        (("one", "two"), [SHARED, OWN], [OWN]),
        (("one", "two"), ["group_vars/all.yml", "host_vars/two.yml"], []),
        (("one", "one-more"), ["host_vars/one-more.yml"], []),
        (("one",), [], []),
    ],
)
def test_pin_is_written_where_it_is_for_this_host_alone(
    tmp_path: Path, names: tuple[str, ...], pins: list[str], written: list[str]
) -> None:
    """`-l staging` once changed host_vars/prod.yml."""
    hosts = Hosts(tmp_path, *names)
    hosts.journal("one", state="succeeded")
    for pin in pins:
        (tmp_path / "inventory" / pin).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "inventory" / pin).write_text(f"---\n{PIN}\n")
    run = hosts.play("--limit=one", role="publish", **UPGRADE | RUNNING)
    assert run.returncode == 0, said(run)
    changed = [pin for pin in pins if PIN not in (tmp_path / "inventory" / pin).read_text()]
    assert changed == written
    if not written:
        file = tmp_path / "inventory/host_vars/one.yml"
        assert f"Write this line into {file}: airflow_version: 2.6.1" in said(run)


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_host_knows_what_the_inventory_asks_for(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Where the pin could not be written, what the host knew stays, and the checker tells of it."""
    hosts = Hosts(tmp_path, *names)
    known = hosts.home("one") / "status/inventory.json"
    known.write_text('{"airflow_version": "2.5.3"}')
    (tmp_path / "inventory" / SHARED).parent.mkdir()
    (tmp_path / "inventory" / SHARED).write_text(f"---\n{PIN}\n")
    run = hosts.play("--limit=one", **UPGRADE)
    assert run.returncode == 0, said(run)
    assert json.loads(known.read_text()) == {"airflow_version": "2.6.1" if names == ("one",) else "2.5.3"}


@pytest.mark.parametrize("shared", [True, False])
def test_pin_that_is_right_is_no_warning(tmp_path: Path, shared: bool) -> None:
    """The inventory says that version already, or nothing does and it is the one of before."""
    hosts = Hosts(tmp_path, "one", "two")
    hosts.journal("one", state="succeeded")
    if shared:
        (tmp_path / "inventory/group_vars").mkdir()
        (tmp_path / "inventory" / SHARED).write_text('---\nairflow_version: "2.6.1" # as tested\n')
    running = "2.5.3" if shared else "2.6.1"
    run = hosts.play("--limit=one", role="publish", **UPGRADE, upgrade_running_version=running)
    assert run.returncode == 0, said(run)
    assert "WARNING: the inventory" not in said(run)


@needs("chattr", root=True)
def test_pin_that_cannot_be_written_is_a_warning(hosts: Hosts, tmp_path: Path) -> None:
    """A read-only inventory once turned a success into `The way back is not done`."""
    hosts.journal("one", state="succeeded")
    pin = tmp_path / "inventory/host_vars/one.yml"
    pin.parent.mkdir()
    pin.write_text(f"---\n{PIN}\n")
    # Mode bits do not stop root.
    if subprocess.run(["chattr", "+i", str(pin)], capture_output=True, check=False).returncode:
        missing("the file system of the tests has no immutable files")
    try:
        run = hosts.play(role="publish", **UPGRADE | RUNNING)
    finally:
        subprocess.run(["chattr", "-i", str(pin)], check=True)
    assert run.returncode == 0, said(run)
    assert f"Write this line into {pin}: airflow_version: 2.6.1" in said(run)
    assert PIN in pin.read_text()


def test_preflight_knows_the_facts_that_plays_set() -> None:
    """One that is missing in the list would be refused as mistyped in a later play."""
    roles = [path.name for path in (ROOT / "roles").iterdir()]
    options = {
        name
        for role in roles
        for entry in load(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"].values()
        for name in entry.get("options", {})
    }

    def facts(value: Any) -> set[str]:
        if isinstance(value, list):
            return {name for child in value for name in facts(child)}
        if not isinstance(value, dict):
            return set()
        own = {value["register"]} if "register" in value else set()
        return own | set(value.get("ansible.builtin.set_fact", {})) | facts(list(value.values()))

    files = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    found = {name for path in files for name in facts(yaml.safe_load(path.read_text(encoding="utf-8")))}
    public = {name for name in found if name.startswith(tuple(f"{role}_" for role in roles))}
    assert sorted(public - options) == load(ROOT / "roles/preflight/vars/main.yml")["__preflight_facts"]
