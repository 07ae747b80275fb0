"""What the worker's role may do in the database: what a task does, and nothing that is an administrator's."""

from __future__ import annotations

import json

import pytest
from worker_host import WorkerHost

# Runs each of its arguments in a transaction that is never committed, and prints the code of each error.
PROGRAM = """
import json, os, sys
import psycopg2
from sqlalchemy.engine import make_url
address = make_url(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
codes = []
for statement in sys.argv[1:]:
    connection = psycopg2.connect(
        host=address.host, port=address.port or 5432, user=address.username,
        password=address.password, dbname=address.database,
    )
    try:
        connection.cursor().execute(statement)
        codes.append("")
    except psycopg2.Error as error:
        codes.append(error.pgcode)
    finally:
        connection.rollback()
        connection.close()
print(json.dumps(codes))
"""
INSUFFICIENT_PRIVILEGE = "42501"

REFUSED = [
    "CREATE TABLE intruder (number int)",
    "CREATE SCHEMA intruder",
    "CREATE TEMPORARY TABLE intruder (number int)",
    "CREATE FUNCTION intrude() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE dag_run ADD COLUMN intruder int",
    "DROP TABLE xcom",
    "TRUNCATE task_instance",
    "CREATE ROLE intruder LOGIN",
    "ALTER ROLE airflow PASSWORD 'known'",
    "SET ROLE airflow",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/intruder'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT * FROM ab_user",
    "SELECT * FROM ab_user_role",
    "INSERT INTO ab_user_role (user_id, role_id) VALUES (1, 1)",
    "UPDATE ab_user SET active = true",
    "SELECT * FROM session",
    "INSERT INTO connection (conn_id, conn_type) VALUES ('intruder', 'http')",
    "UPDATE connection SET host = 'intruder.example.org'",
    "DELETE FROM connection",
    "INSERT INTO variable (key, val, is_encrypted) VALUES ('intruder', '1', false)",
    "UPDATE variable SET val = '1'",
    "DELETE FROM variable",
    "INSERT INTO slot_pool (pool, slots) VALUES ('intruder', 1)",
    "UPDATE slot_pool SET slots = 0",
    "DELETE FROM slot_pool",
    "UPDATE serialized_dag SET data = NULL",
    "DELETE FROM dag_run",
    "DELETE FROM log",
]
ALLOWED = [
    "SELECT * FROM dag_run LIMIT 1",
    "SELECT * FROM connection LIMIT 1",
    "SELECT * FROM variable LIMIT 1",
    "UPDATE task_instance SET state = state WHERE false",
    "DELETE FROM xcom WHERE false",
]


@pytest.fixture(scope="module")
def codes(worker: WorkerHost) -> dict[str, str]:
    """The code of the error that each statement has, "" for none."""
    done = worker.inside(PROGRAM, *ALLOWED, *REFUSED)
    assert done.rc == 0, done.stderr
    return dict(zip([*ALLOWED, *REFUSED], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("statement", ALLOWED)
def test_role_does_what_a_task_does(codes: dict[str, str], statement: str) -> None:
    assert codes[statement] == ""


@pytest.mark.parametrize("statement", REFUSED)
def test_role_is_refused(codes: dict[str, str], statement: str) -> None:
    """For want of a privilege, and not because the statement is wrong."""
    assert codes[statement] == INSUFFICIENT_PRIVILEGE
