"""A repository of the Git host can be cloned, pushed to and fetched, with git itself as the judge."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox import git_host
from tests.served import served


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(git_host.create_app(str(tmp_path / "host"), ["team/airflow"])) as url:
        yield url


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_push_clone_and_fetch(url: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    git(tmp_path, "clone", "--quiet", f"{url}/team/airflow.git", str(first))
    # Larger than http.postBuffer, so that git sends it in chunks.
    (first / "large").write_bytes(bytes(range(256)) * 8_000)
    (first / "random").write_bytes(os.urandom(3 * 2**20))
    git(first, "add", ".")
    git(first, "commit", "--quiet", "--message", "first")
    git(first, "push", "--quiet", "origin", "HEAD:production")
    git(tmp_path, "clone", "--quiet", "--branch", "production", f"{url}/team/airflow.git", str(second))
    assert (second / "random").read_bytes() == (first / "random").read_bytes()
    git(first, "commit", "--quiet", "--allow-empty", "--message", "second")
    git(first, "push", "--quiet", "origin", "HEAD:production")
    git(second, "pull", "--quiet")
    assert git(second, "rev-parse", "HEAD") == git(first, "rev-parse", "HEAD")


def test_what_was_pushed_outlives_a_restart(url: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", f"{url}/team/airflow.git", str(clone))
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "first")
    git(clone, "push", "--quiet", "origin", "HEAD:production")
    with served(git_host.create_app(str(tmp_path / "host"), ["team/airflow"])) as again:
        found = git(tmp_path, "ls-remote", f"{again}/team/airflow.git", "refs/heads/production")
    assert found.split()[0] == git(clone, "rev-parse", "HEAD")


def test_missing_repository_is_404(url: str) -> None:
    assert httpx.get(f"{url}/team/other.git/info/refs?service=git-upload-pack").status_code == 404
    assert httpx.get(f"{url}/../etc/passwd").status_code in (400, 403, 404)
