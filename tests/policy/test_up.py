"""bin/up shows one line for each phase, what runs meanwhile, and the end of the log when a phase fails."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints import ENDPOINTS

ROOT = Path(__file__).resolve().parents[2]
LIST = "playbooks/group_vars/all/endpoints.yml"

PLAYBOOK = """\
#!/bin/sh
# Stands for molecule: as many lines as a playbook, then the result that the test asks for.
case "$*" in *{failing}*) failing=true ;; *) failing=false ;; esac
for number in $(seq 60); do echo "line $number of $1"; done
echo 'TASK [stack : build | Build the images] ****'
{wait}
echo "    - 'passed  http://127.0.0.1:8080  Airflow 2.11.2: database and scheduler healthy'"
echo '    - passed  weather-checker  run smoke__2026-11-27T00:20:42.902513+00:00 succeeded in'
echo '        4.9 s, page checked'
echo
if $failing; then echo 'fatal: [atd-data03]: no space left'; exit 2; fi
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project whose other programs do nothing."""
    for name in ("bin", ".venv/bin", "programs"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "bin/up", tmp_path / "bin/up")
    (tmp_path / LIST).parent.mkdir(parents=True)
    shutil.copy(ROOT / LIST, tmp_path / LIST)
    program(tmp_path / "bin/setup", "#!/bin/sh\necho set up\n")
    program(tmp_path / ".venv/bin/docker", "#!/bin/sh\necho value:secret\n")
    return tmp_path


def program(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)


def run_up(checkout: Path, *arguments: str, failing: str = "nothing") -> subprocess.CompletedProcess[str]:
    """Run bin/up without a terminal."""
    program(checkout / ".venv/bin/molecule", PLAYBOOK.format(failing=failing, wait=""))
    return subprocess.run(["bin/up", *arguments], cwd=checkout, capture_output=True, text=True, timeout=60)


def test_each_phase_is_one_line_with_its_time(checkout: Path) -> None:
    """The log has what Ansible printed."""
    done = run_up(checkout)
    assert done.returncode == 0, done.stderr
    titles = [line[:44].strip() for line in done.stdout.splitlines() if line.rstrip().endswith(" s")]
    assert titles == [
        "Prepare this machine",
        "Create the host and the stand-ins",
        "Deploy the platform (site.yml)",
        "The platform is up",
    ]
    assert "line 60" not in done.stdout
    # Each on a line of its own, as the smoke test has it.
    assert "  passed  http://127.0.0.1:8080  Airflow 2.11.2: database and scheduler healthy\n" in done.stdout
    assert "succeeded in 4.9 s, page checked\n" in done.stdout
    assert "line 60 of converge" in (checkout / ".cache/up.log").read_text()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: str(endpoint["name"]))
def test_addresses_have_the_logins(checkout: Path, endpoint: dict[str, Any]) -> None:
    """Those with `access: login`, and no others."""
    lines = run_up(checkout).stdout.splitlines()
    [line] = [
        line
        for line in lines
        if f" http://127.0.0.1:{endpoint['port']} " in f"{line} " and "passed" not in line
    ]
    assert ("login " in line and "password " in line) == (endpoint["access"] == "login"), (
        f"{line!r}: give {endpoint['name']} a line in `login` of bin/up"
    )


def test_verbose_shows_all(checkout: Path) -> None:
    """Both on the screen and in the log."""
    done = run_up(checkout, "--verbose")
    assert "line 1 of converge" in done.stdout
    assert "line 1 of converge" in (checkout / ".cache/up.log").read_text()


@pytest.mark.parametrize("options", [[], ["--verbose"]])
def test_failed_phase_shows_the_end_of_the_log(checkout: Path, options: list[str]) -> None:
    """What failed, the last lines, where the rest is, and the playbook's exit code."""
    done = run_up(checkout, *options, failing="converge")
    assert done.returncode == 2
    assert "fatal: [atd-data03]: no space left" in done.stdout
    assert done.stdout.count("line 60 of converge") == 1
    assert ("line 1 of converge" in done.stdout) == bool(options)
    assert "this phase failed: Deploy the platform (site.yml)" in done.stderr
    assert ".cache/up.log" in done.stderr
    assert "The platform is up" not in done.stdout


@pytest.mark.parametrize("arguments", [["--vebose"], ["down"], ["--down", "now"]])
def test_unknown_option_changes_nothing(checkout: Path, arguments: list[str]) -> None:
    """Nothing runs."""
    done = run_up(checkout, *arguments)
    assert done.returncode == 2
    assert "Usage: bin/up" in done.stderr
    assert not (checkout / ".cache/up.log").exists()


def test_terminal_shows_the_task_that_runs(checkout: Path) -> None:
    """The playbook ends once the terminal has shown its task, so that no time is guessed."""
    shown = checkout / "shown"
    wait = f"while [ ! -e {shown} ]; do sleep 0.1; done"
    program(checkout / ".venv/bin/molecule", PLAYBOOK.format(failing="nothing", wait=wait))
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        ["bin/up"], cwd=checkout, stdout=other_end, stderr=other_end, env={**os.environ, "TERM": "xterm"}
    )
    os.close(other_end)
    printed = b""
    while True:
        try:
            printed += os.read(terminal, 4096)
        except OSError:  # Linux: every end of the terminal is closed
            break
        if b"stack : build" in printed:
            shown.touch()
    assert process.wait(60) == 0, printed.decode()
    assert printed.decode().splitlines()[-1].strip() == ""
