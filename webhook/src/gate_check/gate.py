"""Checks trees, and remembers what each file showed for as long as nothing that this depends on changes.

Names, symlinks, sizes, submodules and Git LFS are checked earlier, before a commit becomes a tree: by
`webhook/trees.py`.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gate_check import children, dags
from gate_check.children import Job, Limits
from gate_check.dependencies import Digests
from gate_check.report import ParsedFile, Problem, Report, printable
from gate_check.requirements import missing


class TooLongError(Exception):
    """There was no time to check the whole tree, and what was checked is fine."""


class Gate:
    """One Airflow, and the verdicts that it has given."""

    def __init__(self, limits: Limits, foreign_paths: Iterable[Path] = ()) -> None:
        """`foreign_paths`: folders below which nothing may be imported, such as the trees that are live."""
        self._limits = limits
        self._home = tempfile.TemporaryDirectory(prefix="gate-")  # removed when the process ends
        self._airflow = dags.Airflow(Path(self._home.name), dict(os.environ), foreign_paths)
        self._cache: dict[tuple[str, str | None], tuple[ParsedFile, dict[str, str | None]]] = {}
        self._plugins: list[Any] = []
        self.checks = 0
        """How many were begun."""
        children.adopt_strays()

    @property
    def airflow_version(self) -> str:
        """The version of the Airflow that checks."""
        return self._airflow.version

    def check(
        self,
        tree: Path,
        dags_folder: str = "dags",
        requirements: str | None = None,
        seconds: float = float("inf"),
    ) -> Report:
        """Check one tree; after `seconds` no further file is begun.

        Raises:
            TooLongError: there was no time for all files. Those that were checked need none the next time.
        """
        self.checks += 1
        started = time.monotonic()
        deadline = started + seconds
        tree = tree.resolve()
        folder = tree / dags_folder
        problems: list[Problem] = []
        listed: dict[str, list[Any]] = {"dag_files": [], "others": [], "problems": []}
        first = Job(dags_folder, lambda: dags.list_files(tree, folder))
        for _, answer in children.run([first], self._limits):
            if isinstance(answer, Problem):
                used = {
                    "slow": f"longer than {self._limits.seconds:g} s",
                    "memory": f"more than {self._limits.memory // 2**20} MiB",
                }
                if answer.kind in used:
                    answer.message = (
                        f"listing it took {used[answer.kind]}: look at the patterns of .airflowignore"
                    )
                problems.append(answer)
            else:
                listed = answer
                problems += [Problem(*problem) for problem in listed["problems"]]

        def parsing(name: str) -> Callable[[], ParsedFile]:
            return lambda: dags.parse(self._airflow, tree, folder, tree / name)

        def compiling(name: str) -> Callable[[], ParsedFile]:
            return lambda: dags.check_syntax(tree / name)

        work = {name: parsing(name) for name in listed["dag_files"]}
        work.update({name: compiling(name) for name in listed["others"]})
        if requirements and requirements not in work and os.path.isfile(tree / requirements):
            work[requirements] = lambda: _missing(tree / requirements)
        files = dict(self._verdicts(work, tree, deadline))
        for name, parsed in files.items():
            problems += [Problem(problem.kind, name, problem.message) for problem in parsed.problems]
        parsed_files = {name: files[name] for name in listed["dag_files"] if name in files}
        problems += duplicates(parsed_files)
        if len(files) < len(work) and not problems:
            raise TooLongError(
                f"{len(files)} of {len(work)} files were checked in {seconds:.0f} s; "
                "the next check goes on from there"
            )
        problems = sorted(
            (Problem(each.kind, printable(each.path), printable(each.message)) for each in problems),
            key=lambda problem: (problem.path, problem.kind),
        )
        return Report(self.airflow_version, problems, parsed_files, time.monotonic() - started)

    def _verdicts(
        self, work: dict[str, Callable[[], ParsedFile]], tree: Path, deadline: float
    ) -> Iterator[tuple[str, ParsedFile]]:
        """Yield what each file shows: from the cache where nothing changed, else from a child."""
        plugins = list(_signature(self._airflow.plugins))
        if plugins != self._plugins:
            self._cache.clear()
            self._plugins = plugins
        digests = Digests(tree)
        jobs = []
        for name, function in work.items():
            known = self._cache.get((name, digests.read(name)))
            if known and digests.of(known[0]) == known[1]:
                yield name, dataclasses.replace(known[0], cached=True)
            else:
                jobs.append(Job(name, _as_json(function)))
        for job, answer in children.run(jobs, self._limits, deadline):
            if isinstance(answer, Problem):
                parsed = ParsedFile(
                    problems=[answer], seconds=self._limits.seconds if answer.kind == "slow" else 0
                )
            else:
                parsed = ParsedFile(
                    **{**answer, "problems": [Problem(**each) for each in answer["problems"]]}
                )
            if not parsed.problems:
                key = job.path, digests.read(job.path)
                self._cache.pop(key, None)
                self._cache[key] = parsed, digests.of(parsed)
            yield job.path, parsed
        # Only what the last trees had is of use: the oldest entries go.
        while len(self._cache) > max(1_000, 4 * len(work)):
            del self._cache[next(iter(self._cache))]


def _as_json(work: Callable[[], ParsedFile]) -> Callable[[], dict[str, Any]]:
    return lambda: dataclasses.asdict(work())


def _missing(path: Path) -> ParsedFile:
    return ParsedFile(problems=[Problem("requirement", "", message) for message in missing(path)])


def _signature(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of the files below a folder of the host's."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            status = os.lstat(os.path.join(root, name))
            yield os.path.join(root, name), status.st_size, status.st_mtime_ns


def duplicates(files: dict[str, ParsedFile]) -> Iterator[Problem]:
    """Find dag_ids that more than one file, or one file twice, defines: Airflow would pick one at random."""
    owners: dict[str, str] = {}
    for name, parsed in sorted(files.items()):
        for dag_id in parsed.dag_ids:
            if dag_id in owners:
                yield Problem("duplicate", name, f"the dag_id {dag_id} is taken by {owners[dag_id]}")
            else:
                owners[dag_id] = name
