"""Ansible's modules of this project run on the Python of a host, as Ansible starts them there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
PROGRAM = """
import json, sys
from ansible.module_utils.testing import patch_module_args
module = __import__(sys.argv[1])
with patch_module_args(json.loads(sys.argv[2])):
    module.main()
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where Python finds the modules, and what Ansible sends along: its module_utils and this project's."""
    installed = importlib.util.find_spec("ansible.module_utils")
    assert installed is not None
    assert installed.submodule_search_locations is not None
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(installed.submodule_search_locations[0], folder / "ansible/module_utils")
    (folder / "ansible/__init__.py").touch()
    for path in (ROOT / "plugins/module_utils").glob("*.py"):
        shutil.copy(path, folder / "ansible/module_utils")
    return f"{folder}:{ROOT}/plugins/modules"


def run(library: str, module: str, arguments: dict[str, Any], **environment: str) -> dict[str, Any]:
    """Return what the module answers."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": library, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip(), done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("module", MODULES)
def test_module_is_imported_and_reads_its_arguments(library: str, module: str) -> None:
    """What Python lacks that long has to be known before a host is half configured."""
    answer = run(library, module, {})
    assert answer["failed"] is True
    assert answer["msg"].startswith("missing required arguments: "), answer


def test_release_module_reads_what_the_command_says(library: str, tmp_path: Path) -> None:
    program = tmp_path / "airflow-release"
    program.write_text('#!/bin/sh\necho "10:00:00 working" >&2\necho \'{"operation": null}\'\n')
    program.chmod(0o755)
    answer = run(
        library, "airflow_release", {"arguments": ["status"]}, PATH=f"{tmp_path}:{os.environ['PATH']}"
    )
    assert answer["answer"] == {"operation": None}
    assert answer["steps"] == ["10:00:00 working"]


def test_files_module_writes_what_differs(library: str, tmp_path: Path) -> None:
    ownership = {"owner": str(os.getuid()), "group": str(os.getgid())}
    folder, file = str(tmp_path / "a/b"), str(tmp_path / "a/b/c.conf")
    arguments = {
        "directories": [{"path": folder, "mode": "0750", **ownership}],
        "files": [
            {"path": file, "mode": "0600", "secret": True, "validate": "/usr/bin/test -s %s", **ownership}
        ],
        "texts": json.dumps({file: "ä secret\n"}),
        "look_at": [],
    }
    first = run(library, "host_files", arguments)
    assert (first["changed"], first["written"]) == (True, [folder, file]), first
    assert Path(file).read_text(encoding="utf-8") == "ä secret\n"
    assert Path(file).stat().st_mode & 0o7777 == 0o600
    assert "secret\n" not in json.dumps(first, ensure_ascii=False)
    second = run(library, "host_files", arguments)
    assert (second["changed"], second["written"], second["found"]) == (False, [], [folder, file])
