"""Reads the project's Markdown: its links, its headings and what stands in it as code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]


def documents() -> list[Path]:
    """Return every Markdown file but those of tools, which keep theirs in hidden directories."""
    found = (
        path
        for path in ROOT.rglob("*.md")
        if not any(p.startswith(".") for p in path.relative_to(ROOT).parts)
    )
    return sorted(found)


def handwritten() -> list[Path]:
    """Return the documents that bin/docs does not write."""
    return [path for path in documents() if path.parents[1] != ROOT / "roles"]


def name(path: Path) -> str:
    """Return the path as a person would give it."""
    return str(path.relative_to(ROOT))


@cache
def tokens(path: Path) -> list[Token]:
    """Return the document's blocks and, after each, what is in its text."""
    parser = MarkdownIt("commonmark").enable("table")
    found: list[Token] = []
    for token in parser.parse(path.read_text(encoding="utf-8")):
        found += [token, *(token.children or [])]
    return found


def links(path: Path) -> Iterator[str]:
    """Yield the target of every link and picture."""
    for token in tokens(path):
        target = token.attrs.get("href") or token.attrs.get("src")
        if target:
            yield str(target)
        if token.type in ("html_block", "html_inline"):
            yield from re.findall(r'(?:href|src|srcset)="([^"]+)"', token.content)


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them, and those that are written as HTML."""
    headings = [after.content for token, after in pairwise(tokens(path)) if token.type == "heading_open"]
    written = [token.content for token in tokens(path) if token.type == "html_inline"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(
        re.findall(r'<a id="([^"]+)">', "".join(written))
    )


def spans(path: Path) -> list[str]:
    """Return what stands as code within sentences, on one line each."""
    return [" ".join(token.content.split()) for token in tokens(path) if token.type == "code_inline"]


def blocks(path: Path) -> list[str]:
    """Return the blocks of code and of commands."""
    return [token.content for token in tokens(path) if token.type in ("code_block", "fence")]


def commands(path: Path) -> list[str]:
    """Return what a reader can type: indented blocks, line by line with continuations joined, and spans."""
    lines: list[str] = []
    for token in tokens(path):
        if token.type == "code_block":
            lines += token.content.replace("\\\n", " ").splitlines()
    return [" ".join(line.split("#")[0].split()) for line in [*lines, *spans(path)]]
