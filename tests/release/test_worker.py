"""A worker on another host that is to leave: it is told again and again, and its tasks are waited for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow_release import cli
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.switch import drain, worker

from tests.release.platform_model import CONTAINERS, PlatformModel, World
from tests.release.test_switch import OLD, render

SILENCE = {"answers": False}
TASK = "dag.task (run), running"


def having(messages: int) -> dict[str, Any]:
    """Return the answer of a worker that has so many messages."""
    return {"answers": True, "messages": messages}


class Worker:
    """What the worker answers, time after time, and what it was asked by."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []


@pytest.fixture
def told() -> Worker:
    return Worker()


@pytest.fixture
def platform(tmp_path: Path, told: Worker, monkeypatch: pytest.MonkeyPatch) -> PlatformModel:
    host = PlatformModel(tmp_path / "srv", tmp_path / "backups")
    host.world_of(World(databases={"airflow": {"revision": "any"}}, running=dict.fromkeys(CONTAINERS, OLD)))
    render(host.directory, OLD)
    others = PlatformModel._exec

    def execute(self: PlatformModel, project: Path, services: list[str], command: list[str]) -> str:
        if "drain-worker" not in command:
            return others(self, project, services, command)
        told.asked.append(command[command.index("exec") + 1 :])
        answer = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
        return answer if isinstance(answer, str) else f"a warning\n{json.dumps(answer)}\n"

    monkeypatch.setattr(PlatformModel, "_exec", execute)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0)
    return host


def test_it_is_over_when_neither_celery_nor_the_database_has_a_task(
    platform: PlatformModel, told: Worker
) -> None:
    told.answers = [having(2), having(0), SILENCE, having(0)]
    platform.world.tasks = [TASK, TASK, "", ""]
    standing = worker.drain_worker(platform, "atd-worker01", 60)
    assert standing == worker.Standing(
        True, "atd-worker01 takes no more tasks, and has ended all that it had"
    )
    # Each time: it may have restarted since.
    assert told.asked == [["--no-TTY", "airflow-scheduler", "drain-worker", "atd-worker01"]] * 4


@pytest.mark.parametrize(
    ("answer", "tasks", "over", "said"),
    [
        (having(1), "", False, "takes no more tasks, and still has 1"),
        (having(0), TASK, False, f"takes no more tasks, and still has 1: {TASK}"),
        (having(0), "", True, "takes no more tasks, and has ended all that it had"),
        (SILENCE, TASK, False, f"has not answered for 0 s, and 1 tasks of it have a heartbeat: {TASK}"),
        (SILENCE, "", True, "has not answered for 0 s, and no task of it has a heartbeat"),
    ],
)
def test_one_question_says_how_far_it_is(
    platform: PlatformModel,
    told: Worker,
    capsys: pytest.CaptureFixture[str],
    answer: dict[str, Any],
    tasks: str,
    over: bool,
    said: str,
) -> None:
    told.answers = [answer]
    platform.world.tasks = [tasks]
    arguments = cli.parser().parse_args(["drain-worker", "w1", "--seconds=0", "--json"])
    assert arguments.run(platform, arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"over": over, "said": f"w1 {said}"}
    platform.world.tasks = [tasks]
    arguments.json = False
    assert arguments.run(platform, arguments) == (0 if over else 1)


def test_stopped_platform_cannot_tell_a_worker(platform: PlatformModel) -> None:
    platform.world.running.clear()
    with pytest.raises(ReleaseError, match=r"No scheduler runs.*airflow-release up"):
        worker.drain_worker(platform, "w1", 0)


@pytest.mark.parametrize("answer", ["", "Killed", "{}", "[]"])
def test_answer_of_another_kind_is_an_error(platform: PlatformModel, told: Worker, answer: str) -> None:
    told.answers = [answer]
    with pytest.raises(ReleaseError, match="telling the worker w1 to take no more tasks gave no answer"):
        worker.drain_worker(platform, "w1", 0)


@pytest.mark.parametrize("name", ["", "-x", "w1'", "w1' OR 'a' = 'a", "w1\n"])
def test_name_is_that_of_a_host(name: str) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["drain-worker", name])


TASKS = """
CREATE TABLE job (id integer, latest_heartbeat timestamptz);
INSERT INTO job VALUES (1, now()), (2, now() - interval '1 hour');
CREATE TABLE task_instance
  (dag_id text, task_id text, run_id text, state text, job_id integer, hostname text);
INSERT INTO task_instance VALUES
  ('d', 'runs', 'r', 'running', 1, 'w1'), ('d', 'elsewhere', 'r', 'running', 1, 'w2'),
  ('d', 'lost', 'r', 'running', 2, 'w1'), ('d', 'ended', 'r', 'success', 1, 'w1'),
  ('d', 'waits', 'r', 'queued', 1, '');
"""


def test_tasks_are_those_of_the_worker_that_have_a_process(host: Host, database: Database) -> None:
    database.sql(TASKS)
    assert drain.under_way(database, of_worker="w1") == ["d.runs (r), running"]
    assert drain.under_way(database) == ["d.elsewhere (r), running", "d.runs (r), running"]
    assert len(drain.under_way(database, queued=True)) == 3
