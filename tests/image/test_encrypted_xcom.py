"""XComs (images/airflow/lib/encrypted_xcom.py) of a DAG like the team's, on each Airflow and a real Postgres.

Every secret of the DAG has the word `canary` in each of its lines.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "images/airflow/lib"
sys.path.append(str(LIB))
KEY, NEW_KEY = (Fernet.generate_key().decode() for _ in range(2))

SECRETS = {
    "KEY": "canary-0123456789",
    "PEM": "-----BEGIN canary KEY-----\ncanary+one/==\ncanary+two/==\n-----END canary KEY-----\n",
    "QUOTED": 'canary "one" \\ it\'s a canary',
}

TEAM_DAG = """
import inspect, json, logging, os, pickle, sys
from airflow.decorators import dag, task
from airflow.models import XCom
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.serialization.serialized_objects import SerializedDAG
from airflow.utils.log.secrets_masker import _secrets_masker, mask_secret
from airflow.utils.session import create_session
from pendulum import datetime

SECRETS = json.loads(os.environ["SECRETS"])
log = logging.getLogger("airflow.task")


def forget(context=None):
    "Mask nothing any more: on a worker the next task has a process of its own."
    _secrets_masker().patterns.clear()
    _secrets_masker().replacer = None


class Container(DockerOperator):
    "Logs what a container would, and returns what it was given."

    def execute(self, context):
        self.log.info("%s %s", self.environment, self.command)
        for value in self.environment.values():
            for line in value.splitlines():
                self.log.info("| %s", line)
        return [self.environment, self.command]


@dag(schedule=None, start_date=datetime(2026, 1, 1), default_args={"on_success_callback": forget})
def team():
    @task(show_return_value_in_logs=False)
    def get_env_vars():
        for secret in SECRETS.values():
            mask_secret(secret)
        # As Airflow does with the password of a connection, however short.
        mask_secret("form")
        return {**SECRETS, "LEVEL": "information"}

    @task
    def use(env):
        log.info("%s %s", env, json.dumps(env))
        return env

    @task
    def each(number):
        mask_secret(SECRETS["KEY"])
        return f"{number} {SECRETS['KEY']}"

    @task
    def gather(values):
        log.info("%s", list(values))
        return [len(values), values[1], list(values), list(pickle.loads(pickle.dumps(values)))]

    env = get_env_vars()
    use(env)
    gather(each.expand(number=[1, 2]))
    # Airflow masks by the names of keys, too; those of the second are a text by then.
    Container(task_id="docker", image="none", environment=env)
    text = "run {{ ti.xcom_pull(task_ids='get_env_vars') }}"
    Container(task_id="text", image="none", command=text) << env


dag = team()
"""

SCENARIO = """
from airflow import settings
from airflow.models import DagRun, crypto
from sqlalchemy import text

# As `airflow tasks run` does, which is what a worker starts.
settings.MASK_SECRETS_IN_LOGS = True
dag.test()
forget()
told = {"backend": f"{XCom.__module__}.{XCom.__name__}"}
run = DagRun.find(dag_id="team")[-1]
place = {"dag_id": "team", "run_id": run.run_id}
told["state"] = run.state


def sql(statement):
    with settings.engine.begin() as connection:
        found = connection.execute(text(statement))
        return [list(row) for row in found] if found.returns_rows else None


def read(task_id, key="return_value"):
    return XCom.get_one(task_id=task_id, key=key, **place)


def attempt(what):
    try:
        return what()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


with create_session() as session:
    told["fields"] = {
        row.task_id: row.rendered_fields for row in session.query(RenderedTaskInstanceFields)
    }
    # What a page renders for a task that has not run yet, as the webserver has the DAG.
    session.query(RenderedTaskInstanceFields).delete()
told["rendered"] = {}
for task_id in ("docker", "text", "use"):
    forget()
    ti = run.get_task_instance(task_id)
    ti.task = SerializedDAG.from_dict(SerializedDAG.to_dict(dag)).get_task(task_id)
    ti.get_rendered_template_fields()
    told["rendered"][task_id] = str({name: getattr(ti.task, name) for name in ti.task.template_fields})

