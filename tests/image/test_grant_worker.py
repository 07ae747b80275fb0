"""What grant-worker lets a worker's role do: all that tasks of this Airflow do, and nothing else."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

AIRFLOW = Path(__file__).resolve().parents[2] / "images/airflow"
PASSWORD = "p4ss 'word \" $HOME %s :x"
ROLE = "airflow_worker"
RUN = "run-1"

DAG_FILE = """
from datetime import datetime, timedelta
import os
from pathlib import Path

from airflow import DAG, Dataset
from airflow.decorators import task
from airflow.exceptions import AirflowSkipException
from airflow.hooks.base import BaseHook
from airflow.models import Variable
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from airflow.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sensors.external_task import ExternalTaskSensor
from airflow.sensors.python import PythonSensor
from airflow.sensors.time_delta import TimeDeltaSensorAsync

try:
    from airflow.datasets import DatasetAlias  # from 2.10 on
except ImportError:
    DatasetAlias = None

PLACE = Path(os.environ["AIRFLOW_HOME"])
START = {"start_date": datetime(2026, 1, 1), "catchup": False}


def told(word):
    return lambda context: (PLACE / "callbacks").open("a").write(f"{word} {context['ti'].task_id}\\n")


with DAG("other", schedule=None, **START):
    EmptyOperator(task_id="nothing")

with DAG("consumer", schedule=[Dataset("file:///made")], **START):
    EmptyOperator(task_id="nothing")

with DAG("work", schedule=None, dagrun_timeout=timedelta(days=1), **START):

    @task(outlets=[Dataset("file:///made")], on_success_callback=told("success"))
    def listed():
        return [1, 2]

    @task
    def doubled(number):
        return number * 2

    @task
    def summed(ti=None):
        assert sorted(ti.xcom_pull(task_ids="doubled")) == [2, 4]
        ti.xcom_push("sum", 6)

    listed_ = listed()
    doubled.expand(number=listed_) >> summed()

    @task(on_failure_callback=told("failure"))
    def fails():
        raise ValueError("it fails")

    @task(retries=1, retry_delay=timedelta(0), on_retry_callback=told("retry"))
    def retried(ti=None):
        if not (PLACE / "retried").exists():
            (PLACE / "retried").touch()
            raise ValueError("once")

    @task
    def skipped():
        raise AirflowSkipException

    @task
    def stored():
        assert Variable.get("stored") == "of the operator"
        assert BaseHook.get_connection("stored").password == "secret"

    @task
    def stores():
        Variable.set("stored", "of a task")

    fails(), retried(), skipped(), stored(), stores()

    if DatasetAlias:

        @task(outlets=[DatasetAlias("alias")])
        def aliased(*, outlet_events):
            outlet_events["alias"].add(Dataset("file:///made/under/an/alias"))
    else:

        @task
        def aliased():
            pass

    aliased()
    short = ShortCircuitOperator(task_id="short", python_callable=lambda: False)
    short >> EmptyOperator(task_id="after_short")
    BranchPythonOperator(task_id="branch", python_callable=lambda: "left") >> [
        EmptyOperator(task_id="left"), PythonOperator(task_id="right", python_callable=print)
    ]
    PythonSensor(
        task_id="sensor", mode="reschedule", poke_interval=1,
        python_callable=lambda: (PLACE / "sensed").exists() or (PLACE / "sensed").touch(),
    )
    ExternalTaskSensor(task_id="external", external_dag_id="other", external_task_id="nothing",
                       check_existence=True, mode="reschedule", poke_interval=1)
    TimeDeltaSensorAsync(task_id="deferred", delta=timedelta(days=36500))
    TriggerDagRunOperator(task_id="triggers", trigger_dag_id="other", trigger_run_id="by-a-task")
"""

PREPARE = """
import os, sys
from airflow.models import Connection, DagBag, DagModel, Variable
from airflow.settings import Session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from pendulum import datetime

bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
assert not bag.import_errors, bag.import_errors
bag.sync_to_db()
for dag in bag.dags.values():
    dag.get_is_paused() and DagModel.get_dagmodel(dag.dag_id).set_is_paused(False)
day = datetime(2026, 1, 1)
bag.dags["work"].create_dagrun(
    run_id="run-1", execution_date=day, data_interval=(day, day), run_type=DagRunType.MANUAL,
    state=DagRunState.RUNNING,
)
with Session() as session:
    session.add(Connection(conn_id="stored", conn_type="http", password="secret"))
    session.commit()
