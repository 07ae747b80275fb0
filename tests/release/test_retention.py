"""Which backups stay: whatever is young, the newest few, and always a good one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_release.backup.retention import created, expired, newest_first
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def name(age: timedelta) -> str:
    """Return the name of a bundle of that age."""
    return f"airflow-{NOW - age:%Y%m%dT%H%M%SZ}-2.6.1.tar"


AGES = st.lists(st.timedeltas(timedelta(0), timedelta(days=60)), unique_by=name, max_size=30)


@given(AGES, st.integers(0, 40), st.integers(1, 10), st.data())
def test_what_stays_and_what_goes(ages: list[timedelta], days: int, count: int, data: st.DataObject) -> None:
    names = [name(age) for age in ages]
    good = set(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else set()
    goes = expired(names, days=days, count=count, now=NOW, is_good=good.__contains__)
    stays = set(names) - set(goes)
    assert set(goes) <= set(names)
    assert set(newest_first(names)[:count]) <= stays
    assert {one for one in names if NOW - (created(one) or NOW) <= timedelta(days=days)} <= stays
    # A good one stays as long as there is one.
    assert not good or good & stays
    # Nothing else stays.
    for one in stays - set(newest_first(names)[:count]):
        young = NOW - (created(one) or NOW) <= timedelta(days=days)
        assert young or (one in good and not good & (stays - {one}))


@given(AGES, st.integers(0, 40), st.integers(1, 10))
def test_a_second_look_finds_nothing(ages: list[timedelta], days: int, count: int) -> None:
    names = [name(age) for age in ages]

    def look(found: list[str]) -> list[str]:
        return expired(found, days=days, count=count, now=NOW, is_good=lambda one: True)

    assert look([one for one in names if one not in look(names)]) == []


def test_by_days_and_by_count() -> None:
    names = [name(timedelta(days=days)) for days in (1, 2, 20, 21, 22)]

    def goes(days: int, count: int) -> list[str]:
        return expired(names, days=days, count=count, now=NOW, is_good=lambda one: True)

    assert goes(14, 1) == names[2:]
    assert goes(14, 4) == names[4:]
    assert goes(30, 1) == []


def test_what_is_wanted_otherwise_stays() -> None:
    names = [name(timedelta(days=days)) for days in (1, 30, 40)]
    goes = expired(names, days=1, count=1, now=NOW, is_good=lambda one: True, keep={names[2]})
    assert goes == [names[1]]


def test_no_backup_is_read_without_need() -> None:
    def is_good(one: str) -> bool:
        raise AssertionError("nothing was to go")

    assert expired([name(timedelta(days=1))], days=7, count=1, now=NOW, is_good=is_good) == []


def test_other_files_are_nobodys_business() -> None:
    others = ["notes.txt", "airflow-20261122T144025Z-2.6.1.tar.gz", "manual.sql", ".airflow.partial"]
    assert newest_first(others) == []
    assert expired(others, days=0, count=1, now=NOW, is_good=lambda one: True) == []
