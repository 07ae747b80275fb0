"""The image's programs that a restore asks, on a real Airflow with a database of its own."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

IMAGE = Path(__file__).resolve().parents[2] / "images/airflow"
BIN = IMAGE / "bin"
# Fernet keys for nothing but these tests.
KEY = "cFNs8t5Yi3oLzOEGV1vTYmzzEG4s3oYGhwYoNKy2Gbw="
OTHER = "OtJ2T3gP6xkq2H8m8sC6Qd1cXxLJMIgqkBr0nA9iRfw="

FILL = """
from airflow.models import Connection, Variable
from airflow.utils.db import upgradedb
from airflow.utils.session import create_session
upgradedb()
with create_session() as session:
    full = Connection(conn_id="full", conn_type="http", password="secret-one", extra='{"a": "secret-two"}')
    session.add(full)
    session.add(Connection(conn_id="bare", conn_type="http"))
Variable.set("one", "secret-three")
"""


def run(command: list[str], home: Path, key: str = KEY) -> subprocess.CompletedProcess[str]:
    """Run a program with this Airflow's Python and nothing of the caller's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(IMAGE / "lib"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__FERNET_KEY": key,
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow with two connections and a variable."""
    home = tmp_path_factory.mktemp("airflow")
    filled = run([sys.executable, "-c", FILL], home)
    assert filled.returncode == 0, filled.stderr
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    shutil.copy(filled / "airflow.db", tmp_path)
    return tmp_path


def sql(home: Path, statement: str, *values: str) -> list[tuple[str]]:
    """Return the rows of a statement; a start of Airflow for each of them would take seconds."""
    with contextlib.closing(sqlite3.connect(home / "airflow.db")) as database, database:
        return database.execute(statement, values).fetchall()


def lose(home: Path) -> None:
    """Add a variable that Airflow encrypted with another key."""
    lost = Fernet(Fernet.generate_key()).encrypt(b"x").decode()
    sql(home, "INSERT INTO variable (key, val, is_encrypted) VALUES ('lost', ?, true)", lost)


@pytest.mark.parametrize("key", [KEY, f"{OTHER},{KEY}"])
def test_right_key_fits(home: Path, key: str) -> None:
    found = run([sys.executable, str(BIN / "check-fernet")], home, key)
    assert (found.returncode, found.stdout) == (0, "3 of 3 encrypted values can be decrypted\n")


def test_wrong_key_does_not(home: Path) -> None:
    found = run([sys.executable, str(BIN / "check-fernet")], home, OTHER)
    assert found.returncode == 1
    assert "is not the one that this database was encrypted with" in found.stderr
    for name in ("connection full, password", "connection full, extra", "variable one"):
        assert f"not with this key: {name}" in found.stdout
    assert "secret" not in found.stdout + found.stderr


def test_one_value_of_another_key_is_refused_by_name(home: Path) -> None:
    lose(home)
    found = run([sys.executable, str(BIN / "check-fernet")], home)
    assert found.returncode == 1
    assert found.stdout == "3 of 4 encrypted values can be decrypted\nnot with this key: variable lost\n"
    assert "1 encrypted values cannot be decrypted" in found.stderr


def test_re_encrypts_all_but_what_no_key_decrypts(home: Path) -> None:
    """`airflow rotate-fernet-key` stops at the first of these; a rotation has to say which they are."""
    program = [sys.executable, str(BIN / "check-fernet")]
    lose(home)
    sql(
        home,
        "INSERT INTO connection (conn_id, conn_type, password, is_encrypted, is_extra_encrypted)"
        " VALUES ('aaa', 'http', ?, true, false)",
        Fernet(Fernet.generate_key()).encrypt(b"x").decode(),
    )
    new = Fernet.generate_key().decode()
    lost = "not with this key: connection aaa, password\nnot with this key: variable lost\n"
    found = run([*program, "--re-encrypt"], home, f"{new},{KEY}")
    assert (found.returncode, found.stdout) == (1, f"3 of 5 encrypted values can be decrypted\n{lost}")
    again = run(program, home, new)
    assert again.stdout == found.stdout, "not encrypted with the first of the keys"
    [(value,)] = sql(home, "SELECT val FROM variable WHERE key = 'one'")
    assert Fernet(new).decrypt(value) == b"secret-three"


def test_re_encrypts_what_a_trigger_has(home: Path) -> None:
    """Since 2.9; before, a trigger's arguments are readable, and stay so."""
    add = (
        "from airflow.models import Trigger\n"
        "from airflow.utils.session import create_session\n"
        "with create_session() as session: session.add(Trigger('a.Class', {'token': 'secret'}))"
    )
    assert run([sys.executable, "-c", add], home).returncode == 0
    new = Fernet.generate_key().decode()
    run([sys.executable, str(BIN / "check-fernet"), "--re-encrypt"], home, f"{new},{KEY}")
    read = (
        "from airflow.models import Trigger\n"
        "from airflow.utils.session import create_session\n"
        "with create_session() as session: print(session.query(Trigger).one().kwargs)"
    )
    assert run([sys.executable, "-c", read], home, new).stdout.splitlines()[-1] == "{'token': 'secret'}"


@pytest.mark.parametrize(
    ("options", "asked", "at_least"),
    [([], "[one.revision for one in script.walk_revisions()]", 100), (["--heads"], "script.get_heads()", 1)],
    ids=["known", "needed"],
)
def test_tells_the_schemas_that_alembic_tells(
    home: Path, options: list[str], asked: str, at_least: int
) -> None:
    known = run([sys.executable, str(BIN / "schema-revisions"), *options], home)
    assert known.returncode == 0, known.stderr
    ask = (
        "import airflow, pathlib; from alembic.script import ScriptDirectory\n"
        "script = ScriptDirectory(str(pathlib.Path(airflow.__file__).parent / 'migrations'))\n"
        f"print(*{asked})"
    )
    alembic = run([sys.executable, "-c", ask], home)
    assert alembic.returncode == 0, alembic.stderr
    assert sorted(known.stdout.split()) == sorted(alembic.stdout.split()[-len(known.stdout.split()) :])
    assert len(known.stdout.split()) >= at_least
