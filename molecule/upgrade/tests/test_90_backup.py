"""A backup that was made under load, onto an empty host; what is damaged or too new is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow_api import log_in, wait_for
from control_node import ControlNode
from long_tests import when_asked
from platform_host import BACKUPS, DIRECTORY, Platform
from snapshot import Snapshot

from tests.releases import NEWEST

CONFIRMED = "--extra-vars=confirm_host=atd-data03"
WRITERS = 3
LOAD = "load_"


class Load:
    """People at work: variables that are made as fast as the API takes them."""

    def __init__(self, address: str, login: tuple[str, str]) -> None:
        """Write nothing yet."""
        self.acknowledged: list[str] = []
        self._address = address
        self._url = f"{address}/api/v1/variables"
        self._login = login
        self._over = threading.Event()

    def _write(self, writer: int) -> None:
        with log_in(self._address, self._login) as session:
            number = 0
            while not self._over.is_set():
                key = f"{LOAD}{writer}_{number:04}"
                number += 1
                session.post(self._url, json={"key": key, "value": key}, timeout=30).raise_for_status()
                self.acknowledged.append(key)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Write while the block runs."""
        threads = [threading.Thread(target=self._write, args=(writer,)) for writer in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)


@dataclass
class Committed:
    """What there was before a backup began: before more came, and what was acknowledged of that."""

    history: Snapshot
    keys: list[str]


@pytest.fixture(scope="module")
def committed(
    platform: Platform, control: ControlNode, endpoints: dict[str, str], administrator: tuple[str, str]
) -> Committed:
    """A backup that was made while people were at work, with what it must hold. About 30 s."""
    history = platform.snapshot()
    load = Load(endpoints["airflow"], administrator)
    with load.applied():
        wait_for("people to be at work", lambda: len(load.acknowledged) > 20, 60)
        keys = list(load.acknowledged)
        control.run("backup.yml").succeeded()
    assert len(load.acknowledged) > len(keys), "nothing was written while the backup was made"
    return Committed(history, keys)


def newest(platform: Platform) -> str:
    """Return the newest bundle's path."""
    [bundle, *_] = json.loads(platform.check("airflow-release backup list --json"))
    return f"{BACKUPS}/{bundle['name']}"


def test_backup_is_listed_and_whole(platform: Platform, committed: Committed) -> None:
    """It was restored and compared when it was made; here once more."""
    platform.check("airflow-release backup check latest --deep")


def test_copies_elsewhere_are_those_here(platform: Platform, committed: Committed) -> None:
    """Also of the backups that the switches before have made, which did not wait for the remote.

    What the host has of its time before it was production stays here.
    """
    here = json.loads(platform.check("airflow-release backup list --json"))
    own = [bundle["name"] for bundle in here if bundle["manifest"]["environment"] == "production"]
    assert len(own) > 1
    there = json.loads(platform.check("airflow-release backup list --remote --json"))
    assert there == own


@pytest.mark.parametrize(
    "damage",
    [
        "truncate --size=-100000 {copy}",
        "printf X | dd of={copy} bs=1 seek=$(($(stat --format=%s {copy}) / 2)) conv=notrunc status=none",
    ],
    ids=["truncated", "altered"],
)
def test_damaged_bundle_is_refused(
    platform: Platform, control: ControlNode, committed: Committed, damage: str
) -> None:
    """By the check and by the restore, which begins nothing. About 20 s each."""
    copy = f"{DIRECTORY}/damaged.tar"
    platform.check(f"cp {newest(platform)} {copy}")
    platform.check("bash -c %s", damage.format(copy=copy))
    containers = platform.containers()
    operation = platform.operation()
    try:
        checked = platform.run(f"airflow-release backup check {copy}")
        assert checked.rc == 1, checked.stdout
        assert "not a complete backup" in checked.stderr
        control.run("restore.yml", f"--extra-vars=backup={copy}", CONFIRMED).failed("not a complete backup")
    finally:
        platform.check(f"rm {copy}")
    assert platform.containers() == containers
    assert platform.operation() == operation


@pytest.mark.starts_on(NEWEST)
def test_restore_brings_the_platform_back_on_an_empty_host(
    platform: Platform, control: ControlNode, committed: Committed
) -> None:
    """From the copy elsewhere: the history, and all that was committed before the backup. About 240 s."""
    containers = platform.containers()
    listed = control.run("playbooks/destroy.yml", CONFIRMED, "--check").succeeded().output
    assert "/srv/airflow/docker-compose.yaml" in listed
    assert platform.containers() == containers
    control.run("playbooks/destroy.yml", CONFIRMED).succeeded()
    assert not platform.host.file(f"{DIRECTORY}/docker-compose.yaml").exists
    control.run("playbooks/destroy.yml", CONFIRMED).succeeded()  # what is gone is no error
    platform.host.check_output(f"rm --recursive {BACKUPS}")  # which destroy.yml leaves
    # A new host has read no list of packages yet, and has no rclone.
    platform.host.check_output("apt-get remove --yes --quiet rclone")
    platform.host.check_output("find /var/lib/apt/lists -type f -delete")
    control.run("restore.yml", "--extra-vars=backup=latest", CONFIRMED, seconds=900).succeeded()
    platform.wait_until_healthy()
    assert platform.version == NEWEST
    after = platform.snapshot()
    assert set(committed.keys) - after.tables["variable"].keys() == set()
    assert committed.history.differences(without_load(after)) == []
    platform.pulse_goes_on()


@when_asked
@pytest.mark.starts_on(NEWEST)
def test_restore_takes_a_dump_made_by_hand(platform: Platform, control: ControlNode, tmp_path: Path) -> None:
    """The plain SQL of the team's page of manual steps, brought from the control node. About 150 s."""
    before = platform.snapshot()
    dump = tmp_path / "by-hand.sql"
    dump.write_text(
        platform.check("docker compose exec --no-TTY postgres pg_dump --username=airflow airflow")
    )
    platform.airflow.call("POST", "variables", json={"key": "after_the_dump", "value": "is lost"})
    containers = platform.containers()
    control.run("restore.yml", f"--extra-vars=backup={dump}", CONFIRMED, "--check").succeeded()
    assert platform.containers() == containers
    # One restores when something is wrong.
    platform.check("docker compose stop airflow-scheduler")
    control.run("restore.yml", f"--extra-vars=backup={dump}", CONFIRMED, seconds=900).succeeded()
    platform.wait_until_healthy()
    after = platform.snapshot()
    assert "after_the_dump" not in after.tables["variable"]
    assert before.differences(after) == []


def without_load(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without the variables that were made while the backup was."""
    variables = {key: value for key, value in snapshot.tables["variable"].items() if not key.startswith(LOAD)}
    return Snapshot({**snapshot.tables, "variable": variables})
