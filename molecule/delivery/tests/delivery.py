"""What the tests of delivery drive: a clone of the Git host's repository, and the host that follows it."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests
from airflow_api import AirflowApi, wait_for
from testinfra.backend.base import CommandResult
from testinfra.host import Host
from webhook.settings import connect_from_environment
from webhook.vault import ConnectVault

ROOT = Path(__file__).resolve().parents[3]
BRANCH = "production"
INSTANCE = os.environ.get("SANDBOX_INSTANCE", "airflow-molecule")
SERVICES = f"{INSTANCE}-services"
"""The container of the stand-ins."""
HOST = f"{INSTANCE}-atd-data03"
"""The container that is the host."""
TREES = "/srv/airflow/trees"
STATE = "/srv/airflow/delivery"
PATIENCE = 60
"""Seconds after which a call counts as lost on a busy machine; bench/push_to_live measures one."""

Json = dict[str, Any]


def docker(*arguments: str, seconds: float = 60) -> str:
    """Run `docker` on this machine, where the sandbox's containers are; return what it says."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}"
    return done.stdout


def without_proxies() -> dict[str, str]:
    """Return this process's environment without the proxies, which do not know the sandbox."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def dag_source(dag: str, description: str = "") -> str:
    """Return a DAG with one task that does nothing."""
    return (
        "import datetime\n\n"
        "from airflow import DAG\n"
        "from airflow.operators.empty import EmptyOperator\n\n"
        "start = datetime.datetime(2024, 1, 1)\n"
        f"with DAG({dag!r}, start_date=start, schedule=None, description={description!r}):\n"
        '    EmptyOperator(task_id="nothing")\n'
    )


class Repository:
    """A colleague's working copy; every commit is pushed at once."""

    def __init__(self, directory: Path, url: str) -> None:
        """Clone `url`."""
        self._directory = directory
        directory.mkdir(parents=True)
        self._git("clone", "--quiet", "--branch", BRANCH, url, ".")
        self._first = self.head

    @property
    def head(self) -> str:
        """Return the newest commit."""
        return self._git("rev-parse", "HEAD").strip()

    def push(self, files: Mapping[str, str | None], subject: str = "Change DAGs") -> str:
        """Write the files, None removing one; commit and push; return the commit."""
        for name, content in files.items():
            path = self._directory / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
        self._git("add", "--all")
        return self._commit(subject)

    def go_back_to(self, commit: str | None = None) -> str:
        """Push a commit with the content of an earlier one, of the first if none is named."""
        self._git("read-tree", "--reset", "-u", commit or self._first)
        return self._commit("Go back")

    def _commit(self, subject: str) -> str:
        self._git("commit", "--quiet", "--allow-empty", "--message", subject)
        self._git("push", "--quiet", "origin", BRANCH)
        return self.head

    def _git(self, *arguments: str) -> str:
        environment = {
            **without_proxies(),
            **{f"GIT_{role}_NAME": "Test Colleague" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "colleague@example.org" for role in ("AUTHOR", "COMMITTER")},
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self._directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@dataclass
class Delivery:
    """The host that follows the branch, from all sides from which it can be called and looked at."""

    host: Host
    http: Callable[..., requests.Response]
    webhook: str
    airflow: AirflowApi
    repository: Repository
    connect: Mapping[str, str]
    """OP_CONNECT, OP_API_TOKEN and OP_VAULT_ID, as the workflow has them."""
    github_repository: str
    metrics: Callable[[], str]
    """Reads the metrics as Prometheus does."""

    @property
    def outside(self) -> str:
        """The address of all stand-ins, which are where Connect is."""
        return str(urlsplit(self.connect["OP_CONNECT"]).hostname)

    def stand_in(self, port: int) -> str:
        """Return the address of a stand-in that speaks HTTP."""
        return f"http://{self.outside}:{port}"

    def vault(self, field: str) -> str:
        """Read `key` or `channel` of the webhook's item."""
        settings = connect_from_environment({"ENVIRONMENT": "production", **self.connect})
        value: str = ConnectVault(replace(settings, field=f"production.{field}")).read()
        return value

    def announce(self, commit: str = "") -> None:
        """Do what the workflow does after a merge."""
        done = subprocess.run(
            [sys.executable, "-m", "webhook.announce", "--commit", commit],
            env={**without_proxies(), **self.connect, "PYTHONPATH": str(ROOT / "webhook" / "src")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    def told(self) -> float:
        """Return how often the webhook took a call, or the relay's request to sync, since its start."""
        return sum(
            self.metric(f'webhook_calls_total{{endpoint="{endpoint}",status="202"}}')
            for endpoint in ("webhook", "sync")
        )

    def page(self) -> Json:
        """Return the status page as JSON."""
        response = self.http("GET", f"{self.webhook}/", headers={"Accept": "application/json"})
        response.raise_for_status()
        document: Json = response.json()
        return document

    def metric(self, series: str) -> float:
        """Return a number of the Prometheus page, 0 for one that was not counted yet."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def live(self) -> str:
        """Return the commit that `current` names on the host."""
        target: str = self.host.check_output(f"readlink {TREES}/current")
        return target.rpartition("/")[2].partition("-")[0]

    def wait_until_live(self, commit: str, seconds: float = PATIENCE) -> None:
        """Wait on the host itself, so that the waiting costs nothing there."""
        done = self.host.run(
            f"timeout {seconds} sh -c %s",
            f'until [ "$(readlink {TREES}/current)" = worktrees/{commit} ]; do sleep 0.05; done',
        )
        assert done.rc == 0, f"{commit} is not live after {seconds} s; {self.sync('status').stdout}"

    def known(self, dag: str) -> Json | None:
        """Return what Airflow knows of a DAG that it could run, None for one that it could not."""
        # Airflow writes a DAG's tasks first and its record next. Asked for the details of a DAG that has only
        # one of them, it breaks off with 500.
        for part in (f"dags/{dag}/tasks", f"dags/{dag}"):
            answer = self.airflow.ask("GET", part)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
        details: Json = self.airflow.get(f"dags/{dag}/details")
        return details

    def wait_until_known(self, dag: str, description: str | None = None, seconds: float = PATIENCE) -> None:
        """Wait until Airflow could run the DAG, and describes it so."""

        def found() -> bool:
            details = self.known(dag)
            return details is not None and description in (None, details["description"])

        wait_for(f"Airflow to know {dag}", found, seconds, pause=0.25)

    def sync(self, *arguments: str) -> CommandResult:
        """Run `dag-sync` as the operator does."""
        return self.host.run("timeout 120 dag-sync" + " %s" * len(arguments), *arguments)

    def statuses(self, commit: str) -> list[Json]:
        """Return what GitHub was told of a commit, the latest first."""
        url = f"{self.stand_in(9006)}/repos/{self.github_repository}/commits/{commit}/statuses"
        found: list[Json] = self.http("GET", url).json()
        return found

    def wait_for_status(self, commit: str, state: str) -> Json:
        """Wait until `airflow/live` of the commit is in this state."""

        def latest() -> Json | None:
            found = self.statuses(commit)
            return found[0] if found and found[0]["state"] == state else None

        status: Json = wait_for(f"the commit status {state}", latest, PATIENCE, pause=0.25)
        return status

    def refusal(self, commit: str) -> Json | None:
        """Return the refusal of a commit that the status page shows."""
        refused = self.page()["delivery"]["refused"]
        return next((refusal for refusal in refused if refusal["commit"]["id"] == commit), None)

    def chat(self, text: str) -> list[str]:
        """Return the messages in Slack that contain a text."""
        messages = self.http("GET", f"{self.stand_in(9003)}/messages").json()
        return [found for message in messages if text in (found := json.dumps(message["payload"]))]


def new_name(what: str) -> str:
    """Return a name that no test has used, in this run or in one before."""
    return f"delivery_{what}_{secrets.token_hex(3)}"
