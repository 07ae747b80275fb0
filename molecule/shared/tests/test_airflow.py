"""Airflow itself: the version, the users, the DAGs, and the commands that operators type."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from airflow_api import AirflowApi, wait_for
from expected import AIRFLOW_SERVICES, DAG, DIRECTORY
from testinfra.host import Host


def test_version_is_the_one_asked_for(airflow: AirflowApi, settings: dict[str, str]) -> None:
    """The pin of the inventory is what answers."""
    assert airflow.get("version")["version"] == settings["AIRFLOW_VERSION"]


def test_nobody_but_who_is_meant_is_a_user(
    airflow: AirflowApi, administrator: tuple[str, str], accounts: dict[str, Any]
) -> None:
    """The administrator, the smoke test and the inventory's; no forgotten user of an example or of before."""
    users = {
        user["username"]: {role["name"] for role in user["roles"]}
        for user in airflow.get("users")["users"]
        if user["active"]
    }
    assert users == {
        administrator[0]: {"Admin"},
        accounts["smoke_test"]["username"]: {"Smoke test"},
        **{listed["username"]: {listed["role"], "From the inventory"} for listed in accounts["listed"]},
    }


def test_account_of_the_inventory_logs_in_with_its_role(
    endpoints: dict[str, str], accounts: dict[str, Any]
) -> None:
    """With the password of the vault. A viewer sees the DAGs, and changes nothing."""
    [viewer] = [listed for listed in accounts["listed"] if listed["role"] == "Viewer"]
    api = AirflowApi(endpoints["airflow"], (viewer["username"], viewer["password"]))
    assert api.ask("GET", f"dags/{DAG}").status_code == 200
    assert api.ask("PATCH", f"dags/{DAG}", json={"is_paused": True}).status_code == 403
    assert api.ask("GET", "connections").status_code == 403


@pytest.fixture(scope="module")
def smoke_test(endpoints: dict[str, str], accounts: dict[str, Any]) -> AirflowApi:
    """The REST API as the smoke test sees it."""
    login = accounts["smoke_test"]
    api = AirflowApi(endpoints["airflow"], (login["username"], login["password"]))
    # It is let in: what is refused below is not refused to a stranger.
    assert api.ask("GET", f"dags/{DAG}").status_code == 200
    return api


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "connections"),
        ("GET", "variables"),
        ("POST", "variables"),
        ("GET", "users"),
        ("GET", "roles"),
        ("GET", "pools"),
        ("GET", "eventLogs"),
        ("GET", "config"),
        ("DELETE", f"dags/{DAG}"),
        ("POST", f"dags/{DAG}/clearTaskInstances"),
        ("DELETE", f"dags/{DAG}/dagRuns/any"),
        ("GET", f"dags/{DAG}/dagRuns/any/taskInstances/any/xcomEntries"),
        ("GET", "dags/another"),
        ("PATCH", "dags/another"),
        ("POST", "dags/another/dagRuns"),
    ],
)
def test_smoke_test_can_do_nothing_else(smoke_test: AirflowApi, method: str, path: str) -> None:
    """Its account runs one DAG. Whoever has its password gets no further than that."""
    body: dict[str, Any] | None = (
        {"is_paused": True} if method == "PATCH" else {} if method == "POST" else None
    )
    # A new session for each refusal would wait for the limit of logins.
    assert smoke_test.ask_in_session(method, path, json=body).status_code == 403


def test_smoke_test_sees_its_dag_alone(smoke_test: AirflowApi) -> None:
    """The list has what an account may read."""
    assert [dag["dag_id"] for dag in smoke_test.get("dags")["dags"]] == [DAG]


def test_smoke_run_was_its_own_accounts(airflow: AirflowApi, accounts: dict[str, Any], host: Host) -> None:
    """Not the administrator's: Airflow's own log has who triggered the run that proved this stack."""
    proof = json.loads(host.file(f"{DIRECTORY}/smoke.json").content_string)
    logged = airflow.get("eventLogs", dag_id=DAG, event="api.post_dag_run", limit=100)["event_logs"]
    callers = {json.loads(entry["extra"] or "{}").get("dag_run_id"): entry["owner"] for entry in logged}
    assert callers[proof["run"]] == accounts["smoke_test"]["username"]


def test_no_dag_fails_to_import(airflow: AirflowApi) -> None:
    """A file that cannot be read is a DAG that silently does not run."""
    assert airflow.get("importErrors")["import_errors"] == []


def test_weather_dag_is_what_the_team_knows(airflow: AirflowApi) -> None:
    """Every five minutes, tagged, and without catching up on what was missed."""
    dag = airflow.get(f"dags/{DAG}/details")
    assert dag["schedule_interval"]["value"] == "*/5 * * * *"
    assert [tag["name"] for tag in dag["tags"]] == ["weather"]
    assert dag["catchup"] is False


def test_no_example_is_loaded(airflow: AirflowApi) -> None:
    """Airflow's own examples are somebody else's code."""
    assert [dag["dag_id"] for dag in airflow.get("dags", only_active=True)["dags"]] == [DAG]


def test_no_default_connection_is_there(airflow: AirflowApi) -> None:
    """They come with passwords that everybody knows."""
    assert airflow.get("connections")["connections"] == []


