"""The module that runs a DAG: what it waits for, what it leaves behind, and what it says of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow_dag_run import Dag, RunError
from ansible.module_utils import airflow_login
from ansible.module_utils.airflow_login import LoginError
from flask import Flask, redirect, request

from tests.served import served

QUICK = 0.3
"""Seconds to wait for what will not come."""


@dataclass
class Airflow:
    """Airflow's API with one DAG, whose runs go on by one state at each look."""

    paused: bool = False
    unknown_for: int = 0
    states: list[str] = field(default_factory=lambda: ["queued", "running", "success"])
    others: int = 0
    refuse_runs: bool = False
    closed_for: int = 0
    closed_with: int = 503
    logins: int = 0
    log: list[str] = field(default_factory=list)
    runs: dict[str, Any] = field(default_factory=dict)

    def app(self) -> Flask:
        """Return its pages."""
        app = Flask(__name__)

        @app.before_request
        def endpoint() -> Any:
            if not self.closed_for:
                return None
            self.closed_for -= 1
            return "Back in a moment", self.closed_with

        @app.before_request
        def session() -> Any:
            assert request.authorization is None
            if request.path.startswith("/api/") and request.cookies.get("session") != "known":
                return {"title": "Unauthorized"}, 401
            return None

        @app.get("/login/")
        def form() -> Any:
            return '<input id="csrf_token" name="csrf_token" type="hidden" value="t0ken">'

        @app.post("/login/")
        def login() -> Any:
            self.logins += 1
            good = request.form.to_dict() == {
                "username": "smoke-test",
                "password": "secret",
                "csrf_token": "t0ken",
            }
            answer = redirect("/home" if good else "/login/")
            answer.set_cookie("session", "known" if good else "stranger")
            return answer

        @app.get("/api/v1/dags/weather")
        def described() -> Any:
            if self.unknown_for:
                self.unknown_for -= 1
                return {"title": "DAG not found"}, 404
            return {"dag_id": "weather", "is_paused": self.paused}

        @app.patch("/api/v1/dags/weather")
        def change() -> Any:
            self.paused = request.json["is_paused"]
            self.log.append("paused" if self.paused else "released")
            return {}

        @app.post("/api/v1/dags/weather/dagRuns")
        def trigger() -> Any:
            if self.refuse_runs:
                return {"detail": "no runs today"}, 400
            self.log.append("triggered")
            self.runs[request.json["dag_run_id"]] = request.json
            return {**request.json, "state": "queued"}

        @app.get("/api/v1/dags/weather/dagRuns")
        def under_way() -> Any:
            assert request.args.getlist("state") == ["queued", "running"]
            self.others = max(self.others - 1, 0)
            names = [*self.runs, *(f"scheduled__{number}" for number in range(self.others))]
            return {"dag_runs": [{"dag_run_id": name} for name in names], "total_entries": self.others}

        @app.get("/api/v1/dags/weather/dagRuns/<run>")
        def state(run: str) -> Any:
            now = self.states.pop(0) if not self.paused and len(self.states) > 1 else self.states[0]
            self.log.append(now)
            times = {
                "start_date": "2026-11-22T10:00:00.250000+00:00",
                "end_date": "2026-11-22T10:00:09+00:00",
            }
            return {**self.runs[run], **times, "state": now}

        @app.get("/api/v1/dags/weather/dagRuns/<run>/taskInstances")
        def tasks(run: str) -> Any:
            return {
                "task_instances": [
                    {"task_id": "forecast", "state": "success"},
                    {"task_id": "draw", "state": "failed"},
                    {"task_id": "page", "state": None},
                ]
            }

        return app


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_login, "PAUSE", 0.01)


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def dag(airflow: Airflow) -> Iterator[Dag]:
    with served(airflow.app()) as address:
        yield Dag(address, "smoke-test", "secret", "weather", 10)


