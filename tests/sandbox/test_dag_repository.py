"""The DAG repository begins with the project's files, once, and people's commits are never touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox import dag_repository, git_host


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git_host.create_app(str(tmp_path / "git"), [dag_repository.NAME], dag_repository.BRANCH)
    return tmp_path / "git" / f"{dag_repository.NAME}.git"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files as the container mounts them, with what Python leaves behind."""
    root = tmp_path / "seed"
    for name, text in {
        "dags/one.py": "dag = 1\n",
        "dags/utils/__init__.py": "",
        "dags/__pycache__/one.cpython-313.pyc": "compiled",
        "images/airflow/requirements.txt": "pandas\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_begins_with_the_projects_files(repository: Path, source: Path) -> None:
    commit = dag_repository.seed(repository, source)
    assert git(repository, "rev-parse", "production") == commit
    assert git(repository, "ls-tree", "-r", "--name-only", "production").splitlines() == [
        "dags/one.py",
        "dags/utils/__init__.py",
        "images/airflow/requirements.txt",
    ]
    assert git(repository, "show", "production:dags/one.py") == "dag = 1"
    assert sorted(path.name for path in source.iterdir()) == ["dags", "images"]


def test_is_not_seeded_again(repository: Path, source: Path) -> None:
    commit = dag_repository.seed(repository, source)
    (source / "dags/one.py").write_text("dag = 2\n")
    assert dag_repository.seed(repository, source) is None
    assert git(repository, "rev-parse", "production") == commit


def test_without_files_the_repository_stays_empty(repository: Path, tmp_path: Path) -> None:
    assert dag_repository.seed(repository, tmp_path / "nothing") is None
    assert git(repository, "for-each-ref") == ""
