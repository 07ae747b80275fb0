#!/usr/bin/python
"""Ansible module: run a DAG to its end, also a paused one, in one call instead of one for each question."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from ansible.module_utils import airflow_login
from ansible.module_utils.airflow_login import LoginError, log_in, until_taken
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: airflow_dag_run
author: The data platform team
short_description: Run a DAG and wait until the run has ended
description:
  - Logs in as a person does, triggers a run through Airflow's REST API and waits for its end. It fails
    unless the run succeeds, and then says which tasks did not.
  - A DAG that is paused is released for the run. It is paused again when no run of it is under way, since
    one that is would stay so until the DAG is released.
options:
  url:
    description: Address of Airflow, without a slash at its end.
    type: str
    required: true
  url_username:
    description:
      - Whom to ask as. The account has to be allowed to edit the DAG, to create DAG runs, and to read these
        and their tasks.
    type: str
    required: true
  url_password:
    description: The password.
    type: str
    required: true
  dag:
    description: The DAG. One that Airflow does not know yet is waited for.
    type: str
    required: true
  prefix:
    description: What the run's name begins with; the time follows.
    type: str
    default: ansible
  note:
    description: A note for those who look at the run.
    type: str
    default: ""
  timeout:
    description:
      - Seconds for each wait, for the DAG to be known, for its run to end, and for an endpoint that does not
        answer for a moment (503, nobody listens, or too many have tried to log in) to answer.
    type: int
    default: 180
"""

EXAMPLES = r"""
- name: Run the smoke test's DAG
  airflow_dag_run:
    url: http://127.0.0.1:8080
    url_username: smoke-test
    url_password: "{{ password }}"
    dag: weather-checker
  register: proof
"""

RETURN = r"""
run:
  description: The run's name.
  returned: success
  type: str
started:
  description: When it started, in ISO 8601.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

UNDER_WAY = "dagRuns?state=queued&state=running"


class RunError(Exception):
    """Why there is no successful run, in words for an operator."""


class Dag:
    """One DAG, through the stable REST API (https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html)."""

    def __init__(self, url: str, username: str, password: str, name: str, timeout: float = 180) -> None:
        """Ask nothing yet; `timeout` (seconds) is for each wait."""
        self._address = f"{url}/api/v1/dags/{quote(name, safe='')}"
        self._login = (url, username, password)
        self._session: CookieJar | None = None
        self.name = name
        self.timeout = timeout

    def ask(self, path: str = "", method: str = "GET", **fields: object) -> dict[str, Any]:
        """Send one request, again while nobody takes it, and return the answer.

        Raises:
            OSError: it was refused (`HTTPError`) or there was no answer.
            LoginError: the account is not let in.
        """
        answer: dict[str, Any] = until_taken(lambda: self._ask(path, method, fields), self.timeout)
        return answer

    def _ask(self, path: str, method: str, fields: dict[str, object]) -> dict[str, Any]:
        if self._session is None:
            self._session = log_in(*self._login)
        with open_url(
            f"{self._address}{path and '/'}{path}",
            method=method,
            data=json.dumps(fields) if fields else None,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            timeout=30,
            cookies=self._session,
        ) as answer:
            return dict(json.load(answer))

    def known(self) -> dict[str, Any] | None:
        """Return Airflow's description of the DAG; None while it has not read the file."""
        try:
            return self.ask()
        except HTTPError as refusal:
            if refusal.code == 404:
                return None
            raise

    def run(self, run: str, note: str) -> dict[str, Any]:
        """Run it to its end, and leave it paused if it was.

        Raises:
            RunError: it is not known in time, or the run did not succeed.
        """
        timeout = self.timeout
        described = wait_for(
            self.known, timeout, lambda: f"Airflow does not know {self.name} after {timeout:.0f} s."
        )
        with self._released(paused=described["is_paused"]):
            self.ask("dagRuns", "POST", dag_run_id=run, **({"note": note} if note else {}))
            ended: dict[str, Any] = wait_for(
                lambda: self._ended(run),
                timeout,
                lambda: self._told(run, f"did not end within {timeout:.0f} s") + self._in_its_way(run),
            )
        if ended["state"] != "success":
            raise RunError(self._told(run, f"ended as {ended['state']}"))
        return ended

    @contextmanager
    def _released(self, *, paused: bool) -> Iterator[None]:
        if not paused:
            yield
            return
        self.ask(method="PATCH", is_paused=False)
        try:
            yield
            wait_for(
                lambda: self.ask(UNDER_WAY)["total_entries"] == 0,
                self.timeout,
                lambda: f"Runs of {self.name} are still under way after {self.timeout:.0f} s.",
            )
        finally:
            self.ask(method="PATCH", is_paused=True)

    def _ended(self, run: str) -> dict[str, Any] | None:
        answer = self.ask(f"dagRuns/{quote(run, safe='')}")
        return answer if answer["state"] in ("success", "failed") else None

    def _told(self, run: str, how: str) -> str:
        """Say how a run went, with what became of its tasks."""
        tasks = self.ask(f"dagRuns/{quote(run, safe='')}/taskInstances")["task_instances"]
        states = ", ".join(f"{task['task_id']} {task['state'] or 'not begun'}" for task in tasks)
        return (
            f"The run {run} of {self.name} {how}: {states}. "
            f"The tasks' logs are in Airflow's logs/dag_id={self.name}/run_id={run}."
        )

    def _in_its_way(self, run: str) -> str:
        """Name the other runs: a DAG may allow one at a time, and its own schedule makes some, too."""
        others = [one["dag_run_id"] for one in self.ask(UNDER_WAY)["dag_runs"] if one["dag_run_id"] != run]
        return f" Under way, too: {', '.join(others)}." if others else ""


def wait_for(condition: Callable[[], Any], seconds: float, otherwise: Callable[[], str]) -> Any:
    """Return a condition's first answer that is true.

    Raises:
        RunError: there was none within `seconds`; it says what `otherwise` returns.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise RunError(otherwise())
        time.sleep(airflow_login.PAUSE)
    return answer


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "url_username": {"type": "str", "required": True},
            "url_password": {"type": "str", "required": True, "no_log": True},
            "dag": {"type": "str", "required": True},
            "prefix": {"type": "str", "default": "ansible"},
            "note": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 180},
        }
    )
    given = module.params
    dag = Dag(given["url"], given["url_username"], given["url_password"], given["dag"], given["timeout"])
    run = f"{given['prefix']}__{datetime.now().astimezone().isoformat()}"
    try:
        ended = dag.run(run, given["note"])
    except RunError as error:
        module.fail_json(msg=str(error))
    except LoginError as error:
        module.fail_json(msg=f"{error}. site.yml makes the account, with the password of 1Password.")
    except HTTPError as refusal:
        said = refusal.read().decode("utf-8", "replace")[:500]
        module.fail_json(msg=f"Airflow refused {refusal.url} with {refusal.code}: {said}")
    except (OSError, HTTPException) as error:
        module.fail_json(msg=f"{given['url']} does not answer: {error}")
    started, finished = (datetime.fromisoformat(ended[at]) for at in ("start_date", "end_date"))
    module.exit_json(
        changed=True,
        run=run,
        started=started.isoformat(),
        seconds=round((finished - started).total_seconds(), 1),
    )


if __name__ == "__main__":
    main()
