"""The answer for a tree, and its parts."""

from __future__ import annotations

from dataclasses import dataclass, field

MESSAGE_LIMIT = 2_000  # characters


@dataclass
class Problem:
    """Why a tree is refused.

    `kind`: syntax, import, duplicate, slow, memory, crash, requirement, or symlink for one within dags/ that
    leads to a folder that Airflow reads already. These are all of this program. The webhook's trees.py finds
    the others, other symlinks among them, before the gate gets the tree. Each kind has a row in
    docs/write-and-ship-a-dag.md, "What the gate refuses". `path` is in the tree.
    """

    kind: str
    path: str
    message: str


@dataclass
class ParsedFile:
    """What one file showed, and what that depends on.

    `reads` are the paths in the tree that were opened, looked at or listed (these end in /). `lookups` are
    modules that were looked for: `dags/helper` is the module `helper` in the folder `dags`, whether it is
    there or not. `repeatable` is False where it may depend on all that is in the tree.
    """

    dag_ids: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    repeatable: bool = True
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0
    cached: bool = False


@dataclass
class Report:
    """The answer for a tree; `files` has the DAG files by their paths in it."""

    airflow_version: str
    problems: list[Problem]
    files: dict[str, ParsedFile]
    seconds: float


def shorten(text: str) -> str:
    """Keep the end, where a traceback says what happened."""
    text = text.strip()
    return text if len(text) <= MESSAGE_LIMIT else "…" + text[-MESSAGE_LIMIT:]


def printable(text: str) -> str:
    r"""Return text that any log or page can show: a byte of a file's name that is not UTF-8 becomes \udc…."""
    return text.encode(errors="backslashreplace").decode()
