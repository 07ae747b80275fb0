"""Rules that every DAG of this repository keeps, checked on the DAGs as Airflow parses them."""

import ast
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import DAGS

DAG_FILES = sorted(DAGS.glob("*.py"))
MODULES = sorted(DAGS.rglob("*.py"))


@pytest.fixture(params=DAG_FILES, ids=lambda path: path.name)
def dag(request, dag_bag):
    """The DAG of one file."""
    dags = [dag for dag in dag_bag.dags.values() if Path(dag.fileloc) == request.param]
    assert len(dags) == 1, f"{request.param.name} defines {[dag.dag_id for dag in dags]}, not one DAG"
    return dags[0]


def test_every_file_can_be_imported(dag_bag):
    assert dag_bag.import_errors == {}
    assert dag_bag.dags, "no DAG was found"


def test_parsing_warns_of_nothing_deprecated(dag_bag):
    """Parses again with warnings on record; those of other packages about themselves do not count."""
    from airflow.models import DagBag

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DagBag(dag_folder=str(DAGS), include_examples=False)
    ours = [str(entry.message) for entry in caught if Path(entry.filename).is_relative_to(DAGS)]
    airflow = [str(entry.message) for entry in caught if "Airflow" in entry.category.__name__]
    assert ours + airflow == []


def test_file_is_named_for_its_dag(dag):
    assert Path(dag.fileloc).stem == dag.dag_id.replace("-", "_")


def test_dag_tells_how_to_triage_it(dag):
    assert dag.description
    assert len(dag.doc_md or "") > 200


def test_dag_has_tags(dag):
    assert dag.tags


def test_dag_does_not_catch_up(dag):
    """After a stop of the host, runs that nobody waits for would hold up the ones somebody does."""
    assert dag.catchup is False
    assert dag.dagrun_timeout


def test_tasks_have_an_owner_retries_and_an_end(dag):
    for task in dag.tasks:
        assert task.owner == "airflow", task.task_id
        assert task.retries >= 1, task.task_id
        assert timedelta(0) < task.execution_timeout <= dag.dagrun_timeout, task.task_id


def test_failures_are_reported_in_slack(dag):
    from utils.slack_operator import task_fail_slack_alert, task_fail_slack_alert_critical

    for task in dag.tasks:
        callbacks = task.on_failure_callback
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        assert {task_fail_slack_alert, task_fail_slack_alert_critical} & set(callbacks), task.task_id


def test_utilities_and_templates_are_not_parsed_as_dags(dag_bag):
    assert {Path(entry.file).name for entry in dag_bag.dagbag_stats} == {path.name for path in DAG_FILES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(DAGS)))
def test_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
