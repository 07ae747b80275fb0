"""Compares what two Airflow images say of the same tree of DAGs, and decides which DAGs stop an upgrade."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

Json = dict[str, Any]

HINTS = (
    (
        re.compile(r"Invalid `auto_remove` value (True|False)"),
        "DockerOperator's auto_remove is a word now: auto_remove='success' for True, 'never' for False. "
        "The running Airflow takes that, too, so it can be pushed before the upgrade.",
    ),
    (
        re.compile(r"No module named '(?P<module>[\w.]+)'"),
        "The new image lacks the module {module}. When it is a package's, add that to "
        "images/airflow/requirements.txt; when it is Airflow's own, earlier warnings say where it went.",
    ),
    (
        re.compile(r"cannot import name '(?P<name>\w+)' from '(?P<module>[\w.]+)'"),
        "{module} of the new image has no {name}: see that package's release notes for where it went.",
    ),
    (
        re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'"),
        "The argument {name} was removed: see the release notes of the operator's package.",
    ),
)


def compare(old: Mapping[str, Any], new: Mapping[str, Any], acknowledged: Collection[str]) -> list[Json]:
    """Compare the reports of two gates on one tree, file by file, the worst first.

    Each file is {"path", "dag_ids", "state", "problems", "warnings", "seconds"}. `dag_ids` are those that
    either image found. `state` is

    - breaks: the old image imports it, the new one does not; `acknowledged` when it was named as known
    - loses: the new image imports it and finds fewer DAGs in it; `acknowledged`, too
    - was broken: neither image imports it
    - repaired: only the new image imports it
    - warns: it imports, with warnings
    - clean: it imports

    A problem is {"kind", "summary", "message", "hint"}, a warning a line of text.
    """
    broken_before, broken_now = _problems(old), _problems(new)
    moved = {dag_id for file in new["files"].values() for dag_id in file["dag_ids"]}
    files = []
    for path in sorted(old["files"].keys() | new["files"].keys() | broken_before.keys() | broken_now.keys()):
        before, after = old["files"].get(path, {}), new["files"].get(path, {})
        dag_ids = sorted({*before.get("dag_ids", ()), *after.get("dag_ids", ())})
        problems = broken_now.get(path, [])
        lost = [dag_id for dag_id in before.get("dag_ids", ()) if dag_id not in moved]
        if problems and path in broken_before:
            state = "was broken"
        elif problems:
            state = "breaks"
        elif lost:
            state = "loses"
            problems = [_problem("lost", f"the new Airflow finds no DAG {', '.join(lost)} in this file")]
        elif path in broken_before:
            state = "repaired"
        else:
            state = "warns" if after.get("warnings") else "clean"
        names = {path, PurePosixPath(path).name, *dag_ids}
        if state in IN_THE_WAY and names & set(acknowledged):
            state = "acknowledged"
        files.append(
            {
                "path": path,
                "dag_ids": dag_ids,
                "state": state,
                "problems": problems,
                "warnings": [warning.strip() for warning in after.get("warnings", ())],
                "seconds": round(after.get("seconds", 0), 3),
            }
        )
    return sorted(files, key=lambda file: (STATES.index(file["state"]), file["path"]))


IN_THE_WAY = ("breaks", "loses")
STATES = ("breaks", "loses", "acknowledged", "was broken", "repaired", "warns", "clean")


def blocking(files: list[Json]) -> list[Json]:
    """Return what stops an upgrade, by its cause; what stops most files comes first.

    Each cause is {"cause", "summary", "hint", "count", "files"}, each of its files {"path", "dag_ids",
    "acknowledge"}. `cause` is what `cause_of` makes of the problem, `summary` the problem's own words
    where all files have the same. `acknowledge` is the name by which to let the file pass.
    """
    causes: dict[str, Json] = {}
    for file in files:
        if file["state"] not in IN_THE_WAY:
            continue
        problem = file["problems"][0]
        cause = cause_of(problem, file["path"], file["dag_ids"])
        entry = causes.setdefault(
            cause,
            {"cause": cause, "summary": problem["summary"], "hint": problem["hint"], "count": 0, "files": []},
        )
        if entry["summary"] != problem["summary"]:
            entry["summary"] = cause.partition(": ")[2]
        entry["count"] += 1
        entry["files"].append(
            {
                "path": file["path"],
                "dag_ids": file["dag_ids"],
                "acknowledge": file["dag_ids"][0] if file["dag_ids"] else file["path"],
            }
        )
    return sorted(causes.values(), key=lambda entry: (-entry["count"], entry["cause"]))


def cause_of(problem: Mapping[str, Any], path: str = "", dag_ids: Collection[str] = ()) -> str:
    """Return what a problem has in common with those of other files: its kind and its summary, without names.

    File names, line numbers, addresses in memory, and the ids of DAGs and tasks become "…".
    """
    text = str(problem["summary"])
    own = [*dag_ids, path, PurePosixPath(path).name] if path else list(dag_ids)
    if names := "|".join(re.escape(name) for name in sorted(own, key=len, reverse=True) if name):
        # Whole names: the DAG `a` is not in every word that has an a.
        text = re.sub(rf"(?<![\w-])(?<!\w\.)(?:{names})(?![\w-]|\.\w)", "…", text)
    for pattern, replacement in PARTICULARS:
        text = pattern.sub(replacement, text)
    return f"{problem['kind']}: {text}"


PARTICULARS = (
    (re.compile(r"[\w./~-]+\.py\b"), "…"),
    (re.compile(r"\b(lines?|column) \d+"), r"\1 …"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "…"),
    (re.compile(r"<(Task|Mapped|DAG)\b([^:>]*): [^>]*>"), r"<\1\2: …>"),
    (re.compile(r"(?i)\b((?:task|dag)(?:[ _]?id)?[ =:]{1,3})(['\"`])[^'\"`]*\2"), r"\1\2…\2"),
    # The two words of a switch have one remedy.
    (re.compile(r"\bvalue (True|False)\b"), "value …"),
    (re.compile(r"…(, …)+"), "…"),
)
"""What differs from file to file in one and the same problem, and what stands in its place."""


def unused(acknowledged: Collection[str], files: list[Json]) -> list[str]:
    """Return the acknowledged names that no file needed: a slip of the pen, or a DAG that was repaired."""
    used = {
        name
        for file in files
        if file["state"] == "acknowledged"
        for name in (file["path"], PurePosixPath(file["path"]).name, *file["dag_ids"])
    }
    return sorted(set(acknowledged) - used)


def _problems(report: Mapping[str, Any]) -> dict[str, list[Json]]:
    """Return a gate's problems by file, without those that are about packages and not about a DAG."""
    found: dict[str, list[Json]] = {}
    for problem in report["problems"]:
        if problem["kind"] != "requirement":
            found.setdefault(problem["path"], []).append(_problem(problem["kind"], problem["message"]))
    return found


def requirements(report: Mapping[str, Any]) -> list[str]:
    """Return what the tree's own requirements ask for and the image has not."""
    return [problem["message"] for problem in report["problems"] if problem["kind"] == "requirement"]


def _problem(kind: str, message: str) -> Json:
    lines = [line for line in message.strip().splitlines() if line.strip()]
    return {
        "kind": kind,
        "summary": lines[-1].strip() if lines else kind,
        "message": message,
        "hint": _hint(message),
    }


def _hint(message: str) -> str:
    for pattern, hint in HINTS:
        if match := pattern.search(message):
            return hint.format(**match.groupdict())
    return ""
