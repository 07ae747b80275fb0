"""A worker leaves with `-e remove_worker`, once its tasks have ended; one that only disappears is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ROOT, load
from tests.policy.operations import Hosts, said

PROGRAM = """#!/bin/bash
echo "$@" >>"{home}/drained"
if [[ -e {home}/failing ]]; then
  echo "No scheduler runs" >&2
  exit 3
fi
if [[ $(wc -l <"{home}/drained") -ge {asked} ]]; then
  echo '{{"over": true, "said": "w2 has ended all that it had"}}'
else
  echo '{{"over": false, "said": "w2 still has 1"}}'
fi
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """A main host that lets in the workers w1 and w2, of which w2 ends its tasks by the third question."""
    hosts = Hosts(tmp_path, "one")
    (hosts.home("one") / "worker-gateway").mkdir()
    (hosts.home("one") / "worker-gateway/workers.map").write_text(f"{'ab' * 32} w1\n{'cd' * 32} w2\n")
    hosts.program("airflow-release", PROGRAM.format(home=hosts.home("one"), asked=3))
    return hosts


def remove(
    hosts: Hosts, name: str, *workers: str, check: bool = False, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the task file as site.yml does, with these workers in the inventory."""
    inventory = hosts.folder / "inventory/workers.yml"
    listed = {worker: {"ansible_connection": "local"} for worker in workers}
    inventory.write_text(f"airflow_workers: {{hosts: {listed}}}\n")
    options = [f"--extra-vars=remove_worker={name}", *(["--check"] if check else [])]
    given = {
        "preflight_removed_worker": load(ROOT / "playbooks/site.yml")[0]["vars"]["preflight_removed_worker"]
    }
    return hosts.play(*options, tasks=["remove_worker"], **given, **variables)


def drained(hosts: Hosts) -> list[str]:
    path = hosts.home("one") / "drained"
    return path.read_text().splitlines() if path.exists() else []


def test_worker_is_asked_until_its_tasks_have_ended(hosts: Hosts) -> None:
    run = remove(hosts, "w2", "w1")
    assert run.returncode == 0, said(run)
    assert drained(hosts) == ["drain-worker w2 --seconds 20 --json"] * 3
    assert "w2 has ended all that it had" in said(run)


def test_time_is_over_when_the_operator_says_so(hosts: Hosts) -> None:
    run = remove(hosts, "w2", "w1", worker_drain_timeout=-1)
    assert run.returncode != 0
    assert len(drained(hosts)) == 1
    for words in ("The worker is not removed: w2 still has 1", "worker_drain_timeout", "airflow_workers"):
        assert words in said(run)


def test_question_that_fails_is_not_asked_again(hosts: Hosts) -> None:
    (hosts.home("one") / "failing").touch()
    run = remove(hosts, "w2", "w1")
    assert run.returncode != 0
    assert len(drained(hosts)) == 1
    assert "No scheduler runs" in said(run)


def test_check_mode_tells_no_worker(hosts: Hosts) -> None:
    run = remove(hosts, "w2", "w1", check=True)
    assert run.returncode == 0, said(run)
    assert drained(hosts) == []


@pytest.mark.parametrize(
    ("removed", "workers", "words"),
    [
        ("w2", ["w1", "w2"], "take its line out of the group first. To keep it, leave -e remove_worker out"),
        ("w3", ["w1", "w2"], "lets in no worker of that name: w1, w2. Correct the name"),
        ("w2", [], "lets in w1, and the inventory's group airflow_workers has no such host"),
        (
            "",
            ["w1"],
            "lets in w2, and the inventory's group airflow_workers has no such host. To remove a worker",
        ),
        ("", ["w1"], "site.yml -e remove_worker=w2 To keep it, put its line back into the group"),
    ],
)
def test_other_names_are_refused_before_a_worker_is_told(
    hosts: Hosts, removed: str, workers: list[str], words: str
) -> None:
    run = remove(hosts, removed, *workers)
    assert run.returncode != 0
    assert words in said(run)
    assert "Nothing was changed." in said(run)
    assert drained(hosts) == []


def test_preflight_looks_at_the_workers_and_site_alone_removes_one() -> None:
    """An operation renders the gateway, too, and tells no worker to end its tasks."""
    main = load(ROOT / "roles/preflight/tasks/main.yml")
    assert "workers.yml" in [task["ansible.builtin.import_tasks"] for task in main]
    for playbook in sorted((ROOT / "playbooks").glob("*.yml")):
        uses = "remove_worker" in playbook.read_text(encoding="utf-8")
        assert uses == (playbook.name == "site.yml"), playbook.name
    [play] = load(ROOT / "playbooks/site.yml")[:1]
    [_, removing, _] = play["pre_tasks"]
    assert removing["ansible.builtin.include_tasks"] == "tasks/remove_worker.yml"


LONG_AFTER = """#!/bin/bash
rm --force {home}/releases/playbook-*.json
echo '{operation}' >{home}/releases/operation.json
echo '{{"over": true, "said": "w2 has ended all that it had"}}'
"""


@pytest.mark.parametrize("state", ["prepared", "abandoned"])
def test_operation_that_began_while_tasks_ended_is_not_disturbed(hosts: Hosts, state: str) -> None:
    """A run's note counts for hours, and tasks may take days: it is there anew, or the run ends."""
    home = hosts.home("one")
    operation = json.dumps(hosts.journal("one", state=state))
    (home / "releases/operation.json").unlink()
    hosts.program("airflow-release", LONG_AFTER.format(home=home, operation=operation))
    (hosts.folder / "inventory/workers.yml").write_text("airflow_workers: {hosts: {w1: {}}}\n")
    before = [
        task["ansible.builtin.include_tasks"].removeprefix("tasks/").removesuffix(".yml")
        for task in load(ROOT / "playbooks/site.yml")[0]["pre_tasks"]
    ]
    run = hosts.play("--extra-vars=remove_worker=w2", tasks=before, preflight_removed_worker="w2")
    assert "w2 has ended all that it had" in said(run)
    active = state == "prepared"
    assert (run.returncode != 0) == ("An operation is active on one" in said(run)) == active, said(run)
    assert len(hosts.notes("one")) == (not active)
