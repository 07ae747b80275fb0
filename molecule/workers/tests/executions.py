"""Runs of the DAGs `workers-count-<queue>`, and which executions their tasks have written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from airflow_api import wait_for
from expected import DIRECTORY
from platform_host import Platform
from testinfra.host import Host

FOLDER = f"{DIRECTORY}/logs/workers-count"


class Executions:
    """What tests ask of these runs."""

    def __init__(self, platform: Platform, hosts: Iterable[Host]) -> None:
        """Let no task end yet, on any of these hosts."""
        self._platform = platform
        self._hosts = list(hosts)
        uid = platform.check("sed -n s/^AIRFLOW_UID=//p .env").strip()
        for host in self._hosts:
            host.check_output(f"install --directory --owner={uid} --mode=0755 {FOLDER}")
            host.check_output(f"rm -f {FOLDER}/may-end")

    def begin(self, queue: str, tasks: int) -> str:
        """Trigger a run with so many mapped tasks; return its id."""
        document = {"conf": {"tasks": tasks}}
        run = self._platform.airflow.call("POST", f"dags/workers-count-{queue}/dagRuns", json=document)
        return str(run["dag_run_id"])

    def may_end(self, *hosts: Host) -> None:
        """Let tasks end on these hosts, or on all."""
        for host in hosts or self._hosts:
            host.check_output(f"touch {FOLDER}/may-end")

    def rows(self, run: str, task: str, *columns: str) -> list[list[str]]:
        """Return columns of the instances of a task in a run; what is to be mapped still is none."""
        query = (
            f"SELECT {', '.join(columns)} FROM task_instance"
            f" WHERE run_id = '{run}' AND dag_id LIKE 'workers-count-%' AND task_id = '{task}'"
            f" AND (task_id = 'numbers' OR map_index >= 0) ORDER BY map_index"
        )
        return [line.split("|") for line in self._platform.sql(query).splitlines()]

    def states(self, run: str, task: str = "count") -> set[str]:
        """Return the states that instances of a task have."""
        return {state for (state,) in self.rows(run, task, "state")}

    def running_on(self, run: str, name: str) -> set[int]:
        """Return the numbers of the tasks that run on a host."""
        rows = self.rows(run, "count", "map_index", "state", "hostname")
        return {int(number) for number, state, host in rows if (state, host) == ("running", name)}

    def wait_until_running(self, run: str, tasks: int, seconds: float = 120) -> None:
        """Wait until so many tasks of a run have written that they began."""
        wait_for(
            f"{tasks} tasks to run",
            lambda: sum(self.noted("begun", run).values()) >= tasks,
            seconds,
            pause=0.5,
        )

    def wait_for_end(self, run: str, seconds: float) -> None:
        """Wait until every task of a run has succeeded."""
        query = f"SELECT state FROM dag_run WHERE run_id = '{run}' AND dag_id LIKE 'workers-count-%'"

        def ended() -> bool:
            state = self._platform.sql(query).strip()
            assert state != "failed", f"{run} has failed: {self.rows(run, 'count', 'map_index', 'state')}"
            return state == "success"

        wait_for(f"the run {run} to succeed", ended, seconds)

    def noted(self, what: str, run: str) -> dict[int, int]:
        """Return how often each task of a run has begun or ended, by what the hosts have written down.

        The main host may have a copy of what another one has written, with the same line for an execution.
        """
        lines = {
            line
            for host in self._hosts
            for line in host.check_output(f"cat {FOLDER}/* 2>/dev/null || true").splitlines()
        }
        parts = [line.split() for line in lines]
        return dict(
            Counter(int(part[2]) for part in parts if len(part) == 5 and (part[0], part[1]) == (what, run))
        )

    def check_once(self, run: str, tasks: int, begun_twice: Iterable[int] = ()) -> None:
        """Check that each task has ended once, and begun once but for those whose host was lost."""
        once = dict.fromkeys(range(tasks), 1)
        assert self.noted("ended", run) == once
        assert self.noted("begun", run) == once | dict.fromkeys(begun_twice, 2)
