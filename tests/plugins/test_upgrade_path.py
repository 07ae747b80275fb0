"""The filter `upgrade_path`: which release may follow which, on the real table and on made-up ones."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from plugins.filter.upgrade_path import FilterModule
from tests.policy.conftest import ROOT, ansible
from tests.releases import ENDS, NEWEST, OLDEST, RELEASES, STOPS, TABLE, TESTED

upgrade_path = FilterModule().filters()["upgrade_path"]
LOCKS = sorted(path.stem for path in (ROOT / "images/airflow/locks").glob("*.txt"))
YANKED = "Bug with masking fails a task"
MADE_UP = {**RELEASES, "2.6.2": {**RELEASES["2.6.2"], "yanked": YANKED}}


def problems(running: str, target: str, **given: Any) -> list[str]:
    found: list[str] = upgrade_path(running, target, **{"releases": RELEASES, "stops": STOPS, **given})
    return found


@pytest.mark.parametrize(
    ("running", "target"),
    [("2.5.3", "2.6.1"), ("2.6.1", "2.11.2"), ("2.5.3", "2.6.3"), ("2.7.0", "2.11.2"), ("2.6.0", "2.6.1")],
)
def test_way_is_open(running: str, target: str) -> None:
    assert problems(running, target) == []


@pytest.mark.parametrize("version", LOCKS)
def test_tested_hops_can_be_built_from_packages(version: str) -> None:
    """With the Python of Debian 12, which the images of packages have."""
    assert problems(version, version, locks=LOCKS, python="3.11") == []


@pytest.mark.parametrize(
    ("running", "target", "given", "says"),
    [
        ("2.6.1", "2.5.3", {}, r"older than 2\.6\.1.*rollback\.yml"),
        ("2.6.1", "2.6.9", {}, r"2\.6\.9 is asked for.*not among the releases.*2\.5\.3 to 2\.11\.2"),
        ("2.6.1", "3.0.0", {}, "not among the releases"),
        ("2.6.1", "latest", {}, "latest is asked for"),
        ("2.6.1", "", {}, "of no version is asked for"),
        ("", "2.6.1", {}, "runs on the host is Airflow of no known version"),
        ("2.4.3", "2.6.1", {}, r"runs on the host is Airflow 2\.4\.3"),
        ("2.6.1", "2.6.2", {"releases": MADE_UP}, YANKED),
        ("2.6.1", "2.10.1", {}, r"2\.10\.1 does not work on this platform: .*link.*2\.10\.2 does not\.$"),
        ("2.5.3", "2.11.2", {}, r"stop at 2\.6\.1.*upgrade\.yml -e airflow_version=2\.6\.1$"),
        ("2.5.3", "2.7.0", {}, r"stop at 2\.6\.1"),
        ("2.6.1", "2.8.4", {"locks": LOCKS}, r"no images/airflow/locks/2\.8\.4\.txt.*relock 2\.8\.4$"),
        ("2.6.1", "2.11.2", {"python": "3.9"}, r"asks for Python .*>=3\.10, and the image has Python 3\.9"),
        ("2.6.1", "2.8.4", {"python": "3.12"}, "asks for Python"),
    ],
)
def test_way_is_closed(running: str, target: str, given: dict[str, Any], says: str) -> None:
    """One problem, which says what to do about it."""
    [problem] = problems(running, target, **given)
    assert re.search(says, problem), problem


def test_every_problem_is_told_at_once() -> None:
    """Nobody should have to ask three times."""
    releases = {**RELEASES, "2.8.4": {**RELEASES["2.8.4"], "yanked": YANKED}}
    assert len(problems("2.5.3", "2.8.4", releases=releases, locks=LOCKS, python="3.12")) == 4


def test_version_that_runs_may_be_withdrawn() -> None:
    """A change of the team's own packages must not wait for a new Airflow."""
    assert problems("2.6.2", "2.6.2", releases=MADE_UP) == []


def test_refused_version_that_runs_is_left() -> None:
    """Whoever runs it goes on to one that works."""
    assert problems("2.10.1", "2.10.2") == []


def test_number_is_no_version() -> None:
    """YAML makes 2.1 of 2.10."""
    assert problems("2.6.1", 2.1) != []  # type: ignore[arg-type]


@pytest.mark.parametrize("running", RELEASES)
def test_whoever_does_as_told_arrives(running: str) -> None:
    """From every release to every later one, and by way of the stops only."""
    later = [release for release in RELEASES if Version(release) > Version(running)]
    for target in (release for release in later if "refused" not in RELEASES[release]):
        here, hops = running, 0
        while found := problems(here, target):
            [problem] = found
            stop = problem.rpartition("=")[2]
            assert problems(here, stop) == []
            here, hops = stop, hops + 1
            assert hops <= len(STOPS)


