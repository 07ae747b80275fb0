"""The host that is switched: its state as its own commands tell it, its data, its DAGs, and faults for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import snapshot
from airflow_api import AirflowApi, wait_for
from delivery import Repository
from expected import BACKUPS, DIRECTORY
from snapshot import LONG, PULSE, Snapshot
from testinfra.backend.base import CommandResult
from testinfra.host import Host

MAY_END = f"{DIRECTORY}/logs/upgrade-long-may-end"
SERVICE = "airflow-release.service"

Json = dict[str, Any]


class Platform:
    """What tests ask of the host and do to it."""

    def __init__(self, host: Host, airflow: AirflowApi, repository: Repository) -> None:
        """Drive this host, through its own commands, its API and its repository."""
        self.host = host
        self.airflow = airflow
        self.repository = repository

    # What it says of itself.

    def run(self, command: str, *arguments: str, seconds: int = 120) -> CommandResult:
        """Run a shell command in the platform's directory, each %s an argument."""
        return self.host.run(f"cd {DIRECTORY} && exec timeout {seconds} {command}", *arguments)

    def check(self, command: str, *arguments: str, seconds: int = 120) -> str:
        """Run a command that has to succeed; return what it printed."""
        done = self.run(command, *arguments, seconds=seconds)
        assert done.rc == 0, f"{command}: {done.rc}\n{done.stdout}{done.stderr}"
        return str(done.stdout)

    def status(self) -> Json:
        """Return `airflow-release status`: the running version, and the operation or None."""
        document: Json = json.loads(self.check("airflow-release status --json"))
        return document

    def operation(self) -> Json:
        """Return the operation under way, or the last one; {} when there never was one."""
        return self.status()["operation"] or {}

    @property
    def version(self) -> str:
        """Return the Airflow version that runs, as Airflow itself says it."""
        return str(self.airflow.get("version")["version"])

    def is_in(self, phase: str) -> bool:
        """Say whether a phase of the operation is under way."""
        return any(
            one["name"] == phase and one["state"] == "running" for one in self.operation().get("phases", [])
        )

    def phases(self) -> dict[str, str]:
        """Return the operation's phases, each with its state."""
        return {phase["name"]: phase["state"] for phase in self.operation()["phases"]}

    def containers(self) -> dict[str, str]:
        """Return the id of each running container, by service."""
        lines = self.check("docker compose ps --format %s", "{{.Service}} {{.ID}}").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def databases(self) -> set[str]:
        """Return the databases that there are, but Postgres' own."""
        return set(self.sql("SELECT datname FROM pg_database WHERE datname LIKE 'airflow%'").splitlines())

    def wait_until_healthy(self, seconds: float = 180) -> None:
        """Wait until the platform's own check finds nothing."""
        wait_for("a healthy platform", lambda: self.run("airflow-release health").rc == 0, seconds)

    # Its data.

    def sql(self, statements: str, database: str = "airflow") -> str:
        """Run SQL; return the rows, columns separated by `|`."""
        psql = f"psql --username=airflow --dbname={database} --no-psqlrc -qtA --set=ON_ERROR_STOP=1"
        return self.check(f"docker compose exec --no-TTY postgres {psql} --command=%s", statements)

    def python(self, program: str) -> str:
        """Run a program where Airflow and its key are; return what it printed."""
        return self.check("docker compose exec --no-TTY airflow-triggerer python3 -c %s", program)

    def snapshot(self) -> Snapshot:
        """Return all that people would miss, once no run is under way that an end would change."""
        return snapshot.take(self.sql, self.python)

    def knows(self, dag: str) -> bool:
        """Say whether Airflow could run a DAG."""
        query = f"SELECT 1 FROM dag JOIN serialized_dag USING (dag_id) WHERE dag_id = '{dag}' AND is_active"
        return bool(self.sql(query).strip())

    def publish(self, dags: dict[str, str | None], subject: str = "Change DAGs") -> None:
        """Push files below `dags/` and have them live."""
        self.repository.push({f"dags/{name}": text for name, text in dags.items()}, subject)
        synced = self.run("dag-sync once")
        assert synced.rc == 0, synced.stdout + synced.stderr

    # What happens on it.

    def begin_release(self, release: str, to_version: str, **options: object) -> None:
        """Prepare the switch to a release that was here before, as upgrade.yml does to a new one."""
        self.check(
            "airflow-release begin --kind upgrade --to-version %s --release %s --options %s",
            to_version,
            release,
            json.dumps({"confirm_timeout": 300, "start_timeout": 120, **options}),
        )

    def switch(self) -> None:
        """Start the switch that was prepared."""
        self.check("airflow-release start")

    def wait_for_phase(self, phase: str, seconds: float = 180) -> None:
        """Wait until a phase is under way."""
        wait_for(f"the phase {phase}", lambda: self.is_in(phase), seconds, pause=0.5)

    def wait_for_end(self, seconds: int = 400) -> str:
        """Wait until the operation is over; return how it ended."""
        said = self.run("airflow-release wait end", seconds=seconds)
        assert said.rc in (0, 1), f"{said.rc}: {said.stdout}{said.stderr}"
        return str(self.operation()["state"])

    def newest_release(self, of_version: str) -> str:
        """Return the id of the last release of a version that this host had."""
        known = json.loads(self.check("airflow-release releases --json"))
        return str([one["id"] for one in known if one["airflow_version"] == of_version][-1])

    def pulse_goes_on(self, seconds: float = 90) -> None:
        """Wait for a scheduled run that succeeded after now."""
        now = self.sql("SELECT now()").strip()
        query = (
            f"SELECT 1 FROM dag_run WHERE dag_id = '{PULSE}' AND start_date > '{now}' AND state = 'success'"
        )
        wait_for("the schedule to go on", lambda: self.sql(query).strip(), seconds)

    @contextmanager
    def long_task(self) -> Iterator[LongTask]:
        """Have the long task at work; it may end when the test lets it, or the test ends."""
        task = LongTask(self)
        try:
            yield task
        finally:
            task.let_end()

    @contextmanager
    def refused_migration(self) -> Iterator[None]:
        """Have the database refuse every change of a table, as a trigger of somebody's audit tool may.

        The trigger is in the database, and therefore in each copy and backup of it.
        """
        self.sql(
            "CREATE FUNCTION refuse_migration() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no table may be changed today'; END $$"
        )
        self.sql(
            "CREATE EVENT TRIGGER refuse_migration ON ddl_command_start WHEN TAG IN ('ALTER TABLE')"
            " EXECUTE FUNCTION refuse_migration()"
        )
        try:
            yield
        finally:
            self.sql("DROP EVENT TRIGGER IF EXISTS refuse_migration")
            self.sql("DROP FUNCTION IF EXISTS refuse_migration()")

    @contextmanager
    def full_backup_disk(self) -> Iterator[None]:
        """Have next to no room where backups go. What is there already is back afterwards."""
        self.check(f"mount -t tmpfs -o size=64k,mode=0700 tmpfs {BACKUPS}")
        try:
            yield
        finally:
            self.check(f"umount {BACKUPS}")

    @contextmanager
    def read_only_env_files(self) -> Iterator[None]:
        """Have the env files where they are, for everybody to read as before and nobody to write."""
        env = f"{DIRECTORY}/env"
        self.check(f"mount --bind -o ro {env} {env}")
        try:
            yield
        finally:
            self.check(f"umount --lazy {env}")

    def reboot(self) -> None:
        """Restart the host in good order, and wait until it has booted."""
        name = f"{os.environ['SANDBOX_INSTANCE']}-atd-data03"
        # `-t` is what every version of Docker's client calls it: seconds for a clean shutdown.
        subprocess.run(["docker", "restart", "-t", "120", name], check=True, capture_output=True, timeout=180)
        wait_for(
            "the host to boot",
            lambda: self.host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"),
            120,
        )


class LongTask:
    """A run of the DAG `upgrade-long`."""

    def __init__(self, platform: Platform) -> None:
        """Trigger it."""
        self._platform = platform
        self._may_end = False
        platform.check(f"rm -f {MAY_END}")
        run = platform.airflow.call("POST", f"dags/{LONG}/dagRuns", json={})
        self._run = run["dag_run_id"]

    @property
    def state(self) -> str:
        """Return the task's state, "" before it has one."""
        # Asked of the database: in a switch there are moments without a webserver.
        query = f"SELECT state FROM task_instance WHERE dag_id = '{LONG}' AND run_id = '{self._run}'"
        return self._platform.sql(query).strip()

    def wait_until_running(self) -> None:
        """Wait until a worker has it."""
        wait_for("the long task to begin", lambda: self.state == "running", 60, pause=0.5)

    def let_end(self) -> None:
        """Let it end; once is enough."""
        if not self._may_end:
            self._platform.check(f"touch {MAY_END}")
            self._may_end = True
