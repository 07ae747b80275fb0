"""One change at a time, whoever makes it and however it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_release.core.errors import ReleaseError
from airflow_release.core.lock import exclusive

from tests.release.conftest import SOURCE

HOLDER = """
import pathlib, sys, time
from airflow_release.core.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1]), doing="an upgrade"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
        env={"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_one_is_refused_with_the_firsts_name(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    refused = pytest.raises(ReleaseError, match=r"an upgrade has been active since 20.*; try again later")
    with refused, exclusive(tmp_path / "lock", doing="a backup"):
        pass


def test_full_disk_keeps_nobody_from_freeing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, text: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with exclusive(tmp_path / "lock", doing="a switch"):
        assert (tmp_path / "lock").read_bytes() == b""


def test_lock_ends_with_its_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with exclusive(tmp_path / "lock", doing="a backup"):
        assert "a backup has been active" in (tmp_path / "lock").read_text()


def test_waits_as_long_as_it_was_told(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ReleaseError), exclusive(tmp_path / "lock", 1, doing="a backup"):
        pass
    assert time.monotonic() - started >= 1
    holder.kill()
    with exclusive(tmp_path / "lock", 30, doing="a backup"):
        pass


def test_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "new/lock", doing="a backup"):
        raise ZeroDivisionError
    with exclusive(tmp_path / "new/lock", doing="a backup"):
        pass
