"""The options of an operation: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import Any

import pytest
from airflow_release.core.errors import ReleaseError
from airflow_release.switch.options import Options
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = sorted(asdict(Options()))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-10, 10_000)
    | st.floats()
    | st.text()
    | st.integers(-10, 10_000).map(str)
    | st.sampled_from(["abort", "terminate", "terminat", "5m", "NaN", "1e3", "٣", " 5", "5\n", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), values) | st.dictionaries(st.text(), values) | values)
def test_parse_raises_nothing_but_its_own_error(given: Any) -> None:
    """And what it accepts is usable, and comes back from a journal as it was."""
    try:
        options = Options.parse(given)
    except ReleaseError:
        return
    seconds = (options.drain_timeout, options.start_timeout, options.confirm_timeout, options.outage_limit)
    assert all(type(number) is int and 0 <= number <= 604_800 for number in seconds)
    assert time.gmtime(time.time() + sum(seconds))
    assert options.on_drain_timeout in ("abort", "terminate")
    assert 0 <= options.accept_undecryptable <= 1_000_000
    assert Options.load(json.loads(json.dumps(asdict(options)))) == options


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), values))
def test_journal_is_always_understood(kept: dict[str, Any]) -> None:
    """The way back has no use for a complaint."""
    options = Options.load(kept)
    assert type(options.start_timeout) is int
    assert options.start_timeout >= 0
    assert options.on_drain_timeout in ("abort", "terminate")


def test_what_is_not_given_has_its_default() -> None:
    assert Options.parse({}) == Options(1800, "abort", 300, 900, 900, 0)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("drain_timeout", "0", 0),
        ("drain_timeout", "604800", 604_800),
        ("drain_timeout", 90, 90),
        ("start_timeout", "1", 1),
        ("start_timeout", "0300", 300),
        ("confirm_timeout", "86400", 86_400),
        ("outage_limit", "86400", 86_400),
        ("accept_undecryptable", "1000000", 1_000_000),
        ("on_drain_timeout", "terminate", "terminate"),
    ],
)
def test_text_is_parsed(name: str, text: Any, value: Any) -> None:
    assert Options.parse({name: text}) == replace(Options(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("start_timeout", "5m", "'5m'; whole seconds from 1 to 3600 are expected, such as 300"),
        ("start_timeout", 0, "0; whole seconds from 1 to 3600 are expected, such as 300"),
        ("start_timeout", "", "''; whole seconds from 1 to 3600 are expected, such as 300"),
        ("start_timeout", None, "None; whole seconds from 1 to 3600 are expected, such as 300"),
        ("drain_timeout", -1, "-1; whole seconds from 0 to 604800 are expected, such as 1800"),
        ("drain_timeout", "604801", "'604801'; whole seconds from 0 to 604800 are expected, such as 1800"),
        ("drain_timeout", float("nan"), "nan; whole seconds from 0 to 604800 are expected, such as 1800"),
        ("confirm_timeout", True, "True; whole seconds from 1 to 86400 are expected, such as 900"),
        ("confirm_timeout", 1.5, "1.5; whole seconds from 1 to 86400 are expected, such as 900"),
        ("outage_limit", ["900"], "['900']; whole seconds from 1 to 86400 are expected, such as 900"),
        ("accept_undecryptable", "all", "'all'; a whole number from 0 to 1000000 is expected, such as 0"),
        ("on_drain_timeout", "terminat", "'terminat'; abort or terminate is expected"),
        ("on_drain_timeout", "Abort", "'Abort'; abort or terminate is expected"),
        ("on_drain_timeout", ["abort"], "['abort']; abort or terminate is expected"),
    ],
)
def test_mistyped_option_is_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(ReleaseError) as refused:
        Options.parse({name: value})
    assert str(refused.value) == f"upgrade_{name} is {words}"


def test_every_problem_is_named() -> None:
    with pytest.raises(ReleaseError) as refused:
        Options.parse({"start_timeout": "5m", "on_drain_timeout": "kill", "speed": 1, "drain_timeout": "60"})
    lines = str(refused.value).splitlines()
    assert [line.split(" is ")[0] for line in lines] == [
        "upgrade_speed",
        "upgrade_on_drain_timeout",
        "upgrade_start_timeout",
    ]


def test_large_value_is_not_printed_whole() -> None:
    """Python refuses to print the larger of them."""
    for value in ("9" * 100_000, 10**5000):
        with pytest.raises(ReleaseError) as refused:
            Options.parse({"start_timeout": value})
        assert len(str(refused.value)) < 200


def test_journal_of_an_earlier_version() -> None:
    """It held what was given, as it was given."""
    kept = {"drain_timeout": "60", "on_drain_timeout": "terminat", "start_timeout": "5m", "speed": 1}
    assert Options.load(kept) == replace(Options(), drain_timeout=60)
