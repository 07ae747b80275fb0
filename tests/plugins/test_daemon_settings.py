"""The filter `daemon_settings`: this project's settings are in the file, and an operator's stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from plugins.filter.daemon_settings import FilterModule

daemon_settings = FilterModule().filters()["daemon_settings"]
OURS = {"live-restore": True, "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}
RETIRED = ["shutdown-timeout"]

keys = st.sampled_from([*OURS, *RETIRED, "dns", "registry-mirrors", "features"]) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
files = st.dictionaries(keys, values, max_size=6)


def merged(text: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(daemon_settings(text, OURS, RETIRED))
    return result


@given(files)
def test_ours_are_there_and_others_stay(found: dict[str, Any]) -> None:
    result = merged(json.dumps(found))
    assert {key: result.pop(key) for key in OURS} == OURS
    assert result == {key: value for key, value in found.items() if key not in {*OURS, *RETIRED}}


@given(files, st.sampled_from([None, 0, 1, 4, "\t"]), st.sampled_from(["", "\n"]))
def test_second_run_changes_nothing(found: dict[str, Any], indent: Any, end: str) -> None:
    """Also where an operator lays the file out anew."""
    once = json.dumps(json.loads(daemon_settings(json.dumps(found), OURS, RETIRED)), indent=indent)
    assert daemon_settings(once + end, OURS, RETIRED) == once


@pytest.mark.parametrize("text", ["", " \n", "{}"])
def test_empty_file_gets_ours_alone(text: str) -> None:
    assert merged(text) == OURS


def test_a_number_for_yes_is_not_taken_for_it() -> None:
    """In Python 1 equals True; Docker refuses it."""
    assert merged(json.dumps({**OURS, "live-restore": 1}))["live-restore"] is True


def test_options_of_another_log_driver_go_with_it() -> None:
    """Docker does not start with an option that its log driver does not know."""
    text = json.dumps({"log-driver": "syslog", "log-opts": {"syslog-address": "udp://192.0.2.1"}})
    assert merged(text) == OURS


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", "3", '{"dns": }', "{'dns': 1}", '{"a": NaN}', '{"a": 1e999}', "{} {}", "[" * 100_000],
)
def test_what_is_no_json_object_is_an_error(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"daemon\.json on the host is not.*Nothing was changed"):
        daemon_settings(text, OURS, RETIRED)
