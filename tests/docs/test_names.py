"""What the documents name exists: commands with their options, playbooks, services, variables, paths."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests import compose_project
from tests.docs.documents import ROOT, blocks, commands, handwritten, name, spans

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
FOLDERS = sorted(
    path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))
)
SCRIPT = re.compile(r"(?:bench|bin|images/airflow)/[a-z_]+")
OPTIONS_WITH_A_VALUE = {"--tail", "--entrypoint"}


def named(find: Callable[[Path], Iterator[str]]) -> pytest.MarkDecorator:
    """Parametrize a test with what `find` yields for each document; finding nothing at all is an error."""
    found = [
        pytest.param(text, id=f"{name(path)}: {text}")
        for path in handwritten()
        for text in dict.fromkeys(find(path))
    ]
    assert found, f"{find.__name__} finds nothing"
    return pytest.mark.parametrize("text", found)


def words(command: str) -> list[str]:
    """Split a command as a shell does; what is no command (an apostrophe, say) has no words."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def scripts(path: Path) -> Iterator[str]:
    """Yield the commands that start with a script of this project."""
    yield from (c for c in commands(path) if words(c) and SCRIPT.fullmatch(words(c)[0]) and ".txt" not in c)


def playbooks(path: Path) -> Iterator[str]:
    """Yield the calls of ansible-playbook."""
    yield from (command for command in commands(path) if command.startswith("ansible-playbook "))


def compose(path: Path) -> Iterator[str]:
    """Yield the calls of Compose that name a service."""
    pattern = re.compile(r"docker compose (exec|run|logs|restart) .*")
    yield from (command for command in commands(path) if pattern.fullmatch(command) and "<" not in command)


def volumes(path: Path) -> Iterator[str]:
    """Yield the names of volumes of the Compose project."""
    for text in commands(path):
        yield from re.findall(r"\bairflow_(?:[a-z]+_data|weather)\b", text)


def variables(path: Path) -> Iterator[str]:
    """Yield the variables of roles."""
    for text in [*spans(path), *blocks(path)]:
        yield from re.findall(rf"(?<![\w/])(?:{'|'.join(ROLES)})_[a-z]+(?:_[a-z]+)*\b(?!\.py)", text)


def paths(path: Path) -> Iterator[str]:
    """Yield the paths below a folder of this project."""
    for text in spans(path):
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", text):
            yield text


@cache
def help_of(script: str) -> str:
    """Return what a script says of itself."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(ROOT / script), "--help"]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout


@named(scripts)
def test_script_exists_and_has_the_options(text: str) -> None:
    script, *arguments = words(text.split("&&")[0])
    assert os.access(ROOT / script, os.X_OK)
    for option in (argument for argument in arguments if argument.startswith("-")):
        assert option in help_of(script)


@named(playbooks)
def test_playbook_and_inventory_exist(text: str) -> None:
    arguments = words(text)
    files = [argument for argument in arguments if argument.endswith(".yml")]
    files += [after for option, after in pairwise(arguments) if option == "-i"]
    assert files
    for file in files:
        assert (ROOT / file).exists(), file


def services_of(template: str) -> set[str]:
    """Return the names of a Compose template's services, also of those that only some hosts have."""
    text = (ROOT / "templates" / template).read_text(encoding="utf-8")
    section = text.split("\nservices:\n")[1].split("\nnetworks:\n")[0]
    return set(re.findall(r"^  ([a-z][a-z-]*):", section, re.MULTILINE))


@named(compose)
def test_service_exists(text: str) -> None:
    services = {*compose_project.project()["services"], *services_of("srv/airflow/docker-compose.yaml.j2")}
    services |= services_of("worker/srv/airflow/docker-compose.yaml.j2")
    arguments = iter(words(text)[3:])
    for argument in arguments:
        if argument in OPTIONS_WITH_A_VALUE:
            next(arguments)
        elif not argument.startswith("-"):
            assert argument in services
            return


@named(volumes)
def test_volume_exists(text: str) -> None:
    assert f"\n  {text.removeprefix('airflow_')}: {{}}\n" in _volumes()


def _volumes() -> str:
    """Return the part of the Compose template that has its volumes."""
    project = (ROOT / "templates/srv/airflow/docker-compose.yaml.j2").read_text(encoding="utf-8")
    return project.split("\nvolumes:")[1]


@named(variables)
def test_variable_is_an_option_of_its_role(text: str) -> None:
    """Or a setting, a role or a volume whose name begins as a role's."""
    settings = (ROOT / "playbooks/group_vars/all/defaults.yml").read_text(encoding="utf-8")
    options: set[str] = {*yaml.safe_load(settings), *ROLES}
    options |= set(re.findall(r"^  (\w+):", _volumes(), re.MULTILINE))
    for role in ROLES:
        spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
        options |= spec["argument_specs"]["main"]["options"].keys()
    assert text in options


@named(paths)
def test_path_exists(text: str) -> None:
    assert (ROOT / text).exists()


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_maps_the_folder(folder: str) -> None:
    assert f"`{folder}/`" in (ROOT / "README.md").read_text(encoding="utf-8") or folder == "docs"


@pytest.mark.parametrize("role", ROLES)
def test_readme_maps_the_role(role: str) -> None:
    assert f"](roles/{role}/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
