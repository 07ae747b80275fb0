"""Every link and picture in a Markdown file leads somewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.documents import anchors, documents, links, name

INTERNAL = [
    (path, target)
    for path in documents()
    for target in dict.fromkeys(links(path))
    if not urlsplit(target).scheme
]


@pytest.mark.parametrize(("path", "target"), INTERNAL, ids=[f"{name(p)}: {t}" for p, t in INTERNAL])
def test_link_resolves(path: Path, target: str) -> None:
    link = urlsplit(target)
    place = path.parent / unquote(link.path) if link.path else path
    assert place.exists(), f"{name(path)} links to {target}"
    if link.fragment:
        assert link.fragment in anchors(place), f"{name(place)} has no heading for #{link.fragment}"


def test_readme_shows_the_stack_and_the_page() -> None:
    pictures = {target for path, target in INTERNAL if name(path) == "README.md"}
    assert {"docs/images/stack.svg", "docs/images/weather-page.png"} <= pictures
