"""Needs Airflow and pytest, nothing else; see pytest.ini for how to run it."""

import importlib.util

import pytest

if importlib.util.find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            "tests/image: not run, Airflow is not installed here; see tests/image/pytest.ini"
        )
