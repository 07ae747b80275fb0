"""The accounts that set-accounts makes, in the tables of this Airflow and before its own REST API."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

BIN = Path(__file__).resolve().parents[2] / "images/airflow/bin"
DAG = "weather-checker"
SMOKE = {"username": "smoke-test", "password": "of the smoke test", "dag": DAG}
JANE = {
    "username": "jane",
    "password": "of Jane",
    "first_name": "Jane",
    "last_name": "O'Doe",
    "email": "jane@example.org",
    "role": "Op",
}
JOHN = {**JANE, "username": "john.doe", "password": "of John", "email": "john@example.org", "role": "Viewer"}

# The web application as gunicorn serves it.
SERVE = """
import sys
from airflow import settings
from airflow.models import DagModel
from airflow.utils.db import initdb
from airflow.www.app import create_app
from werkzeug.serving import make_server

initdb()
with settings.Session() as session:
    for dag in sys.argv[1:]:
        session.add(DagModel(dag_id=dag, is_active=True, is_paused=True, fileloc="/nowhere"))
    session.commit()
app = create_app()
manager = app.appbuilder.sm
manager.add_user("admin", "A", "D", "admin@localhost", manager.find_role("Admin"), password="of admin")
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""
ADD_VARIABLES = """
INSERT INTO ab_permission_view_role (permission_view_id, role_id)
SELECT ab_permission_view.id, ab_role.id FROM ab_permission_view
JOIN ab_permission ON ab_permission.id = permission_id
JOIN ab_view_menu ON ab_view_menu.id = view_menu_id
CROSS JOIN ab_role
WHERE ab_permission.name = 'can_read' AND ab_view_menu.name = 'Variables' AND ab_role.name = 'Smoke test'
"""
Browser = Callable[..., requests.Response]
STRANGER = (401, 403)
"""What the REST API answers to whoever is not logged in: the second from Airflow 2.7 on."""

# What each of these is for Airflow of any version, with what its account needs; {} is a DAG.
MAY = {("GET", "dags/{}"), ("PATCH", "dags/{}"), ("GET", "dags/{}/dagRuns")}
MAY_NOT = {
    ("DELETE", "dags/{}"),
    ("GET", "connections"),
    ("POST", "connections"),
    ("GET", "variables"),
    ("POST", "variables"),
    ("GET", "users"),
    ("GET", "roles"),
    ("GET", "pools"),
    ("GET", "eventLogs"),
    ("GET", "importErrors"),
    ("GET", "config"),
    ("DELETE", "dags/{}/dagRuns/any"),
    ("GET", "dags/{}/dagRuns/any/taskInstances/any/xcomEntries"),
    ("POST", "dags/{}/clearTaskInstances"),
}