Variable.set("stored", "of the operator")
"""

WORK = """
import os, sys
from airflow import settings
from airflow.cli.cli_parser import get_parser

parser = get_parser()
file = os.environ["AIRFLOW__CORE__DAGS_FOLDER"] + "/work.py"
for given in sys.argv[1:]:
    task, _, index = given.partition("/")
    where = ["--map-index", index] if index else []
    # As the worker does with each message.
    if not (child := os.fork()):
        settings.engine.pool.dispose()
        settings.engine.dispose()
        command = ["tasks", "run", "work", task, "run-1", "--local", "--subdir", file, *where]
        arguments = parser.parse_args(command)
        arguments.shut_down_logging = False
        code = 1
        try:
            arguments.func(arguments)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.waitpid(child, 0)
"""

CELERY = """
import os
from celery import Celery

app = Celery(backend="db+" + os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", ""))
app.backend.store_result("message", "done", "STARTED")
app.backend.store_result("message", "done", "SUCCESS")
print(app.backend.get_result("message"))
"""


class Platform:
    """A database `airflow` that grant-worker has seen, and its two roles."""

    def __init__(self, postgres: dict[str, str], home: Path) -> None:
        """Give the environment of programs: `PGHOST` has the server's socket, and its data."""
        self.home = home
        self.socket = postgres["PGHOST"]
        (home / "dags").mkdir()
        (home / "dags/work.py").write_text(DAG_FILE)
        self.environment = postgres | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__FERNET_KEY": "W5vVd8hVvQ2QxYbS0o0m3lq1JkW1oX9o5cX6S0pJb1k=",
            "AIRFLOW__CORE__XCOM_BACKEND": "encrypted_xcom.EncryptedXCom",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "PYTHONPATH": f"{AIRFLOW / 'lib'}:{AIRFLOW / 'config'}",
        }

    def address(self, role: str, database: str = "airflow") -> str:
        """Return where a role finds a database; the server believes who it is."""
        return f"postgresql+psycopg2://{role}@/{database}?host={self.socket}"

    def engine(self, role: str = "airflow", database: str = "airflow") -> Engine:
        """Return a way to the database without a memory of sessions."""
        return create_engine(self.address(role, database), poolclass=NullPool)

    def sql(self, statement: str, role: str = "airflow", database: str = "airflow") -> list[Any]:
        """Execute a statement; return its rows."""
        with (
            self.engine(role, database)
            .connect()
            .execution_options(isolation_level="AUTOCOMMIT") as connection
        ):
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    def run(self, *command: str, role: str = "airflow", **more: str) -> str:
        """Run a program as this role to its end; return what it printed."""
        environment = self.environment | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.address(role)} | more
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-9000:]
        return done.stdout + done.stderr

    def grant(self, database: str = "airflow", password: str = PASSWORD) -> None:
        """Run the program, as airflow-init does."""
        self.run(
            sys.executable,
            str(AIRFLOW / "bin/grant-worker"),
            WORKER_DATABASE_PASSWORD=password,
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=self.address("airflow", database),
        )

    def work(self, *tasks: str) -> str:
        """Have a worker run tasks, each `task_id` or `task_id/map_index`, which the scheduler has queued."""
        names = ", ".join(f"'{task.partition('/')[0]}'" for task in tasks)
        self.sql(f"UPDATE task_instance SET state = 'queued' WHERE dag_id = 'work' AND task_id IN ({names})")
        return self.run(sys.executable, "-c", WORK, *tasks, role=ROLE)

    def states(self) -> dict[str, str]:
        """Return the state of each task instance of the run, as `task_id` or `task_id/map_index`."""
        rows = self.sql("SELECT task_id, map_index, state FROM task_instance WHERE dag_id = 'work'")
        return {name if index < 0 else f"{name}/{index}": state for name, index, state in rows}


