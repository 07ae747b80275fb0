"""The database role of workers on other hosts: there if there are any, and then for what tasks do alone."""

from __future__ import annotations

import shlex

import pytest
from expected import DIRECTORY
from testinfra.host import Host

ROLE = "airflow_worker"
POSTGRES = f"docker compose --project-directory {DIRECTORY} exec --no-TTY postgres"
PSQL = f"{POSTGRES} psql --username=airflow --no-psqlrc -qtA"


def sql(host: Host, *statements: str) -> tuple[bool, str]:
    """Return whether all of the statements were executed, and what Postgres said."""
    commands = " ".join(f"--command={shlex.quote(statement)}" for statement in statements)
    done = host.run(f"{PSQL} --set=ON_ERROR_STOP=1 {commands}")
    return done.succeeded, (done.stdout + done.stderr).strip()


@pytest.fixture
def has_workers(env_files: dict[str, dict[str, str]]) -> bool:
    """Whether the main host was rendered with workers."""
    return "WORKER_DATABASE_PASSWORD" in env_files["init.env"]


def test_role_is_there_if_there_are_workers(host: Host, has_workers: bool) -> None:
    """The server has a verifier of its password, and it is no superuser."""
    columns = "rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolpassword LIKE 'SCRAM-SHA-256$%'"
    done, found = sql(host, f"SELECT {columns} FROM pg_authid WHERE rolname = '{ROLE}'")
    assert done
    assert found == ("t|f|f|f|t" if has_workers else "")


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("SELECT FROM connection, variable, dag LIMIT 0", True),
        ("UPDATE task_instance SET state = state WHERE false", True),
        ("DELETE FROM xcom WHERE false", True),
        ("SELECT password FROM ab_user LIMIT 0", False),
        ("UPDATE connection SET host = host WHERE false", False),
        ("DELETE FROM variable WHERE false", False),
        ("UPDATE slot_pool SET slots = slots WHERE false", False),
        ("SELECT FROM session LIMIT 0", False),
        ("CREATE TABLE made_by_a_worker (id integer)", False),
        ("CREATE TEMPORARY TABLE made_by_a_worker (id integer)", False),
        ("COPY log TO PROGRAM 'true'", False),
    ],
)
def test_role_is_for_what_tasks_do(host: Host, has_workers: bool, statement: str, allowed: bool) -> None:
    if not has_workers:
        pytest.skip("this host has no workers on other hosts")
    done, said = sql(host, f"SET ROLE {ROLE}", statement)
    assert done is allowed, said
    if not allowed:
        assert "permission denied" in said
