"""The part of Airflow's REST API that the tests use, the same from Airflow 2.5 to 2.11."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests

ACTIVE = ("queued", "running")


def wait_for(what: str, condition: Callable[[], Any], seconds: float, pause: float = 1.0) -> Any:
    """Return the condition's first true value. Fails with `what` when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {seconds} s still waiting for {what}"
        time.sleep(pause)
    return value


def log_in(address: str, login: tuple[str, str]) -> requests.Session:
    """Return a session that has logged in through the form, which takes five tries in forty seconds."""
    session = requests.Session()
    session.trust_env = False
    form = session.get(f"{address}/login/", timeout=20)
    form.raise_for_status()
    [token] = re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', form.text)
    fields = {"username": login[0], "password": login[1], "csrf_token": token}

    def answer() -> requests.Response | None:
        given = session.post(f"{address}/login/", data=fields, timeout=20, allow_redirects=False)
        return None if given.status_code == 429 else given

    answered = wait_for("Airflow to take a login", answer, 90, pause=5)
    answered.raise_for_status()
    assert "/login" not in answered.headers.get("Location", "/login"), f"Airflow does not let {login[0]} in"
    return session


class AirflowApi:
    """The API as one user sees it, with a session as the pages begin it."""

    def __init__(self, address: str, login: tuple[str, str]) -> None:
        """Keep how to reach it."""
        self._address = address
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False

    def ask_in_session(self, method: str, path: str, **options: Any) -> requests.Response:
        """Return what the session gets, whatever it is. The first one is a stranger's."""
        url = f"{self._address}/api/v1/{path}"
        return self._session.request(method, url, timeout=20, allow_redirects=False, **options)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Return the answer, whatever it is. If there is no session any more, begin one first."""
        # From 2.7 on, a stranger gets 403 for what the role Public may not do.
        if (answered := self.ask_in_session(method, path, **options)).status_code not in (401, 403):
            return answered
        self._session = log_in(self._address, self._login)
        return self.ask_in_session(method, path, **options)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer's document. Raises requests.HTTPError, naming the path, for an error status."""
        response = self.ask(method, path, **options)
        response.raise_for_status()
        return response.json()

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the document at `path`."""
        return self.call("GET", path, params=parameters)

    def is_paused(self, dag: str) -> bool:
        """Tell whether the DAG is paused."""
        return bool(self.get(f"dags/{dag}")["is_paused"])

    def pause(self, dag: str, paused: bool = True) -> None:
        """Pause the DAG, or release it."""
        self.call("PATCH", f"dags/{dag}", json={"is_paused": paused})

    def active_runs(self, dag: str) -> int:
        """Return how many runs have not ended. In a paused DAG they never would."""
        return int(self.get(f"dags/{dag}/dagRuns", state=list(ACTIVE))["total_entries"])

    @contextmanager
    def released(self, dag: str) -> Iterator[None]:
        """Release the DAG for a while. Afterwards it is as it was, without half a run left in it."""
        was_paused = self.is_paused(dag)
        self.pause(dag, False)
        try:
            yield
        finally:
            while was_paused and not self.is_paused(dag):
                wait_for(f"the runs of {dag} to end", lambda: not self.active_runs(dag), 120)
                self.pause(dag)
                # The schedule may have started one in between.
                if self.active_runs(dag):
                    self.pause(dag, False)

    def run(self, dag: str, seconds: float = 120) -> dict[str, Any]:
        """Trigger a run and return it once it has ended, whatever its state."""
        run = self.call("POST", f"dags/{dag}/dagRuns", json={})["dag_run_id"]
        with self.released(dag):

            def ended() -> dict[str, Any] | None:
                document: dict[str, Any] = self.get(f"dags/{dag}/dagRuns/{run}")
                return None if document["state"] in ACTIVE else document

            found: dict[str, Any] = wait_for(f"{run} of {dag} to end", ended, seconds)
            return found

    def tasks_and_logs(
        self, dag: str, run: str, seconds: float = 120
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Wait for a run to end; return its task instances, and the first log of each that is not mapped."""
        path = f"dags/{dag}/dagRuns/{run}"
        wait_for(f"{run} of {dag} to end", lambda: self.get(path)["state"] not in ACTIVE, seconds)
        tasks = self.get(f"{path}/taskInstances")["task_instances"]
        plain = {"Accept": "text/plain"}
        logs = {
            task["task_id"]: self.ask(
                "GET", f"{path}/taskInstances/{task['task_id']}/logs/1", headers=plain
            ).text
            for task in tasks
            if task["map_index"] == -1
        }
        return tasks, logs
