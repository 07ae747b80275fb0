"""Every link and picture in a Markdown file leads somewhere, and so does each document that code names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.documents import ROOT, anchors, blocks, documents, links, name

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


def named_by_code() -> Iterator[tuple[str, str]]:
    """Yield each document, with what is known of the anchor, that a file other than a document names."""
    folders = ("checker", "dags", "images", "inventories", "playbooks", "plugins", "release", "roles")
    for folder in (*folders, "sandbox", "templates", "tests", "molecule", "webhook", ".github", "bin"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yml", ".j2", ".json", ".html", "") and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                for target in re.findall(r"(?<![\w/])docs/[\w-]+\.md(?:#[\w-]+)?", text):
                    yield name(path), target


NAMED = sorted(set(named_by_code()))


@pytest.mark.parametrize(("file", "target"), NAMED, ids=[f"{file}: {target}" for file, target in NAMED])
def test_document_that_code_names_exists(file: str, target: str) -> None:
    """What the code puts behind an anchor's beginning, such as a light's name, its own tests know."""
    document, _, anchor = target.partition("#")
    assert (ROOT / document).exists(), f"{file} names {document}"
    assert any(known.startswith(anchor) for known in anchors(ROOT / document)), f"{file} names {target}"


def test_code_names_documents() -> None:
    assert len({target for _, target in NAMED}) > 3


@pytest.mark.parametrize("path", documents(), ids=name)
def test_python_in_a_document_compiles(path: Path) -> None:
    for block in blocks(path):
        if block.startswith(('"""', "from ", "import ")):
            ast.parse(block)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=name)
def test_readme_leads_to_the_page(path: Path) -> None:
    assert (ROOT / "README.md", name(path)) in INTERNAL


@pytest.mark.parametrize("path", sorted((ROOT / "docs/images").iterdir()), ids=name)
def test_picture_is_shown(path: Path) -> None:
    shown = {(document.parent / unquote(urlsplit(target).path)).resolve() for document, target in INTERNAL}
    assert path in shown


def test_readme_shows_the_stack_and_the_page() -> None:
    pictures = {target for path, target in INTERNAL if name(path) == "README.md"}
    assert {"docs/images/stack.svg", "docs/images/weather-page.png"} <= pictures
