"""What CI does not run, it fails for: tests are skipped in one place, and for few other reasons."""

from __future__ import annotations

import re

import pytest

from tests.missing import missing, needs
from tests.policy.conftest import ROOT

SKIP = re.compile(r"\b(?:pytest\.(?:skip|importorskip)|mark\.skip(?:if)?)\b")
OTHERWISE = {
    "tests/missing.py": "the one place",
    "tests/policy/test_bytecode.py": "Python itself was told to keep no bytecode",
    "tests/dags/test_docker_policy.py": "another provider, or the one of the lock file",
    "tests/image/conftest.py": "the same Celery is tested with another Airflow",
}
"""Who skips by itself, and why CI need not fail for it."""


def test_tests_are_skipped_in_one_place() -> None:
    own = ROOT / "tests/policy/test_skips.py"
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != own and SKIP.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(OTHERWISE)


@pytest.mark.parametrize("ci", ["", "true", "1"])
def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.fail.Exception if ci else pytest.skip.Exception, match="no such thing"):
        missing("no such thing")


@pytest.mark.parametrize("ci", ["", "true"])
def test_program_that_is_missing_is_no_excuse_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    """There the test runs, and fails where it starts the program."""
    monkeypatch.setenv("CI", ci)
    assert needs("sh").args == (False,)
    assert needs("sh", "no-such-program").args == (not ci,)
