"""The column beside the attacks, which Molecule compares with a real Docker."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from tests.docker_policy.attacks import MALFORMED, on_the_wire
from tests.docker_policy.bare_docker import CREATES, HARMLESS, OUTCOMES, SENT, STATED

ATTACKS = on_the_wire()


@pytest.mark.parametrize("pattern", [*STATED, *HARMLESS])
def test_each_pattern_says_it_of_some_attack(pattern: str) -> None:
    assert [name for name in ATTACKS if name == pattern or fnmatchcase(name, pattern)]


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_to_docker_only_creates_or_reads(name: str) -> None:
    """Containers with the name `own` are on no host."""
    method, _, rest = ATTACKS[name].lstrip().partition(b" ")
    path = rest.split()[0].partition(b"?")[0]
    if method == b"POST":
        assert path.endswith(b"/containers/create") or (name in MALFORMED and b"/own/" in path)
    else:
        assert method in (b"GET", b"get", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT") or name in MALFORMED
        assert b"/events" not in path


def test_most_fields_are_created_by_docker_alone() -> None:
    """Else the suite would try what nobody needs to refuse."""
    fields = [text for name, text in OUTCOMES.items() if name.startswith("create HostConfig.")]
    assert fields.count(CREATES) > len(fields) / 2