with create_session() as session:
    sql("INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp) SELECT"
        " dag_run_id, task_id, -1, 'old', dag_id, run_id, '[1, \\"plain canary\\"]'::bytea, now() FROM xcom"
        " WHERE task_id = 'use'")
    told["page"] = {f"{row.task_id} {row.key}": row.value for row in session.query(XCom)}
from unittest import mock
from flask import Flask

# Before 2.8 the module registers its permissions while it is imported.
with Flask("api").app_context() as context:
    context.app.appbuilder = mock.MagicMock()
    from airflow.api_connexion.endpoints import xcom_endpoint

get_entry = inspect.unwrap(xcom_endpoint.get_xcom_entry)
for deserialize in (False, True):
    with create_session() as session:
        told[f"rest {deserialize}"] = [
            get_entry(dag_id="team", task_id="use", dag_run_id=run.run_id, xcom_key=key,
                      deserialize=deserialize, session=session)["value"]
            for key in ("return_value", "old")
        ]
forget()

told["one"] = read("get_env_vars")
told["value"] = XCom.get_value(ti_key=run.get_task_instance("get_env_vars").key, key="return_value")
told["gathered"] = read("gather")
told["docker"], told["text"] = read("docker"), read("text")
told["old"] = read("use", "old")
told["stored"] = [row[0] for row in sql("SELECT encode(value, 'escape') FROM xcom WHERE key <> 'old'")]

def set_and_get(value):
    XCom.set(key="set", value=value, task_id="use", **place)
    return read("use", "set")

large = "x" * 5_000_000
told["same"] = {
    "large": set_and_get(large) == large,
    "none": set_and_get(None) is None,
    "text": set_and_get('{"encrypted_xcom": "no"}') == '{"encrypted_xcom": "no"}',
    "unicode": set_and_get("Größe \\u2028 \\U0001f511") == "Größe \\u2028 \\U0001f511",
    "list": set_and_get([1, {"a": [None, 2.5, True]}]) == [1, {"a": [None, 2.5, True]}],
}
os.environ["AIRFLOW__CORE__ENABLE_XCOM_PICKLING"] = "true"
told["same"]["pickle"] = set_and_get({1, 2}) == {1, 2}
mask_secret(SECRETS["PEM"])
set_and_get({SECRETS["PEM"]})
forget()
read("use", "set")
log.info("a pickled %s", SECRETS["PEM"])
told["same"]["older"] = read("use") == read("get_env_vars")
del os.environ["AIRFLOW__CORE__ENABLE_XCOM_PICKLING"]

XCom.clear(task_id="use", **place)
told["cleared"] = read("use")
with create_session() as session:
    XCom.delete(session.query(XCom).filter(XCom.task_id == "text").all(), session)
told["deleted"] = read("text")

for name, key in (("other", os.environ["NEW_KEY"]), ("none", ""), ("broken", "no key")):
    crypto._fernet = None
    os.environ["AIRFLOW__CORE__FERNET_KEY"] = key
    told[f"read with {name}"] = attempt(lambda: read("get_env_vars"))
    if name != "other":
        told[f"set with {name}"] = attempt(lambda: XCom.set(key="lost", value="a", task_id="use", **place))
    with create_session() as session:
        told[f"page with {name}"] = sorted({row.value for row in session.query(XCom)})
    attempt(lambda: XCom.clear(task_id="docker", **place))
told["after"] = [row[0] for row in sql("SELECT task_id || ' ' || key FROM xcom ORDER BY 1")]
with open(os.environ["TOLD"], "w") as file:
    json.dump(told, file)
