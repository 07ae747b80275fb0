"""The filter `image_references`: an image's name says what it is made of."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.image_references import FilterModule

image_references = FilterModule().filters()["image_references"]
Definitions = dict[str, dict[str, Any]]


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    """A base, two images on it, one image on one of those, and one that stands alone."""
    for name in ("base", "web", "worker", "task", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(f"FROM {name}\n")
    (tmp_path / "shared.txt").write_text("shared\n")
    return {
        "base": {"version": "12", "base": "a distribution", "contexts": ["base"]},
        "web": {"version": "1", "base": "base", "contexts": ["web"]},
        "worker": {
            "version": "2",
            "base": "base",
            "contexts": ["worker", "shared.txt"],
            "arguments": {"A": "1"},
        },
        "task": {"version": "3", "base": "worker", "contexts": ["task"]},
        "alone": {"version": "4", "base": "debian", "contexts": ["alone"]},
    }


def references(
    root: Path, definitions: Definitions, external: dict[str, str] | None = None
) -> dict[str, str]:
    found: dict[str, str] = image_references(
        definitions, root=str(root), prefix="platform", external=external
    )
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_name_has_prefix_version_and_digest(tmp_path: Path, definitions: Definitions) -> None:
    for name, reference in references(tmp_path, definitions).items():
        version = definitions[name]["version"]
        assert re.fullmatch(rf"platform/{name}:{version}-[0-9a-f]{{12}}", reference)


def test_same_files_give_the_same_names_wherever_they_are(tmp_path: Path, definitions: Definitions) -> None:
    """Two operators with two working copies name the same images."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in [*definitions, "shared.txt"]:
        os.link(tmp_path / name, copy / name) if (tmp_path / name).is_file() else copy_directory(
            tmp_path / name, copy / name
        )
    assert references(copy, definitions) == references(tmp_path, definitions)


def copy_directory(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ("base/Dockerfile", {"base", "web", "worker", "task"}),
        ("web/Dockerfile", {"web"}),
        ("worker/Dockerfile", {"worker", "task"}),
        ("shared.txt", {"worker", "task"}),
        ("task/Dockerfile", {"task"}),
        ("alone/Dockerfile", {"alone"}),
    ],
)
def test_edit_changes_the_image_and_what_is_built_on_it(
    tmp_path: Path, definitions: Definitions, edited: str, expected: set[str]
) -> None:
    before = references(tmp_path, definitions)
    (tmp_path / edited).write_text("edited\n")
    assert changed(before, references(tmp_path, definitions)) == expected


def test_new_file_changes_the_image(tmp_path: Path, definitions: Definitions) -> None:
    before = references(tmp_path, definitions)
    (tmp_path / "web" / "deep").mkdir()
    (tmp_path / "web" / "deep" / "file").touch()
    assert changed(before, references(tmp_path, definitions)) == {"web"}


def test_renamed_file_changes_the_image(tmp_path: Path, definitions: Definitions) -> None:
    before = references(tmp_path, definitions)
    (tmp_path / "web" / "Dockerfile").rename(tmp_path / "web" / "Containerfile")
    assert changed(before, references(tmp_path, definitions)) == {"web"}


def test_program_that_may_not_run_any_more_changes_the_image(
    tmp_path: Path, definitions: Definitions
) -> None:
    program = tmp_path / "web" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    before = references(tmp_path, definitions)
    program.chmod(0o644)
    assert changed(before, references(tmp_path, definitions)) == {"web"}


@pytest.mark.parametrize("trace", ["web/__pycache__/module.pyc", "web/package.egg-info/PKG-INFO"])
def test_what_python_leaves_behind_changes_nothing(
    tmp_path: Path, definitions: Definitions, trace: str
) -> None:
    before = references(tmp_path, definitions)
    (tmp_path / trace).parent.mkdir()
    (tmp_path / trace).write_text("trace\n")
    assert references(tmp_path, definitions) == before


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"A": "2"}},
        {"arguments": {"A": "1", "B": ""}},
        {"arguments": {}},
        {"version": "2.1"},
        {"base": "another distribution"},
    ],
    ids=str,
)
def test_other_inputs_change_the_image_and_what_is_built_on_it(
    tmp_path: Path, definitions: Definitions, change: dict[str, Any]
) -> None:
    before = references(tmp_path, definitions)
    definitions["worker"].update(change)
    assert changed(before, references(tmp_path, definitions)) == {"worker", "task"}


def test_order_of_arguments_and_definitions_does_not_matter(tmp_path: Path, definitions: Definitions) -> None:
    definitions["worker"]["arguments"] = {"A": "1", "B": "2"}
    before = references(tmp_path, definitions)
    definitions["worker"]["arguments"] = {"B": "2", "A": "1"}
    assert references(tmp_path, dict(reversed(definitions.items()))) == before


def test_external_image_keeps_its_name_and_is_a_base(tmp_path: Path, definitions: Definitions) -> None:
    before = references(tmp_path, definitions, {"debian": "debian:12", "redis": "redis:7"})
    after = references(tmp_path, definitions, {"debian": "debian:13", "redis": "redis:7"})
    assert before["debian"] == "debian:12"
    assert before["redis"] == "redis:7"
    assert changed(before, after) == {"debian", "alone"}


def test_built_image_replaces_an_external_one_of_the_same_name(
    tmp_path: Path, definitions: Definitions
) -> None:
    """In `packages` mode the bases have the names that they have in the registry."""
    found = references(tmp_path, definitions, {"base": "registry/base:1"})
    assert found == references(tmp_path, definitions)


def test_missing_context_is_named(tmp_path: Path, definitions: Definitions) -> None:
    definitions["web"]["contexts"].append("no-such-directory")
    with pytest.raises(AnsibleFilterError, match=r"image web: there is no build context .*no-such-directory"):
        references(tmp_path, definitions)


@pytest.mark.parametrize(
    ("bases", "circle"),
    [
        ({"base": "base"}, "base -> base"),
        ({"base": "task"}, "base -> task -> worker -> base"),
    ],
    ids=str,
)
def test_circle_is_named(
    tmp_path: Path, definitions: Definitions, bases: dict[str, str], circle: str
) -> None:
    for name, base in bases.items():
        definitions[name]["base"] = base
    with pytest.raises(AnsibleFilterError, match=circle):
        references(tmp_path, definitions)