def test_run_is_awaited(airflow: Airflow, dag: Dag) -> None:
    ended = dag.run("smoke__1", "why")
    assert ended["state"] == "success"
    assert airflow.runs == {"smoke__1": {"dag_run_id": "smoke__1", "note": "why"}}
    assert airflow.log == ["triggered", "queued", "running", "success"]


def test_dag_that_is_not_read_yet_is_awaited(airflow: Airflow, dag: Dag) -> None:
    airflow.unknown_for = 3
    assert dag.run("smoke__1", "")["state"] == "success"


def test_dag_that_never_comes_is_named(airflow: Airflow, dag: Dag) -> None:
    airflow.unknown_for, dag.timeout = 10**6, QUICK
    with pytest.raises(RunError, match="does not know weather after"):
        dag.run("smoke__1", "")
    assert airflow.log == []


def test_paused_dag_is_paused_again_when_nothing_of_it_runs(airflow: Airflow, dag: Dag) -> None:
    airflow.paused, airflow.others = True, 3
    dag.run("smoke__1", "")
    assert airflow.log == ["released", "triggered", "queued", "running", "success", "paused"]
    assert airflow.others == 0


@pytest.mark.parametrize("paused", [True, False])
def test_failed_run_tells_its_tasks_and_leaves_the_dag_as_it_was(
    airflow: Airflow, dag: Dag, paused: bool
) -> None:
    airflow.paused, airflow.states = paused, ["running", "failed"]
    with pytest.raises(
        RunError,
        match=r"smoke__1 of weather ended as failed: .*draw failed, page not begun\. .*/run_id=smoke__1",
    ):
        dag.run("smoke__1", "")
    assert airflow.paused is paused


@pytest.mark.parametrize("paused", [True, False])
def test_run_that_hangs_is_given_up(airflow: Airflow, dag: Dag, paused: bool) -> None:
    airflow.paused, airflow.states, dag.timeout = paused, ["running"], QUICK
    with pytest.raises(RunError, match=r"did not end within .*page not begun\. .*/run_id=smoke__1\.$"):
        dag.run("smoke__1", "")
    assert airflow.paused is paused


def test_runs_that_may_be_in_its_way_are_named(airflow: Airflow, dag: Dag) -> None:
    airflow.others, airflow.states, dag.timeout = 3, ["queued"], QUICK
    with pytest.raises(RunError, match=r"Under way, too: scheduled__0, scheduled__1\.$"):
        dag.run("smoke__1", "")


def test_refused_run_leaves_the_dag_paused(airflow: Airflow, dag: Dag) -> None:
    airflow.paused, airflow.refuse_runs = True, True
    with pytest.raises(OSError, match="400"):
        dag.run("smoke__1", "")
    assert airflow.paused


def test_one_login_is_enough(airflow: Airflow, dag: Dag) -> None:
    dag.run("smoke__1", "")
    assert airflow.logins == 1


def test_wrong_password_is_not_tried_again(airflow: Airflow) -> None:
    with served(airflow.app()) as address:
        dag = Dag(address, "smoke-test", "wrong", "weather", 10)
        with pytest.raises(LoginError, match="does not let smoke-test in"):
            dag.run("smoke__1", "")
    assert airflow.logins == 1


@pytest.mark.parametrize("status", [503, 429], ids=["away", "too many logins"])
def test_endpoint_that_answers_again_is_awaited(airflow: Airflow, dag: Dag, status: int) -> None:
    airflow.closed_for, airflow.closed_with = 3, status
    dag.run("smoke__1", "")
    assert len(airflow.runs) == 1


@pytest.mark.parametrize("listening", [True, False], ids=["it says so", "nobody listens"])
def test_endpoint_that_stays_silent_is_an_error(airflow: Airflow, dag: Dag, listening: bool) -> None:
    airflow.closed_for, dag.timeout = 10**6, QUICK
    if not listening:
        with served(airflow.app()) as address:
            dag = Dag(address, "smoke-test", "secret", "weather", QUICK)
    with pytest.raises(OSError, match="503" if listening else "refused"):
        dag.run("smoke__1", "")
