"""Edits DAG files so that two Airflows take them, and prints each as a patch. Runs inside the newer image.

    python3 -c "$(cat image_edits.py)" TREE MOVED_NAMES

It changes no file: it prints one JSON document, {path: {"rules": […], "content": …, "patch": …}}, content and
patch in base64. MOVED_NAMES is a JSON file with the names that the older Airflow moved
(`image_facts.moved_names`). It stands alone, and keeps to Python 3.8.

Files are read by their own encoding and changed only at the places that the syntax tree names, so that
comments, line ends and layout stay.
"""

from __future__ import annotations

import ast
import base64
import difflib
import importlib
import io
import json
import os
import re
import sys
import token
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SIZE_LIMIT = 2**20  # bytes; a larger file is data rather than a DAG
DAG = {"airflow.DAG", "airflow.models.DAG", "airflow.models.dag.DAG"}
DAG_DECORATOR = {"airflow.decorators.dag", "airflow.decorators.dags.dag", "airflow.models.dag.dag"}
DOCKER_OPERATOR = re.compile(r"(^|\.)\w*Docker(Swarm)?Operator(\.partial)?$|(^|\.)task\.docker(\.partial)?$")
AUTO_REMOVE = {True: "success", False: "never"}


class Edit(NamedTuple):
    """One replacement, by positions in the text, and the rule that asks for it."""

    start: int
    end: int
    text: str
    rule: str