versions = st.builds("{}.{}.{}".format, *[st.integers(0, 3)] * 3)
tables = st.dictionaries(
    versions, st.fixed_dictionaries({"python": st.just(">=3.8")}, optional={"yanked": st.text(min_size=1)})
)
stops = st.lists(
    st.fixed_dictionaries({"before": versions, "after": versions, "stop": versions, "reason": st.text()})
)


@given(st.one_of(versions, st.text()), st.one_of(versions, st.text()), tables, stops)
def test_any_table_is_kept_to(
    running: str, target: str, releases: dict[str, Any], stops: list[dict[str, str]]
) -> None:
    """An open way leads from a known release to a later one that was not withdrawn, past no stop."""
    found = upgrade_path(running, target, releases, stops)
    assert all(problem.strip() for problem in found)
    if not found:
        assert {running, target} <= set(releases)
        assert Version(target) >= Version(running)
        if running != target:
            assert "yanked" not in releases[target]
            assert not any(
                Version(running) < Version(stop["before"]) and Version(target) > Version(stop["after"])
                for stop in stops
            )
    elif running in releases:
        assert running != target


@given(st.sampled_from(sorted(RELEASES)), st.lists(st.sampled_from(sorted(RELEASES))))
def test_only_what_has_a_lock_is_built_from_packages(target: str, locks: list[str]) -> None:
    found = problems(target, target, locks=locks)
    assert (found == []) == (target in locks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"releases": {"two": {"python": ">=3.8"}}},
        {"releases": ["2.6.1"]},
        {"releases": {"2.6.1": {}, "2.11.2": {}}, "python": "3.11"},
        {"stops": [{"before": "2.8.0"}]},
    ],
)
def test_unreadable_table_is_an_error(wrong: dict[str, Any]) -> None:
    """Not a way that is open."""
    with pytest.raises(AnsibleFilterError, match="table of releases"):
        problems("2.6.1", "2.11.2", **wrong)


def test_table_is_in_order() -> None:
    """The first and the last entry are what messages name, and the last is the default of airflow_version."""
    assert sorted(RELEASES, key=Version) == list(RELEASES)
    assert TABLE["project_newest_release"] == "{{ project_releases | last }}"
    assert not {"yanked", "refused"} & set(RELEASES[NEWEST])


def test_tested_releases_are_those_with_a_lock() -> None:
    """They lead from the oldest over every stop to the newest."""
    assert set(TESTED) == set(LOCKS)
    assert {OLDEST, *(stop["stop"] for stop in STOPS), NEWEST} <= set(TESTED)


def test_default_is_the_newest_release() -> None:
    """As every playbook sees it, where no inventory says otherwise."""
    said = ansible(
        *("ansible", "localhost", "--playbook-dir=playbooks", "--inventory=localhost,", "--connection=local"),
        *("--module-name=ansible.builtin.debug", "--args=var=airflow_version"),
    )
    assert re.search(rf'"?airflow_version"?: "?{re.escape(NEWEST)}\b', said.stdout), said.stdout


@pytest.mark.parametrize("file", ["bench/upgrade_outage", "molecule/upgrade/vars/production.yml"])
def test_measured_versions_are_tested_ones(file: str) -> None:
    found = re.findall(r"\b2\.\d+\.\d+\b", (ROOT / file).read_text(encoding="utf-8"))
    assert found
    assert set(found) <= set(TESTED)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_documents_name_known_releases(path: Path) -> None:
    found = re.findall(r"\b2\.\d+\.\d+\b(?!\.)", path.read_text(encoding="utf-8"))
    assert set(found) <= set(RELEASES)


@pytest.mark.parametrize("version", LOCKS)
def test_table_agrees_with_the_locks(version: str) -> None:
    """Whose first line has the day that the package index gave."""
    header = (ROOT / f"images/airflow/locks/{version}.txt").read_text(encoding="utf-8").splitlines()[0]
    assert f"Airflow {version} of {RELEASES[version]['date']} " in header


def test_stops_can_be_made() -> None:
    """A stop was not withdrawn, can be built from packages, and lies on the way."""
    for stop in STOPS:
        assert not {"yanked", "refused"} & set(RELEASES[stop["stop"]])
        assert stop["stop"] in LOCKS
        assert Version(stop["before"]) <= Version(stop["stop"]) <= Version(stop["after"])


def test_end_of_life_is_told_for_every_series() -> None:
    """On the day of the release that replaced it."""
    ends = ENDS
    assert set(ends) == {version.rpartition(".")[0] for version in RELEASES}
    for series, following in product(ends, RELEASES):
        if following in ends[series]["reason"]:
            assert ends[series]["date"] == RELEASES[following]["date"]
