"""The administrator's account: made once, with a password that no process list shows."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(__file__).resolve().parents[2] / "images/airflow/bin"
SMOKE = {"username": "smoke-test", "password": "of-the-smoke-test", "dag": "weather-checker"}
PASSWORD = "p4ss 'word\\n $HOME \"é"

# Keeps what any process of the host could read of it, and then is the real one.
WATCHED = """#!/bin/bash
tr '\\0' ' ' </proc/$$/cmdline >>{home}/arguments
exec {real} "$@"
"""

CHECK = """
from airflow.utils.session import create_session
from sqlalchemy import text
from werkzeug.security import check_password_hash
import os
with create_session() as session:
    query = text("SELECT username, password FROM ab_user WHERE username = 'airflow'")
    [(name, hashed)] = session.execute(query).all()
print(name, check_password_hash(hashed, os.environ["_AIRFLOW_WWW_USER_PASSWORD"]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the container has, with a database that no Airflow has seen."""
    real = Path(sys.executable).parent / "airflow"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "airflow").write_text(WATCHED.format(home=tmp_path, real=real))
    (programs / "airflow").chmod(0o755)
    script = (BIN / "init-airflow").read_text().replace("/usr/local/bin/", f"{BIN}/")
    # A comment on the database is Postgres' own; its test is a real platform's.
    script = script.replace(f"exec python3 {BIN}/record-init", "true")
    (programs / "init-airflow").write_text(script)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {
        **kept,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "_AIRFLOW_WWW_USER_USERNAME": "airflow",
        "_AIRFLOW_WWW_USER_PASSWORD": PASSWORD,
        "ACCOUNTS": json.dumps({"smoke_test": SMOKE, "listed": []}),
    }


@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "a terminal"])
def test_administrator_gets_the_password_unseen(
    environment: dict[str, str], tmp_path: Path, terminal: bool
) -> None:
    command = ["bash", str(tmp_path / "bin/init-airflow")]
    if terminal:
        # As in `docker compose run` by hand: the program's terminal is not to be asked.
        leader, follower = pty.openpty()
        made = subprocess.run(
            command,
            env=environment,
            stdin=follower,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            timeout=400,
        )
        os.close(leader)
    else:
        made = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=400
        )
    assert made.returncode == 0, made.stderr
    seen = (tmp_path / "arguments").read_text()
    assert "users create" in seen
    assert "p4ss" not in seen
    assert SMOKE["password"] not in seen
    checked = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, timeout=300
    )
    assert checked.stdout.splitlines()[-1:] == ["airflow True"], checked.stderr
    again = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "arguments").read_text().count("users create") == 1
