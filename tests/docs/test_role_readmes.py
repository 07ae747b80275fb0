"""What bin/docs writes is current: roles' READMEs, the table of endpoints. Specs say what defaults say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.documents import ROOT

ROLES = sorted((ROOT / "roles").iterdir())
every_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def bin_docs(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bin/docs"), *arguments]
    return subprocess.run(command, text=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the part of the project that bin/docs reads and writes."""
    for folder in ("roles", "playbooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def load(role: Path, file: str) -> dict[str, Any]:
    document: dict[str, Any] | None = yaml.safe_load((role / file).read_text(encoding="utf-8"))
    return document or {}


def test_readmes_are_current() -> None:
    result = bin_docs("--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_check_finds_a_stale_readme_and_leaves_it(project: Path) -> None:
    spec, readme = project / "roles/smoke/meta/argument_specs.yml", project / "roles/smoke/README.md"
    before = readme.read_text(encoding="utf-8")
    spec.write_text(
        spec.read_text(encoding="utf-8").replace("default: 180", "default: 181"), encoding="utf-8"
    )
    result = bin_docs("--check", f"--project={project}")
    assert (result.returncode, result.stdout) == (1, "roles/smoke/README.md: stale, run bin/docs\n")
    assert readme.read_text(encoding="utf-8") == before


def test_check_finds_a_missing_readme(project: Path) -> None:
    (project / "roles/stack/README.md").unlink()
    result = bin_docs("--check", f"--project={project}")
    assert (result.returncode, result.stdout) == (1, "roles/stack/README.md: stale, run bin/docs\n")


def test_writes_what_is_stale_and_nothing_else(project: Path) -> None:
    readme = project / "roles/secrets/README.md"
    readme.write_text("old", encoding="utf-8")
    assert bin_docs(f"--project={project}").stdout == "roles/secrets/README.md: written\n"
    assert readme.read_text(encoding="utf-8") == (ROOT / "roles/secrets/README.md").read_text(
        encoding="utf-8"
    )
    assert bin_docs(f"--project={project}").stdout == ""


ADDED = {
    "name": "docs",
    "purpose": "the handbook",
    "port": 8084,
    "service": "docs:8000",
    "health": "/",
    "access": "open",
}


def test_added_endpoint_is_in_the_readme(project: Path) -> None:
    """`--check` misses it, and a run writes its line and nothing else."""
    file, readme = project / "playbooks/group_vars/all/endpoints.yml", project / "README.md"
    before = readme.read_text(encoding="utf-8").splitlines()
    file.write_text(file.read_text(encoding="utf-8") + f"  - {json.dumps(ADDED)}\n", encoding="utf-8")
    result = bin_docs("--check", f"--project={project}")
    assert (result.returncode, result.stdout) == (1, "README.md: stale, run bin/docs\n")
    assert bin_docs(f"--project={project}").stdout == "README.md: written\n"
    after = readme.read_text(encoding="utf-8").splitlines()
    assert [line for line in after if line not in before] == ["| 8084 | the handbook | anybody |"]
    assert len(after) == len(before) + 1


def test_readme_without_its_note_is_an_error(project: Path) -> None:
    """Otherwise the table would be true for ever."""
    readme = project / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("<!-- Made by", "<!--"), encoding="utf-8")
    assert bin_docs("--check", f"--project={project}").returncode == 1


@every_role
def test_every_option_is_in_the_table(role: Path) -> None:
    text = (role / "README.md").read_text(encoding="utf-8")
    for option in load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]:
        assert f"\n| `{option}` |" in text


@every_role
def test_spec_and_defaults_agree(role: Path) -> None:
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role, "defaults/main.yml")
    assert defaults.keys() == {name for name, option in options.items() if not option.get("required")}
    said = {name: option["default"] for name, option in options.items() if "default" in option}
    assert said == {name: defaults[name] for name in said}
