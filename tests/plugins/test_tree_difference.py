"""The copy of the DAGs on the host is made equal to the project's, and a second run changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plugins.filter.tree_difference import tree_difference
from tests.plugins.conftest import ROOT


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Return a project's DAGs with one of each kind, and where the host has its copy."""
    here, there = tmp_path / "project/dags", tmp_path / "host/trees/working-copy/dags"
    (here / "utils/__pycache__").mkdir(parents=True)
    there.mkdir(parents=True)
    for name in ("a.py", "utils/b.py", ".airflowignore", "utils/__pycache__/b.pyc"):
        (here / name).write_text(name)
    (here / "program").write_text("#!/bin/sh\n")
    (here / "program").chmod(0o750)
    (here / "a.py").chmod(0o600)
    (here / "link").symlink_to("utils")
    return here, there


def play(tmp_path: Path, *options: str) -> int:
    """Run the role's tasks on this machine; return how many changed something."""
    document = {
        "name": "Copy",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {
            "dag_delivery_project": str(tmp_path / "project"),
            "dag_delivery_directory": str(tmp_path / "host"),
        },
        "tasks": [
            {
                "name": "Copy",
                "ansible.builtin.include_role": {"name": "dag_delivery", "tasks_from": "copy_dags"},
            }
        ],
    }
    playbook = tmp_path / "copy.yml"
    playbook.write_text(json.dumps([document]))
    run = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--inventory=localhost,",
            str(playbook),
            *options,
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return int(re.findall(r"changed=(\d+)", run.stdout)[-1])


def content(directory: Path) -> dict[str, tuple[str, str]]:
    """Return what is in a directory: kind or content, and mode."""
    return {
        str(path.relative_to(directory)): (
            f"-> {path.readlink()}"
            if path.is_symlink()
            else path.read_text()
            if path.is_file()
            else "directory",
            oct(path.lstat().st_mode & 0o777),
        )
        for path in directory.rglob("*")
    }


WHOLE = {
    ".airflowignore": (".airflowignore", "0o644"),
    "a.py": ("a.py", "0o644"),
    "link": ("-> utils", "0o777"),
    "program": ("#!/bin/sh\n", "0o755"),
    "utils": ("directory", "0o755"),
    "utils/b.py": ("utils/b.py", "0o644"),
}


def test_copy_becomes_the_projects_and_stays_so(tmp_path: Path, trees: tuple[Path, Path]) -> None:
    """What does not differ keeps its time: Airflow would read it again."""
    _, there = trees
    assert play(tmp_path, "--check") > 0
    assert content(there) == {}
    assert play(tmp_path) > 0
    assert content(there) == WHOLE
    (there / "a.py").write_text("b.py")
    (there / "utils/b.py").chmod(0o600)
    (there / "mine/of").mkdir(parents=True)
    (there / "mine/of/mine.py").write_text("on the host only")
    (there / "program").unlink()
    (there / "program").mkdir()
    (there / "link").unlink()
    (there / "link").symlink_to("a.py")
    os.utime(there / ".airflowignore", (1, 1))
    began = time.time()
    assert play(tmp_path) > 0
    assert content(there) == WHOLE
    assert (there / ".airflowignore").stat().st_mtime == 1
    assert (there / "a.py").stat().st_mtime > began - 1
    assert play(tmp_path) == 0


def listed(path: str, *, kind: str = "reg", checksum: str = "1", mode: str = "0644") -> dict[str, Any]:
    """Return what ansible.builtin.find says of a path."""
    sort = {f"is{name}": name == kind for name in ("reg", "dir", "lnk")}
    return {"path": path, "mode": mode, **sort, **({"checksum": checksum} if kind == "reg" else {})}


@pytest.mark.parametrize(
    ("here", "there", "differing", "surplus"),
    [
        ([listed("/a/x")], [listed("/b/x")], [], []),
        ([listed("/a/x", mode="0600")], [listed("/b/x")], [], []),
        ([listed("/a/x", mode="0700")], [listed("/b/x")], ["x"], []),
        ([listed("/a/x")], [listed("/b/x", mode="0600")], ["x"], []),
        ([listed("/a/x")], [listed("/b/x", checksum="2")], ["x"], []),
        ([listed("/a/x")], [], ["x"], []),
        ([], [listed("/b/x")], [], ["x"]),
        ([listed("/a/x")], [listed("/b/x", kind="dir", mode="0755")], ["x"], ["x"]),
        ([listed("/a/x", kind="lnk", mode="0777")], [listed("/b/x", kind="lnk", mode="0777")], ["x"], []),
        ([listed("/a/x", kind="dir", mode="0755"), listed("/a/x/y")], [], ["x"], []),
        ([listed("/a/__pycache__", kind="dir"), listed("/a/__pycache__/y.pyc")], [], [], []),
    ],
    ids=[
        "same",
        "own-umask",
        "executable",
        "mode",
        "content",
        "missing",
        "surplus",
        "kind",
        "link",
        "folder",
        "python",
    ],
)
def test_difference(
    here: list[dict[str, Any]], there: list[dict[str, Any]], differing: list[str], surplus: list[str]
) -> None:
    assert tree_difference(here, "/a", there, "/b") == {"differing": differing, "surplus": surplus}
