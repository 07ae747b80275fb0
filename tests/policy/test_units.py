"""The services that the host's systemd runs: what systemd itself says about their units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.policy.conftest import ROOT, TEMPLATES, Drawn

DOCKER_UNITS = ["airflow-backup.service", "airflow-release.service"]
UNITS = {"etc/systemd/system/smee-relay.service": 2.0, "etc/systemd/system/airflow-checker.service": 4.5}
"""How exposed each may be, of 10, by systemd-analyze: what listens to the internet gets what it needs."""


def systemd_is_here() -> bool:
    """Tell whether systemd-analyze can judge a file; Molecule judges the running service anyway."""
    if not shutil.which("systemd-analyze"):
        return False
    help_text = subprocess.run(
        ["systemd-analyze", "--help"], capture_output=True, text=True, check=False
    ).stdout
    return "--offline" in help_text


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_drawn(unit: str) -> None:
    """A unit that was renamed would otherwise be judged no more."""
    assert f"{unit}.j2" in TEMPLATES


@pytest.mark.parametrize("unit", list(UNITS) if systemd_is_here() else [])
def test_service_is_hardened(drawn: dict[str, Drawn], tmp_path: Path, unit: str) -> None:
    """Directives that contradict or misspell each other count for nothing here."""
    path = tmp_path / Path(unit).name
    path.write_text(drawn["registry 2.11.2"][unit])
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={UNITS[unit] * 10:g}",
        str(path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level" in run.stdout


@pytest.mark.parametrize("unit", DOCKER_UNITS)
def test_restart_of_docker_ends_no_operation(unit: str) -> None:
    """Under Requires= systemd stops the unit with Docker, and Restart=on-failure does not start it again."""
    text = (ROOT / f"templates/etc/systemd/system/{unit}.j2").read_text(encoding="utf-8")
    assert "\nRequires=" not in text
    assert re.search(r"^Wants=.*\bdocker\.service$", text, re.MULTILINE)
    assert re.search(r"^After=.*\bdocker\.service\b", text, re.MULTILINE)