class Source:
    """A file's text, its syntax tree, and its tokens by their positions."""

    def __init__(self, text: str) -> None:
        """Parse the text. Raises SyntaxError or ValueError for what is no Python of this version."""
        self.text = text
        self._starts = [0] + [match.end() for match in re.finditer(r"\r\n|\r|\n", text)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.tree = ast.parse(text)
        try:
            raw = list(tokenize.generate_tokens(io.StringIO(text, newline="").readline))
        except tokenize.TokenError as error:
            raise SyntaxError(str(error)) from None
        self.comments = [self._at(*each.start) for each in raw if each.type == token.COMMENT]
        self.tokens = [
            (self._at(*each.start), self._at(*each.end), each.string)
            for each in raw
            if each.string.strip() and each.type not in (token.COMMENT, token.INDENT, token.DEDENT)
        ]
        doubles = sum(string.startswith('"') for _, _, string in self.tokens)
        singles = sum(string.startswith("'") for _, _, string in self.tokens)
        self.quote = "'" if singles > doubles else '"'

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column if line <= len(self._starts) else len(self.text)

    def position(self, line: int, column: int) -> int:
        """Return a position in the text; the tree's columns count bytes of UTF-8."""
        start = self._starts[line - 1]
        stop = self._starts[line] if line < len(self._starts) else len(self.text)
        return start + len(self.text[start:stop].encode()[:column].decode())

    def span(self, node: Any) -> tuple[int, int]:
        """Return where a node begins and ends."""
        return (
            self.position(node.lineno, node.col_offset),
            self.position(node.end_lineno, node.end_col_offset),
        )

    def within(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """Return the tokens between two positions."""
        return [each for each in self.tokens if start <= each[0] and each[1] <= end]


def edits_of(text: str, moved: dict[str, str], exists: Callable[[str], bool]) -> list[Edit]:
    """Return the edits for a file's text, in their order. Raises SyntaxError or ValueError."""
    source = Source(text)
    names = imported_names(source.tree)
    found = [
        *moved_imports(source, moved, exists),
        *auto_remove(source, names),
        *schedule(source, names),
    ]
    return sorted(set(found))


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return what the file's names stand for, as far as imports say it."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
    return names


def full_name(node: ast.AST, names: dict[str, str]) -> str:
    """Return the dotted name of what is called, by its import; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *parts])


def auto_remove(source: Source, names: dict[str, str]) -> Iterator[Edit]:
    """DockerOperator's `auto_remove` is a word since its provider's version 4; 3.0 and newer take that, too.

    Docker's own client has an argument of this name that stays True or False: only operators and the default
    arguments of DAGs are looked at.
    """
    for node in ast.walk(source.tree):
        values: list[ast.AST] = []
        if isinstance(node, ast.Call):
            if DOCKER_OPERATOR.search(full_name(node.func, names)):
                values += [each.value for each in node.keywords if each.arg == "auto_remove"]
            values += [
                value
                for keyword in node.keywords
                if keyword.arg == "default_args"
                for value in _dictionary(keyword.value, "auto_remove", names)
            ]
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id.lower().endswith("default_args")
            for target in node.targets
        ):
            values += _dictionary(node.value, "auto_remove", names)
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, bool):
                start, end = source.span(value)
                if source.text[start:end] == str(value.value):
                    word = f"{source.quote}{AUTO_REMOVE[value.value]}{source.quote}"
                    yield Edit(start, end, word, "auto_remove")


def _dictionary(node: ast.AST, wanted: str, names: dict[str, str]) -> Iterator[ast.AST]:
    """Yield the values of a key in a dictionary that is written out."""
    if isinstance(node, ast.Dict):
        for index, key in enumerate(node.keys):
            if isinstance(key, ast.Constant) and key.value == wanted:
                yield node.values[index]
    elif isinstance(node, ast.Call) and full_name(node.func, names) == "dict":
        yield from (keyword.value for keyword in node.keywords if keyword.arg == wanted)


def schedule(source: Source, names: dict[str, str]) -> Iterator[Edit]:
    """A DAG's `schedule_interval` is called `schedule` since Airflow 2.4."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or full_name(node.func, names) not in DAG | DAG_DECORATOR:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "schedule_interval" not in given or {"schedule", "timetable"} & set(given):
            continue
        start = source.span(node)[0]
        before = source.within(start, source.span(given["schedule_interval"])[0])
        for index in reversed(range(len(before) - 1)):
            begin, end, name = before[index]
            if (name, before[index + 1][2]) == ("schedule_interval", "="):
                yield Edit(begin, end, "schedule", "schedule_interval")
                break


def moved_imports(source: Source, moved: dict[str, str], exists: Callable[[str], bool]) -> Iterator[Edit]:
    """Import from where both Airflows have it what the older one has moved. The file keeps its own names."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ImportFrom) or node.level or not node.module:
            continue
        targets = [moved.get(f"{node.module}.{alias.name}", "") for alias in node.names]
        targets = [target if target and exists(target) else "" for target in targets]
        if not any(targets):
            continue
        start, end = source.span(node)
        modules = [target.rpartition(".")[0] or node.module for target in targets]
        if len(set(modules)) == 1:
            yield from _other_module(source, node, targets, modules[0])
        elif _stands_alone(source, start, end):
            yield Edit(start, end, _several_imports(source, node, targets, modules), "moved module")


def _other_module(source: Source, node: ast.ImportFrom, targets: list[str], new: str) -> Iterator[Edit]:
    """Replace the module's name and, where they differ, the names that come from it."""
    tokens = source.within(*source.span(node))
    at = next(index for index, each in enumerate(tokens) if each[2] == "import")
    module = tokens[1][0], tokens[at - 1][1]
    if source.text[module[0] : module[1]] != node.module:  # written with blanks or over several lines
        return
    rest = iter(tokens[at + 1 :])
    new_names = []
    for index, alias in enumerate(node.names):
        begin, end, _ = next(each for each in rest if each[2] == alias.name)
        name = targets[index].rpartition(".")[2] or alias.name
        if name != alias.name:
            text = name if alias.asname else f"{name} as {alias.name}"
            new_names.append(Edit(begin, end, text, "moved module"))
        if alias.asname:
            next(each for each in rest if each[2] == "as")
            next(rest)
    if new != node.module:
        yield Edit(module[0], module[1], new, "moved module")
    yield from new_names


def _stands_alone(source: Source, start: int, end: int) -> bool:
    """Say whether a statement fills its lines and has no comment, so that it can become several."""
    line = max(source.text.rfind("\n", 0, start), source.text.rfind("\r", 0, start)) + 1
    rest = re.match(r"[^\r\n]*", source.text[end:])
    blank = not source.text[line:start].strip(" \t") and rest is not None and not rest[0].strip()
    return blank and not any(start <= comment < end for comment in source.comments)


def _several_imports(source: Source, node: ast.ImportFrom, targets: list[str], modules: list[str]) -> str:
    start = source.span(node)[0]
    line = max(source.text.rfind("\n", 0, start), source.text.rfind("\r", 0, start)) + 1
    newline = re.search(r"\r\n|\r|\n", source.text)
    separator = (newline[0] if newline else "\n") + source.text[line:start]
    by_module: dict[str, list[str]] = {}
    for index, alias in enumerate(node.names):
        name = targets[index].rpartition(".")[2] or alias.name
        kept = alias.asname or alias.name
        by_module.setdefault(modules[index], []).append(name if name == kept else f"{name} as {kept}")
    return separator.join(f"from {module} import {', '.join(each)}" for module, each in by_module.items())


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Return the text with the edits made."""
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def edited(
    content: bytes, moved: dict[str, str], exists: Callable[[str], bool]
) -> tuple[bytes, list[str]] | None:
    """Return a file's new content and the rules that were used.

    None for a file that needs nothing, or that is no Python of this version.
    """
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(content).readline)[0]
        text = content.decode(encoding)
        if text.encode(encoding) != content:
            return None
        edits = edits_of(text, moved, exists)
        new = apply(text, edits)
        ast.parse(new)
        encoded = new.encode(encoding)
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
        return None
    return (encoded, sorted({edit.rule for edit in edits})) if edits else None


def patch(path: str, old: bytes, new: bytes) -> bytes:
    """Return a unified diff for `git apply`."""
    lines = [re.findall(rb"[^\n]*\n|[^\n]+\Z", content) for content in (old, new)]
    names = [_quoted(f"{side}/{path}") for side in "ab"]
    # git takes everything up to a tab for the name.
    tab = b"\t" if b" " in names[0] else b""
    header = b"diff --git %s %s\n" % (names[0], names[1])
    difference = difflib.diff_bytes(difflib.unified_diff, lines[0], lines[1], names[0] + tab, names[1] + tab)
    return header + b"".join(
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in difference
    )


def _quoted(name: str) -> bytes:
    """Write a file name as git does (core.quotePath)."""
    raw = os.fsencode(name)
    if not re.search(rb'[\x00-\x1f\x7f-\xff"\\]', raw):
        return raw
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in raw
    )
    return f'"{escaped}"'.encode()


def name_exists(name: str) -> bool:
    """Say whether this image's Airflow can import a name."""
    module, _, attribute = name.rpartition(".")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hasattr(importlib.import_module(module), attribute)
    except Exception:  # whatever a module raises whose package is not there
        return False


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder; links and hidden folders are left out."""
    for parent, folders, files in os.walk(str(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(files):
            path = Path(parent, name)
            if (
                name.endswith(".py")
                and path.is_file()
                and not path.is_symlink()
                and path.stat().st_size <= SIZE_LIMIT
            ):
                yield path


def main(tree: Path, moved_names: Path) -> dict[str, Any]:
    """Return the edits for all DAG files of a tree."""
    moved = json.loads(moved_names.read_text(encoding="utf-8"))
    known: dict[str, bool] = {}

    def exists(name: str) -> bool:
        if name not in known:
            known[name] = name_exists(name)
        return known[name]

    found = {}
    for path in python_files(tree / "dags"):
        old = path.read_bytes()
        result = edited(old, moved, exists)
        if result is not None:
            name = str(path.relative_to(tree))
            new, rules = result
            found[name] = {
                "rules": rules,
                "content": base64.b64encode(new).decode(),
                "patch": base64.b64encode(patch(name, old, new)).decode(),
            }
    return found


if __name__ == "__main__":
    # Airflow may print while it loads: that goes to standard error, so that the answer stands alone.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(main(Path(sys.argv[1]), Path(sys.argv[2])), answer)
    answer.close()
    sys.exit(0)