def set_accounts(address: str, *listed: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the program as airflow-init does."""
    environment = {
        **os.environ,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
        "ACCOUNTS": json.dumps({"smoke_test": SMOKE, "listed": listed}),
    }
    return subprocess.run(
        [sys.executable, str(BIN / "set-accounts")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def accounts(address: str) -> dict[str, tuple[bool, set[str]]]:
    """Return whether each account is active, and its roles."""
    query = (
        "SELECT username, active, name FROM ab_user"
        " LEFT JOIN ab_user_role ON ab_user_role.user_id = ab_user.id"
        " LEFT JOIN ab_role ON ab_role.id = role_id"
    )
    found: dict[str, tuple[bool, set[str]]] = {}
    with create_engine(address).connect() as connection:
        for username, active, role in connection.execute(text(query)):
            found.setdefault(username, (bool(active), set()))[1].update({role} - {None})
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an Airflow of this module's own."""
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def address(home: Path) -> str:
    """Its database."""
    return f"sqlite:///{home}/airflow.db"


@pytest.fixture(scope="module")
def pages(home: Path, address: str) -> Iterator[str]:
    """Its webserver, with two DAGs and an administrator whom set-accounts has not made."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.session",
        "AIRFLOW__WEBSERVER__ENABLE_PROXY_FIX": "true",
        "AIRFLOW__WEBSERVER__SECRET_KEY": "a test's",
    }
    command = [sys.executable, "-c", SERVE, DAG, "another"]
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        # Airflow prints on its way.
        ready = next((line for line in process.stdout if line.startswith("http://")), "")
        try:
            assert ready, (home / "log").read_text()[-4000:]
            yield ready.strip()
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _smoke_account_alone(address: str, pages: str) -> None:
    done = set_accounts(address)
    assert done.returncode == 0, done.stderr


def log_in(pages: str, username: str, password: str) -> Browser:
    """Return a browser that has tried to log in, from an address that has not yet tried too often."""
    browser = requests.Session()
    browser.trust_env = False
    browser.headers["X-Forwarded-For"] = f"2001:db8::{os.urandom(2).hex()}"
    token = re.search(
        r'name="csrf_token"[^>]*value="([^"]+)"', browser.get(f"{pages}/login/", timeout=60).text
    )
    fields = {"username": username, "password": password, "csrf_token": token[1] if token else ""}
    browser.post(f"{pages}/login/", data=fields, allow_redirects=False, timeout=60)
    return lambda method, path, **options: browser.request(
        method, f"{pages}/api/v1/{path}", timeout=60, **options
    )


def status(browser: Browser, method: str, path: str, dag: str) -> int:
    """Return what the REST API answers. A body may be wrong: that is seen after who sends it."""
    body: dict[str, Any] | None = (
        {"is_paused": True} if method == "PATCH" else {} if method == "POST" else None
    )
    return browser(method, path.format(dag), json=body).status_code


@pytest.fixture
def smoke_test(pages: str) -> Browser:
    """The smoke test, logged in."""
    return log_in(pages, SMOKE["username"], SMOKE["password"])


@pytest.mark.parametrize(("referer", "status"), [("", 400), ("https://airflow.test/login/", 302)])
def test_form_over_tls_says_where_it_is_from(pages: str, referer: str, status: int) -> None:
    """So HAProxy lets browsers tell it, and the modules that log in tell it."""
    headers = {"Host": "airflow.test", "X-Forwarded-Proto": "https", "X-Forwarded-For": "2001:db8:1::1"}
    with requests.Session() as browser:
        browser.trust_env = False
        form = browser.get(f"{pages}/login/", headers=headers, timeout=60).text
        [token] = re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', form)
        fields = {"username": SMOKE["username"], "password": SMOKE["password"], "csrf_token": token}
        headers |= {"Referer": referer} if referer else {}
        answer = browser.post(
            f"{pages}/login/", data=fields, headers=headers, allow_redirects=False, timeout=60
        )
    assert answer.status_code == status
    assert "/login" not in answer.headers.get("Location", "")


@pytest.mark.parametrize(("method", "path"), sorted(MAY))
def test_smoke_test_may(smoke_test: Browser, method: str, path: str) -> None:
    assert status(smoke_test, method, path, DAG) == 200


@pytest.mark.parametrize(("method", "path"), sorted(MAY_NOT))
def test_smoke_test_may_not(smoke_test: Browser, method: str, path: str) -> None:
    assert status(smoke_test, method, path, DAG) == 403


@pytest.mark.parametrize(("method", "path"), sorted(MAY))
def test_smoke_test_may_not_with_another_dag(smoke_test: Browser, method: str, path: str) -> None:
    assert status(smoke_test, method, path, "another") == 403


def test_smoke_test_may_trigger_its_dag_and_no_other(smoke_test: Browser) -> None:
    """As far as the run is made: neither DAG has a file here."""
    assert status(smoke_test, "POST", "dags/{}/dagRuns", "another") == 403
    assert status(smoke_test, "POST", "dags/{}/dagRuns", DAG) not in (401, 403)


def test_smoke_test_sees_its_dag_alone(smoke_test: Browser) -> None:
    dags = smoke_test("GET", "dags").json()["dags"]
    assert [dag["dag_id"] for dag in dags] == [DAG]


def test_smoke_tests_role_gets_no_more_than_that(pages: str, address: str, smoke_test: Browser) -> None:
    """What somebody has added in the pages is gone after the next run."""
    with create_engine(address).begin() as connection:
        connection.execute(text(ADD_VARIABLES))
    assert status(smoke_test, "GET", "variables", DAG) == 200
    assert set_accounts(address).returncode == 0
    assert status(log_in(pages, SMOKE["username"], SMOKE["password"]), "GET", "variables", DAG) == 403


def test_listed_accounts_have_their_roles_and_passwords(pages: str, address: str) -> None:
    done = set_accounts(address, JANE, JOHN)
    assert done.returncode == 0, done.stderr
    assert accounts(address) == {
        "admin": (True, {"Admin"}),
        "smoke-test": (True, {"Smoke test"}),
        "jane": (True, {"Op", "From the inventory"}),
        "john.doe": (True, {"Viewer", "From the inventory"}),
    }
    assert status(log_in(pages, "jane", "of Jane"), "GET", "connections", DAG) == 200
    assert status(log_in(pages, "john.doe", "of John"), "GET", "connections", DAG) == 403
    assert status(log_in(pages, "john.doe", "of John"), "GET", "dags/{}", "another") == 200
    assert status(log_in(pages, "john.doe", "of Jane"), "GET", "dags/{}", "another") in STRANGER


def test_session_ends_with_the_role(pages: str, address: str) -> None:
    """The webserver remembers what somebody may do. Without a change nobody has to log in again."""
    assert set_accounts(address, JANE, JOHN).returncode == 0
    jane = log_in(pages, "jane", "of Jane")
    assert status(jane, "GET", "connections", DAG) == 200
    assert set_accounts(address, JANE, JOHN).returncode == 0
    assert status(jane, "GET", "connections", DAG) == 200
    assert set_accounts(address, {**JANE, "role": "User"}, JOHN).returncode == 0
    assert accounts(address)["jane"] == (True, {"User", "From the inventory"})
    assert accounts(address)["john.doe"] == (True, {"Viewer", "From the inventory"})
    assert status(jane, "GET", "connections", DAG) in STRANGER


def test_account_that_is_listed_no_more_is_closed_at_once(pages: str, address: str) -> None:
    """A session of before is worth nothing, and the account comes back when it is listed again."""
    assert set_accounts(address, JANE).returncode == 0
    before = log_in(pages, "jane", "of Jane")
    assert status(before, "GET", "connections", DAG) == 200
    assert set_accounts(address).returncode == 0
    assert accounts(address)["jane"] == (False, set())
    assert status(before, "GET", "connections", DAG) in STRANGER
    assert status(log_in(pages, "jane", "of Jane"), "GET", "dags/{}", DAG) in STRANGER
    assert set_accounts(address, JANE).returncode == 0
    assert accounts(address)["jane"] == (True, {"Op", "From the inventory"})


def test_accounts_of_others_stay_as_they_are(pages: str, address: str) -> None:
    """The administrator, and who was made in the pages."""
    assert set_accounts(address, JANE).returncode == 0
    assert set_accounts(address).returncode == 0
    assert accounts(address)["admin"] == (True, {"Admin"})
    assert status(log_in(pages, "admin", "of admin"), "GET", "users", DAG) == 200
    taken = set_accounts(address, {**JANE, "email": "Admin@localhost"})
    assert taken.returncode == 1
    assert "jane cannot have the e-mail address Admin@localhost: it is that of admin." in taken.stderr
    assert accounts(address)["jane"] == (False, set())


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ([JANE], [{**JANE, "username": "jdoe"}], {"jdoe"}),
        (
            [JANE, JOHN],
            [{**JANE, "email": JOHN["email"]}, {**JOHN, "email": JANE["email"]}],
            {"jane", "john.doe"},
        ),
    ],
    ids=["another name", "swapped"],
)
def test_address_goes_to_another_account_of_the_list(
    address: str, before: list[dict[str, str]], after: list[dict[str, str]], names: set[str]
) -> None:
    """A person who gets another name keeps the address."""
    assert set_accounts(address, *before).returncode == 0
    done = set_accounts(address, *after)
    assert done.returncode == 0, done.stderr
    assert {name for name, (active, _) in accounts(address).items() if active} == {
        "admin",
        "smoke-test",
    } | names
    with create_engine(address).connect() as connection:
        found = dict(connection.execute(text("SELECT username, email FROM ab_user")).fetchall())
    assert {one["username"]: found[one["username"]] for one in after} == {
        one["username"]: one["email"] for one in after
    }


def test_postgres_numbers_its_rows(postgres: dict[str, str]) -> None:
    """By its sequences, so that Airflow's next account gets a number of its own."""
    subprocess.run(["createdb", "--template=empty", "accounts"], env=postgres, check=True)
    address = postgres["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("@/airflow?", "@/accounts?")
    for _ in range(2):
        done = set_accounts(address, JANE, JOHN)
        assert done.returncode == 0, done.stderr
    with create_engine(address, poolclass=NullPool).connect() as connection:
        for table in ("ab_user", "ab_role", "ab_permission", "ab_permission_view", "ab_user_role"):
            highest = connection.execute(text(f"SELECT max(id) FROM {table}")).scalar()
            assert connection.execute(text(f"SELECT nextval('{table}_id_seq')")).scalar() > highest
    assert set_accounts(address).returncode == 0
