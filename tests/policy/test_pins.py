"""Every version that this project pins is known to Renovate, whose configuration follows its schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.policy.conftest import ROOT

CONFIGURATION = ROOT / ".github/renovate.json"

KINDS = {
    "package": re.compile(r"[\w\]]==\d[\w.]*"),
    "program": re.compile(r"_version: \d+(?:\.\d+)+"),
    "image": re.compile(r"(?:image|FROM|[a-z]+):? [\"']?[a-z][a-z./-]+:(?!\d{4}\b)(?:\d[\w.-]*|[a-z]+-slim)"),
    "collection": re.compile(r"^    version: \d+(?:\.\d+)+"),
    "action": re.compile(r"uses: \S+@\S+"),
    "runner": re.compile(r"runs-on: [a-z]+-\d[\d.]*"),
    "Python": re.compile(r"python-version: [\"']?\d"),
}
"""What a pin looks like, whether Renovate knows it or not; a number of four digits is a port."""

MANAGERS = {
    "pep621": {"package"},
    "pip_requirements": {"package"},
    "ansible-galaxy": {"collection"},
    "github-actions": {"action", "runner", "Python"},
}
"""Which pins Renovate's own managers read in the files that are theirs."""

FOREIGN = {".git"} | {
    line.strip("/")
    for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    if line[0] != "#"
}
"""What stands beside the project's own files and is not in Git."""

NO_PINS = {
    "tests/": "versions that a test makes up, or that the test run itself compares with its own",
    "molecule/": "versions between which the tests upgrade",
    "sandbox/upstream/": "stands for a file of Airflow's own site, as it was",
    "docs/": "shows commands and their output",
    "inventories/": "what a host runs; upgrade.yml changes it",
    "playbooks/group_vars/": "which Airflow versions exist is no pin",
}
"""Where what looks like a pin is none, and why."""


@dataclass(frozen=True)
class Pin:
    """One pinned version, at an offset (characters) in a file."""

    file: str
    kind: str
    text: str
    start: int
    end: int


def files() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every file that may have a pin."""
    folders = sorted(path for path in ROOT.iterdir() if path.name not in FOREIGN)
    for path in chain.from_iterable(sorted(one.rglob("*")) if one.is_dir() else [one] for one in folders):
        name = str(path.relative_to(ROOT))
        if name.startswith(tuple(NO_PINS)) or path.suffix in (".md", ".py") or not path.is_file():
            continue
        try:
            yield name, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def pins() -> Iterator[Pin]:
    """Yield what looks like a pinned version."""
    for name, text in files():
        offset = 0
        for line in text.splitlines(keepends=True):
            for kind, pattern in KINDS.items():
                if not line.lstrip().startswith("#"):
                    for found in pattern.finditer(line):
                        yield Pin(name, kind, found[0], offset + found.start(), offset + found.end())
            offset += len(line)


PINS: dict[tuple[str, str], list[Pin]] = {}
for pin in pins():
    PINS.setdefault((pin.file, pin.kind), []).append(pin)


@cache
def configuration() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    return found


@cache
def schema() -> dict[str, Any]:
    """Return Renovate's schema, which check-jsonschema contains; the managers' own patterns are in it."""
    file = resources.files("check_jsonschema") / "builtin_schemas/vendor/renovate.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def python_pattern(pattern: str) -> re.Pattern[str]:
    """Return JavaScript's regular expression as Python writes it."""
    return re.compile(re.sub(r"\(\?<(?![=!])", "(?P<", pattern))


def names(manager: dict[str, Any], file: str) -> bool:
    """Say whether the file is one of the manager's; its patterns stand between slashes."""
    return any(python_pattern(one[1:-1]).search(file) for one in manager.get("managerFilePatterns", []))


def unknown(file: str, kind: str) -> list[str]:
    """Return the file's pins of this kind that no manager reads."""
    enabled = configuration()["enabledManagers"]
    for manager, kinds in MANAGERS.items():
        default = schema()["definitions"][manager]["default"]
        own = configuration().get(manager, {})
        if manager in enabled and kind in kinds and (names(default, file) or names(own, file)):
            return []
    assert "custom.regex" in enabled
    text = (ROOT / file).read_text(encoding="utf-8")
    spans = [
        found.span("currentValue")
        for manager in configuration()["customManagers"]
        if names(manager, file)
        for pattern in manager["matchStrings"]
        for found in python_pattern(pattern).finditer(text)
    ]
    return [
        pin.text
        for pin in PINS[file, kind]
        if not any(pin.start <= start and end <= pin.end for start, end in spans)
    ]


def test_configuration_follows_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.renovate"]
    done = subprocess.run([*command, str(CONFIGURATION)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_pins_of_each_kind(kind: str) -> None:
    """A pattern that finds nothing would check nothing."""
    assert any(kind == found for _, found in PINS)


@pytest.mark.parametrize(("file", "kind"), PINS, ids=[f"{kind}: {file}" for file, kind in PINS])
def test_pin_is_known(file: str, kind: str) -> None:
    assert unknown(file, kind) == []


@pytest.mark.parametrize("rule", configuration()["packageRules"], ids=lambda rule: rule["description"])
def test_rule_names_files_that_exist(rule: dict[str, Any]) -> None:
    for pattern in rule.get("matchFileNames", []):
        assert list(ROOT.glob(pattern.replace("/**", "/*"))), pattern


def pinned(file: Path) -> dict[str, set[str]]:
    """Return the versions that a file pins, by package; a lock file may have one for each Python."""
    found: dict[str, set[str]] = {}
    text = file.read_text(encoding="utf-8")
    for name, version in re.findall(r"^\s*\"?([a-z0-9-]+)==([\w.]+)", text, flags=re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize(
    ("source", "lock"),
    [
        ("pyproject.toml", "requirements.lock"),
        ("webhook/pyproject.toml", "webhook/requirements.lock"),
        # The tests run the webhook with what it is installed with.
        ("webhook/pyproject.toml", "requirements.lock"),
    ],
)
def test_lock_has_what_its_source_pins(source: str, lock: str) -> None:
    locked = pinned(ROOT / lock)
    for name, versions in pinned(ROOT / source).items():
        assert versions <= locked.get(name, set()), f"{name} in {lock}"


def test_uv_has_one_version() -> None:
    """On the control node and in the image."""
    found = re.findall(r"uv==([0-9.]+)", (ROOT / "bin/setup").read_text(encoding="utf-8"))
    found += re.findall(
        r"__stack_uv_version: ([0-9.]+)", (ROOT / "roles/stack/vars/main.yml").read_text(encoding="utf-8")
    )
    assert len(found) == 2
    assert len(set(found)) == 1