@pytest.fixture(scope="module")
def platform(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The tables of this Airflow, and a run of the DAG above."""
    platform = Platform(postgres, tmp_path_factory.mktemp("airflow"))
    platform.sql("CREATE DATABASE airflow TEMPLATE empty", database="postgres")
    try:
        platform.grant()
        platform.run(sys.executable, "-c", PREPARE)
        yield platform
    finally:
        for name in ("airflow", "airflow_next"):
            platform.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", database="postgres")
        platform.sql(f"DROP ROLE IF EXISTS {ROLE}", database="postgres")


def test_tasks_end_as_they_do_for_the_owner(platform: Platform) -> None:
    said = platform.work(
        "listed",
        "fails",
        "retried",
        "skipped",
        "short",
        "branch",
        "sensor",
        "external",
        "deferred",
        "triggers",
        "stored",
        "stores",
        "aliased",
    )
    states = platform.states()
    expected = {
        "listed": "success",
        "fails": "failed",
        "retried": "up_for_retry",
        "skipped": "skipped",
        "short": "success",
        "after_short": "skipped",
        "branch": "success",
        "right": "skipped",
        "sensor": "up_for_reschedule",
        "external": "up_for_reschedule",
        "deferred": "deferred",
        "triggers": "success",
        "stored": "success",
        "stores": "failed",
        "aliased": "success",
        # The worker has expanded them, when what they wait for had ended.
        "doubled/0": "scheduled",
        "doubled/1": "scheduled",
    }
    assert {name: states.get(name) for name in expected} == expected, said
    # What a worker does with the rest, and again with what comes back.
    platform.sql("UPDATE task_instance SET trigger_id = NULL WHERE task_id = 'deferred'")
    said = platform.work("doubled/0", "doubled/1", "summed", "retried", "sensor", "deferred")
    states = platform.states()
    assert {
        name: states.get(name)
        for name in ("doubled/0", "doubled/1", "summed", "retried", "sensor", "deferred")
    } == {
        "doubled/0": "success",
        "doubled/1": "success",
        "summed": "success",
        "retried": "success",
        "sensor": "success",
        "deferred": "success",
    }, said
    callbacks = sorted((platform.home / "callbacks").read_text().splitlines())
    assert callbacks == ["failure fails", "retry retried", "success listed"]
    # Airflow goes on without what it may skip, and says so in a log.
    logs = "".join(file.read_text() for file in (platform.home / "logs").rglob("*.log"))
    assert set(re.findall(r"permission denied for \w+ \w+", logs + said)) == {
        "permission denied for table variable"
    }
    assert platform.sql("SELECT state FROM dag_run WHERE run_id = 'by-a-task'") == [("queued",)]
    assert platform.sql("SELECT target_dag_id FROM dataset_dag_run_queue") == [("consumer",)]
    assert len(platform.sql("SELECT FROM xcom WHERE task_id = 'summed' AND key = 'sum'")) == 1


def test_celery_keeps_its_results(platform: Platform) -> None:
    assert "done" in platform.run(sys.executable, "-c", CELERY, role=ROLE)


ATTACKS = [
    "CREATE TABLE mine (id integer)",
    "CREATE TEMPORARY TABLE mine (id integer)",
    "CREATE SCHEMA mine",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION file_fdw",
    "CREATE DATABASE mine",
    "CREATE ROLE mine",
    "ALTER TABLE task_instance ADD COLUMN mine integer",
    "ALTER ROLE airflow PASSWORD 'mine'",
    "ALTER ROLE airflow_worker SUPERUSER",
    "ALTER SYSTEM SET log_statement = 'all'",
    "ALTER DATABASE airflow RENAME TO mine",
    "DROP TABLE task_instance",
    "TRUNCATE task_instance",
    "TRUNCATE log",
    "GRANT SELECT ON ab_user TO airflow_worker",
    "GRANT airflow TO airflow_worker",
    "SET ROLE airflow",
    "SET SESSION AUTHORIZATION airflow",
    "INSERT INTO connection (conn_id, conn_type) VALUES ('mine', 'mine')",
    "UPDATE connection SET host = 'mine'",
    "DELETE FROM connection",
    "INSERT INTO variable (key, val) VALUES ('x', 'x')",
    "UPDATE variable SET val = 'mine'",
    "DELETE FROM variable",
    "INSERT INTO slot_pool (pool, slots) VALUES ('mine', 1)",
    "UPDATE slot_pool SET slots = 1000",
    "DELETE FROM slot_pool",
    "SELECT password FROM ab_user",
    "UPDATE ab_user SET active = true",
    "INSERT INTO ab_user_role (id, user_id, role_id) VALUES (1, 1, 1)",
    "SELECT FROM ab_permission_view_role",
    "SELECT session_id FROM session",
    "INSERT INTO session (session_id) VALUES ('mine')",
    "UPDATE dag SET is_paused = false",
    "UPDATE serialized_dag SET data = '{}'",
    "DELETE FROM dag_run",
    "UPDATE log SET extra = ''",
    "DELETE FROM log",
    "INSERT INTO callback_request (id) VALUES (1)",
    "UPDATE alembic_version SET version_num = 'mine'",
    "COPY log TO PROGRAM 'id'",
    "COPY log FROM PROGRAM 'id'",
    "COPY log FROM '/etc/passwd'",
    "COPY log TO '/tmp/mine'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'airflow'",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_reload_conf()",
    "SELECT lo_import('/etc/passwd')",
]


@pytest.mark.parametrize("statement", ATTACKS)
def test_all_else_is_refused(platform: Platform, statement: str) -> None:
    # An owner's session, which a worker could end if it might.
    with platform.engine().connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(DBAPIError) as refused:
            platform.sql(statement, ROLE)
    # 42501 is insufficient_privilege.
    assert refused.value.orig.pgcode == "42501", refused.value.orig


def test_what_was_granted_before_is_gone(platform: Platform) -> None:
    for statement in (
        "CREATE SCHEMA others",
        "CREATE TABLE others.theirs (id integer)",
        "CREATE TABLE restored (id integer)",
        "ALTER TABLE restored OWNER TO airflow_worker",
        "GRANT ALL ON SCHEMA others TO airflow_worker",
        "GRANT SELECT ON others.theirs TO airflow_worker",
        "GRANT ALL ON variable TO airflow_worker",
        "GRANT SELECT (password) ON ab_user TO airflow_worker",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "GRANT ALL ON SCHEMA public TO airflow_worker",
        "GRANT ALL ON DATABASE airflow TO airflow_worker, PUBLIC",
        "GRANT pg_monitor TO airflow_worker",
        "ALTER ROLE airflow_worker CREATEDB CREATEROLE",
    ):
        platform.sql(statement)
    allowed = [
        "SELECT FROM pg_ls_waldir()",
        "SELECT FROM others.theirs",
        "SELECT FROM restored",
        "DELETE FROM variable WHERE false",
        "SELECT password FROM ab_user",
        "CREATE TABLE made (id integer)",
        "DROP TABLE made",
        "CREATE TABLE made (id integer)",
        "CREATE DATABASE made",
    ]
    for statement in allowed:
        platform.sql(statement, ROLE)
    platform.sql("DROP DATABASE made", database="postgres")
    platform.grant()
    for statement in allowed:
        with pytest.raises(DBAPIError) as refused:
            platform.sql(statement, ROLE)
        assert refused.value.orig.pgcode == "42501", statement
    platform.sql("SELECT FROM task_instance", ROLE)
    platform.sql("DROP TABLE restored, made")


def test_only_who_knows_the_password_logs_in(platform: Platform) -> None:
    """The server has been told a verifier, so that neither its log nor its tables have the password."""
    rules = Path(platform.socket) / "data/pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all {ROLE} scram-sha-256\n{before}")
    try:
        platform.sql("SELECT pg_reload_conf()")
        [(verifier,)] = platform.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'")
        assert verifier.startswith("SCRAM-SHA-256$")
        for password, enters in ((PASSWORD, True), ("another", False)):
            done = subprocess.run(
                ["psql", "--no-password", f"--username={ROLE}", "--dbname=airflow", "--command=SELECT 1"],
                env=platform.environment | {"PGPASSWORD": password},
                capture_output=True,
                text=True,
            )
            assert (done.returncode == 0) is enters, done.stderr
    finally:
        rules.write_text(before)
        platform.sql("SELECT pg_reload_conf()")


def test_password_changes_with_the_live_database_alone(platform: Platform) -> None:
    """While a switch prepares a database, the workers of the old release log in again and again."""

    def verifier() -> str:
        return str(platform.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'"))

    before = verifier()
    platform.sql("CREATE DATABASE airflow_next TEMPLATE empty", database="postgres")
    with pytest.raises(DBAPIError):
        platform.sql("SELECT FROM task_instance", ROLE, "airflow_next")
    platform.grant("airflow_next", "the next one")
    assert verifier() == before
    platform.sql("SELECT FROM task_instance", ROLE, "airflow_next")
    platform.sql("SELECT FROM task_instance", ROLE)
    platform.grant("airflow", "the next one")
    assert verifier() != before


def test_password_is_in_no_statement_and_no_list_of_processes(platform: Platform) -> None:
    """With a server that writes every statement into its log."""
    log = Path(platform.socket) / "log"
    platform.sql("ALTER SYSTEM SET log_statement = 'all'")
    platform.sql("SELECT pg_reload_conf()")
    try:
        platform.grant(password="a-canary-of-a-password")
    finally:
        platform.sql("ALTER SYSTEM RESET log_statement")
        platform.sql("SELECT pg_reload_conf()")
    written = log.read_text()
    assert f"ALTER ROLE {ROLE} PASSWORD" in written
    assert "canary" not in written
