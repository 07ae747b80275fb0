"""The DAG repository's first commit: this project's DAGs, as the team's own repository would hold them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from sandbox.git_environment import git_environment

NAME = "cityofaustin/atd-airflow"
BRANCH = "production"
IDENTITY = {
    f"GIT_{role}_{name}": value
    for role in ("AUTHOR", "COMMITTER")
    for name, value in (("NAME", "Sandbox"), ("EMAIL", "sandbox@example.org"))
}


def seed(repository: Path, source: Path) -> str | None:
    """Commit the files below ``source`` to the branch of a bare repository that has none yet.

    Return the commit, or None when there is nothing to do: the branch exists, or ``source`` does not.
    """
    if not source.is_dir() or _git(repository, "for-each-ref", f"refs/heads/{BRANCH}"):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        # An index of its own: the files may be read-only, and the repository has no working tree.
        variables = {**IDENTITY, "GIT_INDEX_FILE": os.path.join(scratch, "index")}
        files = [".", ":(exclude,glob)**/__pycache__/**"]
        _git(repository, "--work-tree", str(source), "-C", str(source), "add", "--", *files, **variables)
        tree = _git(repository, "write-tree", **variables)
        commit = _git(repository, "commit-tree", "-m", "Begin with the project's DAGs", tree, **variables)
    _git(repository, "update-ref", f"refs/heads/{BRANCH}", commit)
    return commit


def _git(repository: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(  # noqa: S603 - no argument comes from outside
        ["git", "--git-dir", str(repository.absolute()), *arguments],  # noqa: S607 - Debian's git
        env={**git_environment(), **variables},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip()
