"""The comparison of two images' packages orders versions as `packaging` does."""

from __future__ import annotations

from airflow_release.report.packages import compare, version_key
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version

number = st.integers(0, 12)
versions = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "1!"]),
        st.lists(number, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts))),
        st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from(["a", "b", "rc"]), number)),
        st.one_of(st.just(""), st.builds(".post{}".format, number)),
        st.one_of(st.just(""), st.builds(".dev{}".format, number)),
        st.one_of(st.just(""), st.builds("+{}{}".format, st.sampled_from(["", "local.", "ubuntu"]), number)),
    ),
)


@given(versions, versions)
@example("1.0", "1.0.0")
@example("1.0.dev1", "1.0a1.dev1")
@example("1.0.post1.dev2", "1.0")
@example("1.0+local.1", "1.0+1")
@example("2.10.5", "2.9.3")
def test_versions_are_ordered_as_packaging_orders_them(one: str, other: str) -> None:
    assert (version_key(one) < version_key(other)) == (Version(one) < Version(other))
    assert (version_key(one) == version_key(other)) == (Version(one) == Version(other))


@given(st.text(), versions)
def test_what_is_no_version_is_ordered_too(text: str, version: str) -> None:
    """A package may call its version whatever it likes."""
    assert (version_key(text) <= version_key(version)) or (version_key(version) <= version_key(text))


def test_changes_are_named_and_providers_first() -> None:
    old = {"a": "1.0", "b": "1.10", "gone": "1", "same": "1", "apache-airflow-providers-z": "9.0"}
    new = {"a": "1.9", "b": "1.9", "here": "1", "same": "1", "apache-airflow-providers-z": "10.0"}
    assert [(change["name"], change["change"]) for change in compare(old, new)] == [
        ("apache-airflow-providers-z", "upgraded"),
        ("a", "upgraded"),
        ("b", "downgraded"),
        ("gone", "removed"),
        ("here", "added"),
    ]


packages = st.dictionaries(st.text("abc-", min_size=1, max_size=3), versions)


@given(packages, packages)
def test_every_difference_is_told_once(old: dict[str, str], new: dict[str, str]) -> None:
    changes = compare(old, new)
    assert sorted(change["name"] for change in changes) == sorted(
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    )
    for change in changes:
        assert (change["from"], change["to"]) == (old.get(change["name"]), new.get(change["name"]))
