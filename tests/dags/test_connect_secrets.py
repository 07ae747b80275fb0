"""Connections and variables from 1Password (images/airflow/lib/connect_secrets.py), asked for as DAGs do."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

LIB = ROOT / "images/airflow/lib"
sys.path.append(str(LIB))

CONNECTIONS, VARIABLES = "Airflow connections", "Airflow variables"
WAREHOUSE = {"conn_type": "postgres", "host": "db.example.org", "login": "etl", "password": "p/ss:w@rd#1"}


@pytest.fixture
def backend(database, connect, monkeypatch):
    """The vault's items, and the backend before Airflow's own."""
    from airflow import configuration
    from airflow.models import Variable
    from connect_secrets import ConnectBackend

    connect.add(
        CONNECTIONS,
        [
            ("development", "warehouse", json.dumps(WAREHOUSE)),
            ("production", "warehouse", "postgres://production@example.org"),
            ("development", "feed", "https://reader:secret%2Fone@feed.example.org:8443/path"),
            (None, "store", "http://everywhere.example.org"),
            ("development", "mistyped", "postgres://etl:p/ss@db.example.org"),
            ("development", "nonsense", "what is this"),
        ],
    )
    connect.add(
        VARIABLES,
        [
            ("development", "limit", "25"),
            ("production", "limit", "50"),
            (None, "limit", "nobody's"),
            (None, "everywhere", "the same everywhere"),
            ("development", "empty", None),
            ("development", "keys", '{"first": "canary one", "more": ["canary two"]}'),
        ],
    )
    # These ask every backend, too.
    Variable.set("typed", "into the page")
    Variable.set("limit", "older")
    backend = ConnectBackend()
    monkeypatch.setattr(
        configuration, "secrets_backend_list", [backend, *configuration.secrets_backend_list[-2:]]
    )
    monkeypatch.setenv("AIRFLOW_VAR_GIVEN", "by the environment")
    return backend


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limit", "25"),
        ("everywhere", "the same everywhere"),
        ("empty", "default"),
        ("absent", "default"),
        ("given", "by the environment"),
        ("typed", "into the page"),
    ],
)
def test_variable_is_the_vaults_then_airflows_own(backend, key, value):
    from airflow.models import Variable

    assert Variable.get(key, default_var="default") == value


def test_connection_is_a_uri_or_json(backend):
    from airflow.hooks.base import BaseHook

    warehouse = BaseHook.get_connection("warehouse")
    assert {name: getattr(warehouse, name) for name in WAREHOUSE} == WAREHOUSE
    feed = BaseHook.get_connection("feed")
    assert (feed.conn_type, feed.login, feed.password) == ("https", "reader", "secret/one")
    assert (feed.host, feed.port) == ("feed.example.org", 8443)
    assert BaseHook.get_connection("store").host == "everywhere.example.org"


@pytest.mark.parametrize("name", ["mistyped", "nonsense"])
def test_value_that_is_no_connection_is_named_and_not_shown(backend, caplog, name):
    from airflow.exceptions import AirflowNotFoundException
    from airflow.hooks.base import BaseHook

    with pytest.raises(AirflowNotFoundException):
        BaseHook.get_connection(name)
    assert f"The field '{name}' of the item 'Airflow connections' is no URI" in caplog.text
    assert "cast to integer value" not in caplog.text
    assert "'p'" not in caplog.text


def count_requests(monkeypatch):
    """Return the list that gets each path that is asked for."""
    import connect_secrets

    asked, get = [], connect_secrets._get
    monkeypatch.setattr(connect_secrets, "_get", lambda path: (asked.append(path), get(path))[1])
    return asked


def test_many_names_are_one_request_for_each_item(backend, monkeypatch):
    from airflow.hooks.base import BaseHook
    from airflow.models import Variable

    asked = count_requests(monkeypatch)
    for _ in range(3):
        for key in ("limit", "everywhere", "empty", "absent", "given"):
            Variable.get(key, default_var=None)
        for name in ("warehouse", "feed"):
            BaseHook.get_connection(name)
    assert len(asked) == 3, "the list of items and each of the two"


def test_change_in_the_vault_is_seen_soon(backend, connect, monkeypatch):
    import connect_secrets
    from airflow.models import Variable

    assert Variable.get("new", default_var=None) is None
    monkeypatch.setattr(connect_secrets, "VARIABLES", "Other variables")
    connect.add("Other variables", [("development", "new", "seen")])
    now = connect_secrets.time.monotonic()
    monkeypatch.setattr(connect_secrets.time, "monotonic", lambda: now + connect_secrets.KEEP_SECONDS + 1)
    assert Variable.get("new", default_var=None) == "seen"


def test_vault_without_the_items_leaves_all_to_airflow(database, connect, monkeypatch, caplog):
    from connect_secrets import ConnectBackend

    backend = ConnectBackend()
    assert backend.get_variable("limit") is None
    assert backend.get_connection("warehouse") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"OP_API_TOKEN": "wrong token"}, "401"),
        ({"OP_VAULT_ID": "outofscopevault00000000000"}, "404"),
        ({"OP_API_TOKEN": ""}, "OP_API_TOKEN is not set"),
        ({"OP_CONNECT": "http://127.0.0.1:9"}, "cannot be read"),
    ],
)
def test_vault_that_cannot_be_read_is_said_once_asked_once(backend, monkeypatch, caplog, change, words):
    """What Airflow has by itself still works, and a task does not wait for each name anew."""
    import connect_secrets
    from airflow.models import Variable

    monkeypatch.setattr(connect_secrets, "RETRIES", 0)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    asked = count_requests(monkeypatch)
    assert Variable.get("typed") == "into the page"
    assert Variable.get("absent", default_var="default") == "default"
    assert words in caplog.text
    assert "wrong token" not in caplog.text
    assert len(asked) == 1


def test_two_items_of_the_same_title_are_an_error(backend, connect, caplog):
    from airflow.models import Variable

    connect.add(VARIABLES, [])
    assert Variable.get("limit") == "older"
    assert "The vault has 2 items 'Airflow variables': rename or delete one" in caplog.text


@pytest.mark.parametrize("answer", [b"<html>", b'{"message": "busy"}', b"[1]"])
def test_answer_that_is_no_list_of_items_is_an_error(site, monkeypatch, answer):
    from connect_secrets import ConnectBackend, ConnectError

    site.answers["/v1/vaults/v/items"] = (200, answer)
    monkeypatch.setenv("OP_CONNECT", f"{site.url}/v1/")
    monkeypatch.setenv("OP_API_TOKEN", "another made-up token")
    monkeypatch.setenv("OP_VAULT_ID", "v")
    with pytest.raises(ConnectError):
        ConnectBackend().get_variable("limit")


def test_concealed_variable_is_masked_with_all_texts_in_it(backend):
    from airflow.models import Variable
    from airflow.utils.log.secrets_masker import redact

    assert Variable.get("keys", deserialize_json=True)["first"] == "canary one"
    assert redact("one: canary one, two: canary two") == "one: ***, two: ***"


def test_airflow_starts_with_the_backend_and_asks_it(connect, tmp_path):
    """Airflow imports it while it reads its configuration, when nothing of Airflow's own is on the path."""
    connect.add(CONNECTIONS, [("production", "warehouse", json.dumps(WAREHOUSE))])
    connect.add(VARIABLES, [("production", "limit", "50")])
    ask = (
        "from airflow.hooks.base import BaseHook; from airflow.models import Variable\n"
        "print(Variable.get('limit'), BaseHook.get_connection('warehouse').host)"
    )
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__SECRETS__BACKEND": "connect_secrets.ConnectBackend",
        "ENVIRONMENT": "production",
        "PYTHONPATH": str(LIB),
    }
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["50 db.example.org"], done.stderr
