"""bin/setup makes .venv and begins the sandbox's images beside what apt-get does."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cmp",
    "cp",
    "date",
    "dirname",
    "grep",
    "mkdir",
    "nohup",
    "seq",
    "setsid",
    "sleep",
    "tail",
    "touch",
)
LOCK = "a package\n"

PROGRAMS = {
    "id": "echo 0",
    "git": "",
    "python3": """
case "$*" in "-m venv .venv")
  echo "venv begins" >>"$STATE"/calls
  mkdir -p .venv/bin
  cp "$STATE"/programs/pip .venv/bin/python ;;
esac""",
    # It makes uv.
    "pip": """
printf '#!/bin/bash\\necho "venv ends" >>"$STATE"/calls' >.venv/bin/uv
chmod +x .venv/bin/uv""",
    "apt-get": """
echo "apt-get $1 ${@:5}" >>"$STATE"/calls
case "$*" in
  *mmdebstrap*) touch "$STATE"/programs/mmdebstrap; chmod +x "$STATE"/programs/mmdebstrap ;;
  *docker.io*) for name in dockerd iptables; do cp "$STATE"/start-docker "$STATE"/programs/$name; done ;;
esac""",
    "docker": '[ -e "$STATE"/running ]',
    "systemctl": 'exec "$STATE"/start-docker',
}


class Machine:
    """A machine with Python, Git and a Docker client, and a project on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        for name in ("programs", "project/bin", "project/sandbox/images"):
            (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "bin/setup", self.project / "bin/setup")
        (self.project / "requirements.lock").write_text(LOCK)
        for tool in TOOLS:
            (folder / "programs" / tool).symlink_to(str(shutil.which(tool)))
        for name, text in PROGRAMS.items():
            self.program(f"programs/{name}", text)
        self.program("start-docker", 'echo "Docker starts" >>"$STATE"/calls; touch "$STATE"/running')
        self.program("project/sandbox/images/build", 'echo "images begin" >>"$STATE"/calls')

    def program(self, name: str, text: str) -> None:
        """Write a program."""
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def setup(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run bin/setup."""
        environment = {**os.environ, "PATH": str(self.folder / "programs"), "STATE": str(self.folder)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.run(
            ["bin/setup", *options],
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def wait_for(self, call: str) -> None:
        """Wait until something was called that the script does not wait for."""
        deadline = time.monotonic() + 30
        while call not in self.calls() and time.monotonic() < deadline:
            time.sleep(0.05)

    def calls(self) -> list[str]:
        """Return what was called, in its order."""
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_new_machine_waits_for_nothing_that_can_be_done_meanwhile(machine: Machine) -> None:
    """pip ends when the rest has begun, or gives up."""
    rest = 'grep -q "images begin" "$STATE"/calls && grep -q docker.io "$STATE"/calls'
    waiting = f"for _ in $(seq 100); do {rest} && break; sleep 0.1; done"
    machine.program("programs/pip", f"{waiting}\n{PROGRAMS['pip']}")
    done = machine.setup("--engine", "--images")
    assert done.returncode == 0, done.stderr
    calls = machine.calls()
    install = "apt-get install"
    assert [call for call in calls if call.startswith("apt-get")] == [
        "apt-get update ",
        f"{install} mmdebstrap",
        f"{install} docker.io iptables",
    ]
    assert (
        calls.index("venv begins") < calls.index(f"{install} docker.io iptables") < calls.index("venv ends")
    )
    assert calls.index(f"{install} mmdebstrap") < calls.index("images begin") < calls.index("venv ends")
    assert calls.count("images begin") == 1
    assert (machine.project / ".venv/requirements.lock").read_text() == LOCK


def test_images_are_not_made_again_because_docker_was_stopped(machine: Machine) -> None:
    """They may be there already: Docker is asked first."""
    for name in ("mmdebstrap", "iptables"):
        machine.program(f"programs/{name}", "")
    shutil.copy(machine.folder / "start-docker", machine.folder / "programs/dockerd")
    done = machine.setup("--engine", "--images")
    assert done.returncode == 0, done.stderr
    machine.wait_for("images begin")
    calls = machine.calls()
    assert calls.index("Docker starts") < calls.index("images begin")
    assert calls.count("images begin") == 1


def test_second_run_does_nothing(machine: Machine) -> None:
    machine.setup("--engine")
    (machine.folder / "calls").write_text("")
    done = machine.setup("--engine")
    assert (done.returncode, done.stdout, machine.calls()) == (0, "", [])


def test_failure_of_apt_leaves_no_half_environment(machine: Machine) -> None:
    """It is said at once, and the script ends when .venv is made."""
    machine.program("programs/apt-get", "echo E: no such package; exit 100")
    done = machine.setup()
    assert done.returncode == 1
    assert "E: no such package\nbin/setup: apt-get could not install mmdebstrap" in done.stderr
    assert (machine.project / ".venv/requirements.lock").read_text() == LOCK


def test_failure_of_the_environment_is_one_of_the_script(machine: Machine) -> None:
    machine.program("programs/pip", "exit 1")
    done = machine.setup("--engine")
    assert done.returncode == 1
    assert f"bin/setup: pip could not install uv into {machine.project}/.venv." in done.stderr
    assert len(done.stderr.splitlines()) == 1
