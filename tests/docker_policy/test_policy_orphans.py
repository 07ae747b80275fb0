"""Containers whose worker is gone are stopped, and no other: a task may still wait for it."""

from __future__ import annotations

import io
import json
import threading
from typing import Any, cast

import pytest
from docker_policy.engine import _objects
from docker_policy.errors import RefusedError
from docker_policy.settings import MAKERS_LABEL, OWNER_LABEL, TASK_LABEL

from tests.docker_policy.attacks import operator
from tests.docker_policy.conftest import OWNED, Wired
from tests.docker_policy.fake_docker import Container

LATER = "2026-01-01T00:00:09.2Z"


def worker(wired: Wired, name: str = "worker") -> Container:
    """Put a container there that reaches the filter."""
    found = wired.docker.put(name, {"com.docker.compose.project": "airflow"})
    found.place = str(wired.path.parent)
    return found


def make(wired: Wired, maker: Container | None = None, **changes: Any) -> Container:
    """Make a container as a task does; an older worker does not say who it is."""
    headers = {"Airflow-Task": "knack/etl"}
    if maker:
        headers["Airflow-Worker"] = maker.host_name
    answer = wired.ask("POST", "/containers/create", operator(**changes), headers)
    assert answer.status == 201, answer.body
    return wired.docker.containers[json.loads(answer.body)["Id"]]


def restart(container: Container) -> None:
    """Start a container anew."""
    container.running, container.started_at = True, LATER


def test_container_of_a_worker_that_died_is_stopped_and_said(
    wired: Wired, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the worker is back or not: in the same container or in a new one, or not at all."""
    first = worker(wired)
    orphan = make(wired, first)
    restart(first)
    wired.filter.orphans.sweep()
    assert not orphan.running
    assert f"POST /containers/{orphan.identity}/stop" in wired.docker.calls
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [line] = [line for line in lines if line["event"] == "orphan"]
    assert {**line, "time": 0} == {
        **{"time": 0, "event": "orphan", "dag": "knack", "task": "etl", "container": orphan.name},
        **{"image": "atddocker/etl:production", "status": 204, "message": "its worker is gone: stopped"},
    }
    second = make(wired, first)
    first.running = False
    wired.filter.orphans.sweep()
    assert not second.running


def test_container_of_a_living_worker_goes_on(wired: Wired) -> None:
    """However often is looked, and whoever else starts anew."""
    first, other = worker(wired), worker(wired, "other")
    made = make(wired, first)
    restart(other)
    for _ in range(3):
        wired.filter.orphans.sweep()
    assert made.running


def test_each_of_two_workers_has_its_own(wired: Wired) -> None:
    first, second = worker(wired), worker(wired, "second")
    of_first, of_second = make(wired, first), make(wired, second)
    restart(first)
    wired.filter.orphans.sweep()
    assert (of_first.running, of_second.running) == (False, True)


@pytest.mark.parametrize("named", [None, Container("e" * 64, "nobody")], ids=["no name", "another name"])
def test_container_of_an_unknown_maker_stays_as_long_as_anybody_who_can_be_it(
    wired: Wired, named: Container | None
) -> None:
    """A task may ask without the platform's header, or with one of its own."""
    first, second = worker(wired), worker(wired, "second")
    made = make(wired, named)
    restart(first)
    wired.filter.orphans.sweep()
    assert made.running
    restart(second)
    wired.filter.orphans.sweep()
    assert not made.running


def test_container_that_nobody_can_have_made_is_left(wired: Wired) -> None:
    """As one of an earlier filter, which has no label."""
    earlier, made = wired.docker.put("earlier", OWNED), make(wired)
    wired.filter.orphans.sweep()
    assert earlier.running
    assert made.running
    assert MAKERS_LABEL not in made.labels


def test_filter_and_containers_of_dags_make_none(wired: Wired) -> None:
    """The filter has the volume, too; a DAG's container may have a volume of its own at that place."""
    first, itself, disguised = worker(wired), worker(wired, "filter"), worker(wired, "disguised")
    itself.docker_socket = True
    disguised.labels = dict(OWNED)
    made = make(wired)
    assert made.labels[MAKERS_LABEL] == f"{first.identity[:12]}@{first.started_at}"


@pytest.mark.parametrize("label", [MAKERS_LABEL, TASK_LABEL])
def test_dag_sets_no_label_of_it(wired: Wired, label: str) -> None:
    first = worker(wired)
    answer = wired.ask("POST", "/containers/create", operator(Labels={label: "x"}))
    assert answer.status == 403
    made = make(wired, first, Labels={"team": "knack"})
    assert made.labels["team"] == "knack"
    assert made.labels[OWNER_LABEL] == "true"
    assert made.labels[TASK_LABEL] == "knack/etl"


def test_nothing_is_stopped_when_docker_does_not_say_who_runs(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of which Docker says nothing at the moment is no worker that is gone."""
    first = worker(wired)
    made = make(wired, first)
    real = wired.filter.engine.ask

    def ask(method: str, target: str) -> tuple[int, Any]:
        return (500, None) if first.identity in target else real(method, target)

    monkeypatch.setattr(wired.filter.engine, "ask", ask)
    with pytest.raises(RefusedError):
        wired.filter.orphans.sweep()
    assert made.running


def test_large_labels_of_a_dag_keep_nobody_from_anything(wired: Wired) -> None:
    """A list has all labels of all containers; one of them may even be at the place of a client."""
    first = worker(wired)
    made = [make(wired, first, Labels={"x": "\u00e9<" * 120_000}) for _ in range(6)]
    made[0].place = str(wired.path.parent)
    assert make(wired, first).labels[MAKERS_LABEL] == f"{first.identity[:12]}@{first.started_at}"
    restart(first)
    wired.filter.orphans.sweep()
    assert not any(each.running for each in made)


def test_container_that_docker_cannot_stop_keeps_no_other(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = worker(wired)
    stuck, other = make(wired, first), make(wired, first)
    restart(first)
    real = wired.filter.engine.ask

    def ask(method: str, target: str) -> tuple[int, Any]:
        if stuck.identity in target:
            raise RefusedError("Docker gives no answer: TimeoutError", status=503)
        return real(method, target)

    monkeypatch.setattr(wired.filter.engine, "ask", ask)
    wired.filter.orphans.sweep()
    assert not other.running
    assert f"stopping {stuck.identity[:12]}, whose worker is gone: Docker gives no" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{}", "[{}", "[]x", ""])
def test_what_is_no_list_is_no_list_without_containers(text: str) -> None:
    """Else every container of a DAG would be one whose worker is gone."""
    with pytest.raises(ValueError, match="no list"):
        list(_objects(cast(Any, io.BytesIO(text.encode()))))
    assert list(_objects(cast(Any, io.BytesIO(b'[{"a":[{}]},\n{}]\n')))) == [{"a": [{}]}, {}]
    assert list(_objects(cast(Any, io.BytesIO(b"[]\n")))) == []


@pytest.mark.parametrize("fails", [RefusedError("Docker does not answer", status=503), KeyError("Labels")])
def test_watch_goes_on_after_a_failure(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, fails: Exception
) -> None:
    monkeypatch.setattr("docker_policy.orphans.SWEEP_SECONDS", 0.01)
    over, found = threading.Event(), []

    def sweep() -> None:
        found.append(1)
        if len(found) == 1:
            raise fails
        over.set()

    monkeypatch.setattr(wired.filter.orphans, "sweep", sweep)
    wired.filter.orphans.watch(over)
    assert len(found) == 2