"""


@pytest.fixture(scope="module")
def environment(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a worker; the database is `xcom`."""
    subprocess.run(["createdb", "--template=empty", "xcom"], env=postgres, check=True)
    home = tmp_path_factory.mktemp("airflow")
    return {
        **postgres,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "true",
        "AIRFLOW__CORE__FERNET_KEY": KEY,
        "AIRFLOW__CORE__XCOM_BACKEND": "encrypted_xcom.EncryptedXCom",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace(
            "@/airflow?", "@/xcom?"
        ),
        "AIRFLOW__LOGGING__SECRET_MASK_ADAPTER": "secret_forms.forms",
        "NEW_KEY": NEW_KEY,
        "PYTHONPATH": str(LIB),
        "SECRETS": json.dumps(SECRETS),
        "TOLD": str(home / "told.json"),
    }


@pytest.fixture(scope="module")
def told(environment: dict[str, str]) -> dict[str, Any]:
    """What a run of the DAG, and the reading of its XComs, has shown."""
    program = Path(environment["AIRFLOW_HOME"]) / "team.py"
    program.write_text(TEAM_DAG + SCENARIO, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(Path(environment["TOLD"]).read_text(encoding="utf-8"))
    assert told["state"] == "success", done.stdout + done.stderr
    told["log"] = done.stdout + done.stderr
    return told


SHOWN = "Encrypted: only tasks can read it."
ENVIRONMENT = {**SECRETS, "LEVEL": "information"}


def test_tasks_read_what_was_handed_on(told: dict[str, Any]) -> None:
    """Alone, with others of a mapped task, lazily, in a template, by Airflow's own functions."""
    assert told["backend"] == "encrypted_xcom.EncryptedXCom"
    assert told["one"] == told["value"] == ENVIRONMENT
    both = [f"{number} {SECRETS['KEY']}" for number in (1, 2)]
    assert told["gathered"] == [2, both[1], both, both]
    assert told["docker"][0] == ENVIRONMENT
    assert told["text"][1] == f"run {ENVIRONMENT}"


def test_earlier_values_stay_readable(told: dict[str, Any]) -> None:
    assert told["old"] == [1, "plain canary"]


@pytest.mark.parametrize("kind", ["large", "none", "text", "unicode", "list", "pickle", "older"])
def test_any_value_comes_back(told: dict[str, Any], kind: str) -> None:
    assert told["same"][kind]


def test_no_row_is_readable(told: dict[str, Any]) -> None:
    """Airflow's own code can parse each row, and finds nothing in it."""
    assert len(told["stored"]) >= 7
    for stored in told["stored"]:
        assert list(json.loads(stored)) == ["encrypted_xcom"]
        assert "canary" not in stored


def test_pages_and_rest_api_show_no_value(told: dict[str, Any]) -> None:
    """An earlier one neither; what was shown is not written to the database."""
    assert set(told["page"].values()) == {SHOWN}
    assert "use old" in told["page"]
    for deserialize in (False, True):
        assert [value.strip('"') for value in told[f"rest {deserialize}"]] == [SHOWN, SHOWN]


def test_rendered_templates_show_no_secret(told: dict[str, Any]) -> None:
    """Before a task has run the webserver renders them; then they are in the database."""
    for rendered in (told["fields"], told["rendered"]):
        assert "canary" not in json.dumps(rendered)
    # A secret with lines is masked by lines.
    shown = {name: set(value.split()) for name, value in told["fields"]["docker"]["environment"].items()}
    assert shown == {**{name: {"***"} for name in SECRETS}, "LEVEL": {"information"}}
    assert "information" in told["fields"]["text"]["command"]
    assert "information" in told["rendered"]["text"]


def test_no_log_has_a_secret(told: dict[str, Any], environment: dict[str, str]) -> None:
    """Whole or a line of it; of what is no secret nothing is masked."""
    logs = [path.read_text(encoding="utf-8") for path in Path(environment["AIRFLOW_HOME"]).rglob("*.log")]
    for text in (told["log"], *logs):
        assert [line for line in text.splitlines() if "canary" in line] == []
    assert "'LEVEL': 'information'" in told["log"]
    assert "a pickled ***" in told["log"]


def test_xcoms_are_cleared_and_deleted(told: dict[str, Any]) -> None:
    assert told["cleared"] is None
    assert told["deleted"] is None


def test_key_that_is_wrong_or_absent_is_an_error(told: dict[str, Any]) -> None:
    """And stores nothing; pages and the clearing of a task work all the same."""
    assert "cannot be decrypted with AIRFLOW__CORE__FERNET_KEY" in told["read with other"]
    for told_of in (told["read with none"], told["set with none"]):
        assert "AIRFLOW__CORE__FERNET_KEY is empty" in told_of
    for told_of in (told["read with broken"], told["set with broken"]):
        assert "Fernet key must be 32" in told_of
    for name in ("other", "none", "broken"):
        assert told[f"page with {name}"] == [SHOWN]
    assert "use lost" not in told["after"]
    assert "docker return_value" not in told["after"]


def check_fernet(environment: dict[str, str], key: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the image's program."""
    program = [sys.executable, str(ROOT / "images/airflow/bin/check-fernet"), *options]
    return subprocess.run(
        program,
        env={**environment, "AIRFLOW__CORE__FERNET_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def values(environment: dict[str, str], key: str) -> dict[str, Any]:
    """Return what each row holds, read with this key alone, and of the DAG `lost` what is stored."""
    from stored_xcom import decrypt, token_of

    psql = ["psql", "--dbname=xcom", "--no-psqlrc", "-qtA"]
    name = "dag_id || ' ' || task_id || ' ' || key"
    query = f"SELECT json_build_array({name}, encode(value, 'base64')) FROM xcom"
    rows = subprocess.run(
        [*psql, f"--command={query}"], env=environment, check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for name, stored in map(json.loads, rows.splitlines()):
        token = token_of(base64.b64decode(stored))
        assert token is not None or name.startswith("lost"), f"{name} is not encrypted"
        if token and not name.startswith("lost"):
            found[name] = json.loads(decrypt(MultiFernet([Fernet(key)]), token)[0])
    return found


LOSE = """
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
  SELECT dag_run_id, task_id, -1, 'old', dag_id, run_id, '"plain canary"'::bytea, now() FROM xcom
  WHERE task_id = 'get_env_vars';
INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, state, log_template_id)
  SELECT 'lost', 'lost', now(), 'manual', 'success', log_template_id FROM dag_run LIMIT 1;
INSERT INTO task_instance (dag_id, task_id, run_id, map_index, pool, pool_slots)
  SELECT 'lost', 'a', 'lost', -1, 'default_pool', 1;
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
  SELECT (SELECT id FROM dag_run WHERE dag_id = 'lost'), 'a', -1, 'key ' || number, 'lost', 'lost',
    (SELECT value FROM xcom WHERE task_id = 'get_env_vars' AND key = 'return_value'), now()
  FROM generate_series(1, 3) number;
UPDATE xcom SET value = overlay(value PLACING 'AAAA'::bytea FROM 60) WHERE dag_id = 'lost' AND key <> 'key 1';
"""


def test_check_counts_names_and_re_encrypts_xcoms(told: dict[str, Any], environment: dict[str, str]) -> None:
    """All of a DAG's are one value: a list of each run's would be as long as the history."""
    psql = ["psql", "--dbname=xcom", "--quiet", "--set=ON_ERROR_STOP=1", f"--command={LOSE}"]
    subprocess.run(psql, env=environment, check=True)
    lost = "1 of 2 encrypted values can be decrypted\nnot with this key: 2 XComs of the DAG lost\n"
    found = check_fernet(environment, KEY)
    assert (found.returncode, found.stdout) == (1, lost)
    found = check_fernet(environment, f"{NEW_KEY},{KEY}", "--re-encrypt")
    assert (found.returncode, found.stdout) == (1, lost)
    read = values(environment, NEW_KEY)
    assert read["team get_env_vars return_value"] == ENVIRONMENT
    assert read["team get_env_vars old"] == "plain canary"
    found = check_fernet(environment, KEY)
    assert found.stdout.splitlines()[0] == "0 of 2 encrypted values can be decrypted"
    assert "not the one that this database was encrypted with" in found.stderr
    assert "canary" not in found.stdout + found.stderr
