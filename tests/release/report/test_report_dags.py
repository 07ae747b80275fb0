"""Which DAGs stop an upgrade: what the real gates of two Airflows say of one tree, compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow_release.report import dag_check
from hypothesis import given
from hypothesis import strategies as st

from tests.release.report.conftest import Json
from tests.release.report.example_dags import FILES


@pytest.fixture
def gates(ask_image: Callable[..., Json]) -> tuple[Json, Json]:
    """What 2.6.1 and 2.11.2 say of the same files."""
    return ask_image("2.6.1", FILES), ask_image("2.11.2", FILES)


def states(files: list[Json]) -> dict[str, str]:
    return {file["path"]: file["state"] for file in files}


def in_the_way(files: list[Json]) -> list[Json]:
    return [file for cause in dag_check.blocking(files) for file in cause["files"]]


def test_each_file_has_its_state(gates: tuple[Json, Json]) -> None:
    """The worst comes first."""
    assert list(states(dag_check.compare(*gates, [])).items()) == [
        ("dags/nightly_docker.py", "breaks"),
        ("dags/by_version.py", "loses"),
        ("dags/broken.py", "was broken"),
        ("dags/newer.py", "repaired"),
        ("dags/as_hinted.py", "warns"),
        ("dags/good.py", "clean"),
    ]


def test_docker_operator_of_old_stops_the_way_to_2_11(gates: tuple[Json, Json]) -> None:
    """`auto_remove=True` is a warning on 2.6.1 and an error on 2.11.2."""
    [broken, lost] = dag_check.blocking(dag_check.compare(*gates, []))
    assert broken["files"] == [
        {"path": "dags/nightly_docker.py", "dag_ids": ["nightly-docker"], "acknowledge": "nightly-docker"}
    ]
    assert broken["summary"].startswith("ValueError: Invalid `auto_remove` value True")
    assert "auto_remove='success'" in broken["hint"]
    assert lost["summary"] == "the new Airflow finds no DAG sometimes in this file"


def test_hint_holds_on_both_sides(gates: tuple[Json, Json]) -> None:
    """What it says to write imports on the running Airflow and on the new one."""
    for gate in gates:
        assert gate["files"]["dags/as_hinted.py"]["dag_ids"] == ["as-hinted"]


def test_warnings_are_those_of_the_new_airflow(gates: tuple[Json, Json]) -> None:
    """`RemovedInAirflow3Warning` among them."""
    [file] = [file for file in dag_check.compare(*gates, []) if file["path"] == "dags/as_hinted.py"]
    assert [warning.partition(":")[0] for warning in file["warnings"]] == [
        "DeprecationWarning",
        "RemovedInAirflow3Warning",
    ]


@pytest.mark.parametrize("name", ["nightly-docker", "dags/nightly_docker.py", "nightly_docker.py"])
def test_acknowledged_dag_does_not_stop(gates: tuple[Json, Json], name: str) -> None:
    """By its dag_id or its file, and only that one."""
    files = dag_check.compare(*gates, [name, "no-such-dag", "good"])
    assert states(files)["dags/nightly_docker.py"] == "acknowledged"
    assert [file["path"] for file in in_the_way(files)] == ["dags/by_version.py"]
    assert dag_check.unused([name, "no-such-dag", "good"], files) == ["good", "no-such-dag"]


def test_requirement_that_the_image_lacks_is_told_apart(gates: tuple[Json, Json]) -> None:
    """It stops the next push, not this upgrade."""
    assert ["surely-not-there==1.0" in text for text in dag_check.requirements(gates[1])] == [True]


paths = st.sampled_from(["dags/a.py", "dags/b.py", "dags/c/d.py"])
names = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def gate_reports(draw: st.DrawFn) -> Json:
    """Reports as a gate may make them: a file with an import problem has no DAGs."""
    files: dict[str, Any] = {}
    problems: list[Json] = []
    for path in draw(st.sets(paths)):
        broken = draw(st.booleans())
        files[path] = {
            "dag_ids": [] if broken else draw(st.lists(names, unique=True)),
            "warnings": draw(st.lists(st.text())),
            "seconds": 0.1,
        }
        if broken:
            kind = draw(st.sampled_from(["import", "syntax", "slow", "crash", "requirement"]))
            problems.append({"kind": kind, "path": path, "message": draw(st.text())})
    return {"files": files, "problems": problems}


@given(gate_reports(), gate_reports(), st.sets(st.one_of(paths, names)))
def test_nothing_breaks_unseen(old: Json, new: Json, acknowledged: set[str]) -> None:
    """Each DAG of the old Airflow is on the new one, or its file stops the upgrade or was acknowledged."""
    files = dag_check.compare(old, new, acknowledged)
    seen = {file["path"] for file in files}
    assert seen >= {*old["files"], *new["files"]}
    there = {dag_id for file in new["files"].values() for dag_id in file["dag_ids"]}
    stopping = {file["path"] for file in in_the_way(files)}
    for path, file in old["files"].items():
        for dag_id in file["dag_ids"]:
            passed = {path, path.rpartition("/")[2], *file["dag_ids"]} & acknowledged
            assert dag_id in there or path in stopping or passed


@given(gate_reports(), st.sets(names))
def test_same_image_stops_nothing(gate: Json, acknowledged: set[str]) -> None:
    assert dag_check.blocking(dag_check.compare(gate, gate, acknowledged)) == []


@given(gate_reports(), gate_reports())
def test_whoever_acknowledges_what_is_asked_passes(old: Json, new: Json) -> None:
    """The name that a message gives is one that the command takes."""
    asked = [file["acknowledge"] for file in in_the_way(dag_check.compare(old, new, []))]
    assert dag_check.blocking(dag_check.compare(old, new, asked)) == []
    assert dag_check.unused(asked, dag_check.compare(old, new, asked)) == []


PROBLEM_TEXTS = [
    "ValueError: Invalid `auto_remove` value True, expected one of 'never', 'success', or 'force'.",
    "airflow.exceptions.AirflowException: task_id '{task}' of {path} is taken, line {line}",
    "the new Airflow finds no DAG {dag} in this file",
    "TypeError: <Task(BashOperator): {task}> of <DAG: {dag}> got an unexpected keyword argument 'x'",
    "{dag} cannot be serialised: <object at 0x{line:x}>",
    "File /opt/airflow/{path}: line {line}: invalid syntax",
]
ids = st.from_regex(r"[a-z][a-z0-9]{2,6}[_-][0-9]{1,4}", fullmatch=True)
places = st.tuples(ids, ids, ids, st.integers(16, 9999))


@given(st.sampled_from(PROBLEM_TEXTS), st.sampled_from(["import", "lost"]), places, places)
def test_cause_is_the_same_in_every_file(
    text: str, kind: str, one: tuple[str, str, str, int], other: tuple[str, str, str, int]
) -> None:
    """Whatever the file, its DAG, the task and the line are called. Nothing of these is in the cause."""

    def cause(place: tuple[str, str, str, int]) -> str:
        file, dag, task, line = place
        path = f"dags/{file}.py"
        summary = text.format(path=path, dag=dag, task=task, line=line)
        return dag_check.cause_of({"kind": kind, "summary": summary}, path, [dag])

    assert cause(one) == cause(other)
    assert cause(one).startswith(f"{kind}: ")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("No module named 'pandas'", "No module named 'numpy'"),
        ("cannot import name 'a' from 'b'", "cannot import name 'c' from 'b'"),
        ("KeyError: 'a'", "KeyError: 'b'"),
        ("got an unexpected keyword argument 'a'", "got an unexpected keyword argument 'b'"),
    ],
)
def test_different_causes_stay_apart(one: str, other: str) -> None:
    causes = {dag_check.cause_of({"kind": "import", "summary": text}) for text in (one, other)}
    assert len(causes) == 2


def test_dag_of_a_short_name_takes_no_letters() -> None:
    problem = {"kind": "import", "summary": "ValueError: a value of a.b and a-c, not of a."}
    assert dag_check.cause_of(problem, "dags/a.py", ["a"]) == (
        "import: ValueError: … value of a.b and a-c, not of …."
    )


@given(gate_reports(), gate_reports())
def test_every_file_is_in_one_cause(old: Json, new: Json) -> None:
    files = dag_check.compare(old, new, [])
    causes = dag_check.blocking(files)
    stopping = [file["path"] for file in files if file["state"] in dag_check.IN_THE_WAY]
    assert sorted(file["path"] for cause in causes for file in cause["files"]) == sorted(stopping)
    assert [cause["count"] for cause in causes] == [len(cause["files"]) for cause in causes]
    assert len({cause["cause"] for cause in causes}) == len(causes)
    assert sorted((cause["count"] for cause in causes), reverse=True) == [cause["count"] for cause in causes]


def test_seventy_five_files_of_one_cause_have_one_explanation() -> None:
    """Their own words where all say the same, and else what these have in common."""
    paths = [f"dags/load_{number}.py" for number in range(75)]
    parsed = {path: {"dag_ids": [path[5:-3]], "warnings": []} for path in paths}
    broken: Json = {path: {"dag_ids": [], "warnings": []} for path in paths}
    text = (
        'Traceback (most recent call last):\n  File "{}", line {}\nValueError: Invalid `auto_remove` value {}'
    )
    problems = [
        {"kind": "import", "path": path, "message": text.format(path, number, number % 2 == 0)}
        for number, path in enumerate(paths)
    ]
    old = {"files": parsed, "problems": []}
    [cause] = dag_check.blocking(dag_check.compare(old, {"files": broken, "problems": problems}, []))
    assert (cause["count"], cause["summary"]) == (75, "ValueError: Invalid `auto_remove` value …")
    assert "auto_remove='success'" in cause["hint"]
    [same] = dag_check.blocking(
        dag_check.compare(old, {"files": broken, "problems": problems[::2]}, paths[1::2])
    )[:1]
    assert same["summary"] == "ValueError: Invalid `auto_remove` value True"
