"""The lookup that says what the control node lacks."""

from __future__ import annotations

import pytest

from plugins.lookup.control_node import PACKAGES, found, lacking


@pytest.mark.parametrize(
    ("core", "python", "missing", "says"),
    [
        ("2.19.14", (3, 11), "", []),
        ("2.19.0", (3, 13), "", []),
        ("2.18.9", (3, 11), "", ["ansible-core is 2.18.9; 2.19 or newer is needed"]),
        ("2.9.27", (3, 8), "", ["ansible-core is 2.9.27", "Python is 3.8; 3.11 or newer"]),
        ("2.19.14", (3, 11), "ansible_collections.a.b", ["the collection a.b is missing"]),
        ("2.19.14", (3, 11), PACKAGES[0], [f"the Python package {PACKAGES[0]} is missing"]),
    ],
)
def test_says_what_is_missing(core: str, python: tuple[int, ...], missing: str, says: list[str]) -> None:
    """`break_when` of an older core once failed when a switch had begun."""
    sentences = list(lacking(core, python, ["a.b", "c.d"], lambda module: module != missing))
    assert len(sentences) == len(says)
    assert all(part in sentence for part, sentence in zip(says, sentences, strict=True))


def test_finds_what_is_there_and_nothing_else() -> None:
    assert found("packaging.version")
    assert not found("no_such_package.at_all")
