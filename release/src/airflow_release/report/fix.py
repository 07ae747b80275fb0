"""Makes a patch of mechanical edits for DAG files that the next release breaks, and shows that it works.

The new release's image finds the edits (`image_edits`). They are made in a copy of the live tree, and the
gates of both releases parse that copy. An edit that does not work on both is undone, and the copy is parsed
again: what is offered is what both images parsed. The live tree is only read, and nothing is applied.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_release.core.errors import ReleaseError
from airflow_release.report.dag_check import IN_THE_WAY
from airflow_release.report.release_folder import ReleaseFolder

ROUNDS = 6
"""How often the copy is parsed at most. One or two do; each takes as long as parsing the live tree."""
FOLDER = ".fix-"
"""What the name of a copy's folder begins with, in `releases/`; the process id of its maker follows."""

Json = dict[str, Any]


@dataclass
class Fix:
    """A patch, and what it was seen to do. `files` has the rules that were used on each file that it changes.

    `mends` are the DAG files that were in the way and work on both images with it, `quiets` those that give
    fewer warnings on the new one.
    """

    patch: bytes = b""
    files: dict[str, list[str]] = field(default_factory=dict)
    mends: list[str] = field(default_factory=list)
    quiets: list[str] = field(default_factory=list)
    note: str = ""

    def document(self) -> Json:
        """Return what the report's JSON says of it."""
        files = [{"path": path, "rules": rules} for path, rules in sorted(self.files.items())]
        return {"files": files, "mends": self.mends, "quiets": self.quiets, "note": self.note}


def make(
    old: ReleaseFolder,
    new: ReleaseFolder,
    tree: Path,
    before: tuple[Json, Json],
    dags: list[Json],
    moved: Json,
) -> Fix:
    """Make the patch, or say why there is none.

    `before` is what both gates say of the live tree, `dags` what `dag_check` makes of it, and `moved` the
    names that the old image moved.
    """
    if not any(file["problems"] or file["warnings"] for file in dags):
        return Fix()
    try:
        return _make(old, new, tree, before, dags, moved)
    except (ReleaseError, OSError) as error:  # the report is of use without a patch
        return Fix(note=f"No patch was made: {error}.")


def _make(
    old: ReleaseFolder,
    new: ReleaseFolder,
    tree: Path,
    before: tuple[Json, Json],
    dags: list[Json],
    moved: Json,
) -> Fix:
    with shared_folder(old.host.releases) as folder:
        copy, moved_names = folder / "tree", folder / "moved_names.json"
        ignored = shutil.ignore_patterns(".git", "__pycache__")
        shutil.copytree(tree, copy, symlinks=True, ignore=ignored)
        moved_names.write_text(json.dumps(moved), encoding="utf-8")
        moved_names.chmod(0o644)
        edits = new.edits(copy, moved_names, folder)
        _write(copy, {path: edit["content"] for path, edit in edits.items()})
        for _ in range(ROUNDS):
            if not edits:
                return Fix()
            after = old.parse(copy, folder), new.parse(copy, folder)
            fix, dropped = judge(edits, before, after, dags)
            if not dropped:
                return fix
            for path in dropped:
                del edits[path]
                shutil.copyfile(tree / path, copy / path)
    return Fix(note="No edits were found that work together on both images.")


def judge(
    edits: Mapping[str, Json], before: tuple[Json, Json], after: tuple[Json, Json], dags: list[Json]
) -> tuple[Fix, set[str]]:
    """Return the patch as it stands, and those of its files that have to go.

    A file goes when it does not parse on both images, when a DAG file that reads it got worse on either, and
    when no DAG file got better by it.
    """
    readers: dict[str, set[str]] = {path: set() for path in edits}
    for gate in after:
        for path, parsed in gate["files"].items():
            for read in {path, *parsed["reads"]} & readers.keys():
                readers[read].add(path)
    broken = [_broken(gate) for gate in before], [_broken(gate) for gate in after]
    worse, better = set(), set()
    fix = Fix()
    for file in dags:
        path = file["path"]
        dag_ids = [set(gate["files"].get(path, {}).get("dag_ids", ())) for gate in (*before, *after)]
        warned = [set(gate["files"].get(path, {}).get("warnings", ())) for gate in (*before, *after)]
        works = (
            not any(path in each for each in broken[1])
            and dag_ids[0] <= dag_ids[2]
            and dag_ids[0] <= dag_ids[3]
        )
        if not works and (
            path in edits
            or any(path in broken[1][image] and path not in broken[0][image] for image in (0, 1))
            or any(dag_ids[image] - dag_ids[image + 2] for image in (0, 1))
        ):
            worse.add(path)
        elif works and file["problems"]:
            better.add(path)
            if file["state"] in IN_THE_WAY:
                fix.mends.append(path)
        elif works and warned[3] < warned[1] and len(warned[2]) <= len(warned[0]):
            better.add(path)
            fix.quiets.append(path)
    # An edit of its own is the likelier cause than one in a module that many read.
    dropped = {
        path
        for path in edits
        if path in worse or readers[path] & (worse - edits.keys()) or not readers[path] & better
    }
    dropped |= {path for path in edits if any(path in each for each in broken[1])}
    for path, edit in sorted(edits.items()):
        fix.files[path] = edit["rules"]
        fix.patch += base64.b64decode(edit["patch"])
    return fix, dropped


def _broken(gate: Json) -> set[str]:
    return {problem["path"] for problem in gate["problems"] if problem["kind"] != "requirement"}


def _write(copy: Path, contents: Mapping[str, str]) -> None:
    for path, content in contents.items():
        (copy / path).write_bytes(base64.b64decode(content))


@contextmanager
def shared_folder(releases: Path) -> Iterator[Path]:
    """Make a folder that the gates can be given to read, for as long as it takes.

    It is not beside the live tree: the webhook may write there, and root must not write where it may. A
    folder that a killed process left is removed.
    """
    for leftover in releases.glob(f"{FOLDER}*"):
        if not Path("/proc", leftover.name[len(FOLDER) :]).exists():
            shutil.rmtree(leftover)
    folder = releases / f"{FOLDER}{os.getpid()}"
    folder.mkdir()
    try:
        folder.chmod(0o755)  # whatever the process' umask: the gate reads as another user
        yield folder
    finally:
        shutil.rmtree(folder)
