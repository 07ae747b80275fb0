"""The hooks of pre-commit run what the test run checks first."""

from __future__ import annotations

import re

from tests.policy.conftest import ROOT, load


def test_hooks_are_the_linters_of_the_test_run() -> None:
    """Each runs one linter of bin/lint, and none of them is left out."""
    [source] = load(ROOT / ".pre-commit-config.yaml")["repos"]
    # Hooks of another repository would be downloaded, and pinned a second time.
    assert source["repo"] == "local"
    assert {hook["language"] for hook in source["hooks"]} == {"system"}
    text = (ROOT / "bin/lint").read_text(encoding="utf-8")
    [every] = re.findall(r"\|\| set -- (.+)", text)
    assert sorted(hook["entry"] for hook in source["hooks"]) == sorted(
        f"bin/lint {one}" for one in every.split()
    )
    assert re.findall(r"^    ([a-z]+)\)", text, flags=re.MULTILINE) == every.split()
    assert re.search(r"^  bin/lint$", (ROOT / "bin/test").read_text(encoding="utf-8"), flags=re.MULTILINE)