def test_every_dag_is_paused_outside_production(airflow: AirflowApi, settings: dict[str, str]) -> None:
    """What runs on a laptop runs because somebody wanted it to."""
    paused = {dag["dag_id"]: dag["is_paused"] for dag in airflow.get("dags")["dags"]}
    assert paused
    assert settings["ENVIRONMENT"] == "production" or all(paused.values()), paused


def test_start_pauses_every_dag_whatever_the_database_said(
    airflow: AirflowApi, host: Host, containers: dict[str, Any], settings: dict[str, str]
) -> None:
    """A database copied from production must not start production's work elsewhere."""
    scheduler = containers["airflow-scheduler"]["Id"]
    was_paused = airflow.is_paused(DAG)
    # The DAG is released while nobody can start a run of it.
    host.check_output(f"timeout 60 docker stop {scheduler}")
    try:
        airflow.pause(DAG, False)
        assert not airflow.is_paused(DAG)
    finally:
        host.check_output(f"timeout 60 docker start {scheduler}")

    def healthy() -> bool:
        state = host.check_output(f"docker inspect --format '{{{{.State.Health.Status}}}}' {scheduler}")
        return bool(state == "healthy")

    wait_for("the scheduler to be healthy again", healthy, 120)
    paused = airflow.is_paused(DAG)
    airflow.pause(DAG, was_paused)
    assert paused == (settings["ENVIRONMENT"] != "production")


def test_operators_can_run_a_dag_on_the_host(host: Host) -> None:
    """`docker compose run --rm airflow-cli dags test weather-checker`, as it is in the handbook."""
    result = host.run(
        f"cd {DIRECTORY} && timeout 120 docker compose run --rm -T airflow-cli dags test {DAG} 2>&1"
    )
    assert result.rc == 0, result.stdout[-4000:]
    # The program ends well even if a task does not.
    assert "state=success" in result.stdout
    assert "state=failed" not in result.stdout


def test_test_of_a_dag_leaves_no_run(host: Host, airflow: AirflowApi) -> None:
    """The scheduler would run it for real; so the command above has a database of its own."""
    date = "2001-01-01"
    result = host.run(
        f"cd {DIRECTORY} && timeout 120 docker compose run --rm -T airflow-cli"
        f" tasks test {DAG} download {date} 2>&1"
    )
    assert result.rc == 0, result.stdout[-4000:]
    runs = airflow.get(f"dags/{DAG}/dagRuns", execution_date_lte=f"{date}T23:59:59Z")
    assert runs["total_entries"] == 0


def test_no_xcom_is_readable(airflow: AirflowApi, host: Host, weather_run: dict[str, Any]) -> None:
    """What tasks hand on may be a secret: it is encrypted in the database, and the API does not show it."""
    run = weather_run["run"]["dag_run_id"]
    path = f"dags/{DAG}/dagRuns/{run}/taskInstances/download/xcomEntries/return_value"
    value = airflow.get(path)["value"]
    assert value.strip('"') == "Encrypted: only tasks can read it."
    query = f"SELECT encode(value, 'escape') FROM xcom WHERE dag_id = '{DAG}' AND run_id = '{run}'"
    psql = f"docker compose --project-directory {DIRECTORY} exec --no-TTY postgres psql --username=airflow"
    stored = host.check_output(f"{psql} --no-psqlrc -qtA --command={shlex.quote(query)}").splitlines()
    assert stored
    assert [row for row in stored if not row.startswith('{"encrypted_xcom": "')] == []


def test_packages_fit_together(execute: Any) -> None:
    """What the team adds must not break what Airflow was released with."""
    result = execute("airflow-worker", "pip check")
    assert result.rc == 0, result.stdout


@pytest.mark.parametrize("service", AIRFLOW_SERVICES)
def test_every_airflow_container_is_of_one_image(
    containers: dict[str, Any], settings: dict[str, str], service: str
) -> None:
    """A scheduler and a worker of two builds disagree about what a task is."""
    assert containers[service]["Config"]["Image"] == settings["AIRFLOW_IMAGE"]


def test_dags_cannot_change_their_own_code(execute: Any) -> None:
    """What runs is what was committed: the worker's copy of the DAGs takes no writes."""
    result = execute("airflow-worker", "touch /opt/airflow/trees/current/dags/written-by-a-task")
    assert result.rc != 0
    assert "Read-only file system" in result.stderr


POOL_OF_A_TASK = """
from airflow import settings
settings.reconfigure_orm(disable_connection_pool=True)  # as a task's process does
servers = []
for _ in range(2):
    with settings.engine.connect() as connection:
        servers.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
print(len(set(servers)))
"""


@pytest.mark.parametrize(("service", "connections"), [("airflow-worker", "1"), ("airflow-scheduler", "2")])
def test_only_tasks_keep_their_connection(
    execute: Callable[..., Any], service: str, connections: str
) -> None:
    """A task connects once for all its queries (docs/performance.md); others are as Airflow has them."""
    result = execute(service, "python3 -c %s", POOL_OF_A_TASK)
    assert result.stdout.splitlines()[-1:] == [connections], result.stderr
