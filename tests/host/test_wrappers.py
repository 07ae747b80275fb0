"""The commands that the roles put into /usr/local/bin: each starts its package, wherever it is called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).resolve().parents[2]
STATE = "/var/lib/airflow-checker"
PACKAGES = {"airflow-release": "release", "airflow-checker": "checker"}


@pytest.fixture
def wrapper(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """The command as it is rendered for a host, with this project's package and files of its own."""
    name = request.param
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    environment.filters["comment"] = lambda text: f"# {text}"
    package = f"{name.replace('-', '_')}_package"
    text = (ROOT / f"templates/usr/local/bin/{name}.j2").read_text(encoding="utf-8")
    # Ansible's filter `dirname` is that of the operating system.
    environment.filters["dirname"] = os.path.dirname
    rendered = environment.from_string(text).render(
        {
            "ansible_managed": "rendered",
            f"__{package}": f"{ROOT}/{PACKAGES[name]}/src/{name.replace('-', '_')}",
            "airflow_release_directory": f"{tmp_path}/srv",
            "airflow_release_backup_directory": f"{tmp_path}/backups",
        }
    )
    file = tmp_path / name
    file.write_text(rendered.replace(STATE, str(tmp_path / "state")))
    return ["sh", str(file)]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory with modules that must not be imported in place of Python's own."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in ("argparse", "json", "sys", "airflow_release", "airflow_checker"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported from where it was called')\n")
    return folder


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Call it in the directory, which is also in the caller's environment."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("wrapper", PACKAGES, indirect=True)
def test_help_is_that_of_the_package(wrapper: list[str], hostile: Path) -> None:
    done = run([*wrapper, "--help"], hostile)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("wrapper", PACKAGES, indirect=True)
def test_wrong_call_has_the_code_of_one(wrapper: list[str], hostile: Path) -> None:
    """The exit code passes through; `exec` leaves no shell between a unit and its program."""
    done = run([*wrapper, "no-such-command"], hostile)
    assert done.returncode == 2
    assert "no-such-command" in done.stderr


@pytest.mark.parametrize("wrapper", ["airflow-release"], indirect=True)
def test_release_command_knows_its_directories(wrapper: list[str], hostile: Path, tmp_path: Path) -> None:
    """It answers about the platform's directory and the backups' one, of which there is none yet."""
    (tmp_path / "srv/releases").mkdir(parents=True)
    (tmp_path / "backups").mkdir()
    done = run([*wrapper, "backup", "list", "--json"], hostile)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wrapper", ["airflow-checker"], indirect=True)
def test_checker_compiles_beside_its_memory(wrapper: list[str], hostile: Path, tmp_path: Path) -> None:
    """Its unit may not write beside the package."""
    done = run([*wrapper, "lights"], hostile)
    assert done.returncode == 0, done.stderr
    assert "`docker-down`" in done.stdout
    assert list((tmp_path / "state/pycache").rglob("cli.*.pyc"))
