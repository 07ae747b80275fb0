"""bin/test keeps an environment of each Airflow. It makes a new one when lock or requirements change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK, REQUIREMENTS = "images/airflow/locks/2.0.0.txt", "images/airflow/requirements.txt"
UV = """\
#!/bin/sh
# Stands for uv: a new environment has a Python that does nothing; what is installed is noted.
if [ "$1" = venv ]; then
  for last; do :; done
  mkdir -p "$last/bin"
  printf '#!/bin/sh\\n' >"$last/bin/python"
  chmod +x "$last/bin/python"
fi
echo "$*" >>uv.log
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with one lock, and a uv that installs nothing."""
    for name, text in {LOCK: "apache-airflow==2.0.0\n", REQUIREMENTS: "one==1\n", "programs/uv": UV}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "programs/uv").chmod(0o755)
    return tmp_path


def installations(checkout: Path) -> list[str]:
    """Run the stage of the lock; return what has been installed so far."""
    text = (ROOT / "bin/test").read_text(encoding="utf-8")
    [stage] = re.findall(r"^on_airflow\(\) \{\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)
    script = f"set -euo pipefail\nphase() {{ :; }}\nPATH=$PWD/programs:$PATH\n{stage}on_airflow {LOCK}\n"
    subprocess.run(["bash", "-c", script], cwd=checkout, check=True, timeout=60)
    return [
        line for line in (checkout / "uv.log").read_text().splitlines() if line.startswith("pip install ")
    ]


def test_environment_stays_while_nothing_changes(checkout: Path) -> None:
    """It takes a minute to make."""
    [installed] = installations(checkout)
    assert {f"--requirement={LOCK}", f"--requirement={REQUIREMENTS}"} <= set(installed.split())
    assert len(installations(checkout)) == 1


@pytest.mark.parametrize("path", [LOCK, REQUIREMENTS])
def test_edited_file_is_installed(checkout: Path, path: str) -> None:
    """Of the version's lock, and of the packages for DAGs."""
    installations(checkout)
    (checkout / path).write_text("two==2\n")
    assert len(installations(checkout)) == 2
    assert len(installations(checkout)) == 2


@pytest.mark.parametrize("folder", ["tests/dags", "tests/gate", "tests/image"])
def test_folder_says_how_to_run_it(folder: str) -> None:
    """Where Airflow is not installed, as here. Code 5 of pytest: there was nothing to run."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert f"then run .cache/airflow-<version>/bin/python -m pytest {folder}\n" in done.stdout


def test_folder_of_the_virtual_machine_says_how_to_run_it() -> None:
    """Its tests would else fork on this machine."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/slice"]
    environment = {name: value for name, value in os.environ.items() if name != "SLICE_SSH_CONFIG"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "As root run tests/slice/in_a_virtual_machine\n" in done.stdout
