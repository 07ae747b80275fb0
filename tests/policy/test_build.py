"""The tasks that bootstrap Debian and build images, with programs in the place of mmdebstrap and Docker."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.policy.conftest import ANSIBLE, ROOT, flat, load

PROGRAMS = {
    "unshare": 'shift; exec "$@"',
    "mmdebstrap": 'echo bootstrap >>"$STATE/calls"; sleep 1; echo whole',
    "docker": """case $1 in
  image) exec grep -Fxq -- "$3" "$STATE/images" ;;
  import) [ "$(cat "$2")" = whole ] || exit 1; echo "$3" >>"$STATE/images"; echo import >>"$STATE/calls" ;;
  buildx) echo begin >>"$STATE/calls"; echo "#7 building"; sleep 1; echo end >>"$STATE/calls" ;;
esac""",
}
"""What the tasks call. Docker knows the images that a file lists."""

IMAGES = {"debian": "a/debian:bookworm-1", "airflow": "a/airflow:2-1"}
STACK = ROOT / "roles/stack"


def the_task(file: str, name: str) -> dict[str, Any]:
    """Return a task of the role, without the conditions that ask about a host."""
    [task] = [task for task in flat(load(STACK / "tasks" / file)) if task["name"] == name]
    return {key: value for key, value in task.items() if key != "when"}


HEAD_START = the_task("bootstrap.yml", "bootstrap | Begin to bootstrap Debian")
BEGIN = [
    the_task("build.yml", "build | Wait for the build of an interrupted run"),
    the_task("build.yml", "build | Begin to build the images"),
]
MEANWHILE = {"name": "Do something else", "ansible.builtin.shell": 'echo meanwhile >>"$STATE/calls"'}
WAIT = {"name": "Wait for the images", "ansible.builtin.include_tasks": str(STACK / "tasks/built.yml")}


class Host:
    """A folder with a build's directory and programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.build = folder / "srv/build"
        self.build.mkdir(parents=True)
        (folder / "images").touch()
        for name, text in PROGRAMS.items():
            self.program(name, text)

    def program(self, name: str, text: str) -> None:
        """Write a program."""
        path = self.folder / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def start(
        self, *tasks: dict[str, Any], missing: tuple[str, ...] = tuple(IMAGES)
    ) -> subprocess.Popen[str]:
        """Start a playbook of these tasks."""
        variables = {
            "stack_directory": str(self.folder / "srv"),
            "stack_image_source": "packages",
            "stack_debian_mirror": "",
            "stack_build_proxies": {},
            "__stack_images": IMAGES,
            "__stack_built_images": {name: {} for name in IMAGES},
            "__stack_images_missing": [IMAGES[name] for name in missing],
        }
        play = {
            "name": "Build",
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars_files": [str(STACK / "vars/main.yml")],
            "tasks": list(tasks),
        }
        playbook = self.folder / f"{len(list(self.folder.glob('*.yml')))}.yml"
        playbook.write_text(yaml.safe_dump([play]))
        return subprocess.Popen(
            [str(ANSIBLE / "ansible-playbook"), "--extra-vars", json.dumps(variables), str(playbook)],
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{self.folder}/programs:{ANSIBLE}:{os.environ['PATH']}",
                "STATE": str(self.folder),
                "ANSIBLE_ASYNC_DIR": str(self.folder / "jobs"),
                "ANSIBLE_FORCE_COLOR": "false",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *tasks: dict[str, Any], missing: tuple[str, ...] = tuple(IMAGES)) -> tuple[int, str]:
        """Run a playbook of these tasks; return its exit code and what it printed, with each blank once."""
        process = self.start(*tasks, missing=missing)
        printed, _ = process.communicate(timeout=120)
        return process.returncode, " ".join(printed.split())

    def calls(self) -> list[str]:
        """Return what was called since the last time."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_debian_and_the_images_are_made_beside_other_tasks(host: Host) -> None:
    """The build waits for the Debian that was begun before it, and the play waits for the build."""
    done = {"name": "Go on", "ansible.builtin.shell": 'echo done >>"$STATE/calls"'}
    code, printed = host.run(HEAD_START, *BEGIN, MEANWHILE, WAIT, done)
    assert code == 0, printed
    calls = host.calls()
    assert [call for call in calls if call != "meanwhile"] == ["bootstrap", "import", "begin", "end", "done"]
    assert calls.index("meanwhile") < calls.index("end")
    assert "FAILED - RETRYING" not in printed
    # Neither the archive nor a note of Ansible's is left.
    assert list(host.build.glob("*.tar*")) == list(host.build.glob("*.tar.lock"))
    assert list((host.folder / "jobs").iterdir()) == []
    assert (host.build / "build.log").stat().st_mode & 0o777 == 0o600


def test_nothing_missing_is_nothing_to_wait_for(host: Host) -> None:
    code, printed = host.run(WAIT, missing=())
    assert code == 0, printed
    assert "changed=0" in printed
    assert host.calls() == []


@pytest.mark.parametrize("bootstrap", ["echo part; exit 1", "echo part; kill -9 $$"])
def test_only_a_whole_debian_gets_the_images_name(host: Host, bootstrap: str) -> None:
    """One that was cut off once passed for built, and every build on it failed until somebody removed it."""
    host.program("mmdebstrap", bootstrap)
    code, printed = host.run(HEAD_START, *BEGIN, WAIT)
    assert code != 0
    assert (host.folder / "images").read_text() == ""
    assert host.calls() == []
    # The next run makes it.
    host.program("mmdebstrap", PROGRAMS["mmdebstrap"])
    code, printed = host.run(*BEGIN, WAIT)
    assert code == 0, printed
    assert host.calls() == ["bootstrap", "import", "begin", "end"]


def test_debian_that_is_there_is_not_made_again(host: Host) -> None:
    (host.folder / "images").write_text(IMAGES["debian"])
    code, printed = host.run(HEAD_START, *BEGIN, WAIT, missing=("airflow",))
    assert code == 0, printed
    assert host.calls() == ["begin", "end"]


def test_failed_build_says_what_failed(host: Host) -> None:
    """With the end of what it said, and where all of it is."""
    failing = '[ "$1" != buildx ] || { seq 100; echo "ERROR: no space left" >&2; exit 1; }'
    host.program("docker", f"{failing}\n{PROGRAMS['docker']}")
    code, printed = host.run(*BEGIN, WAIT)
    assert code != 0
    assert "The images of the stack could not be built on localhost" in printed
    assert "99 100 ERROR: no space left" in printed
    assert "39 40 41" not in printed
    assert f"{host.build}/build.log on the host" in printed
    assert "1 2 3 4" in " ".join((host.build / "build.log").read_text().split())


def test_build_of_an_interrupted_run_is_waited_for(host: Host) -> None:
    """It reads the directories that the next run would empty."""
    code, printed = host.run(*BEGIN)
    assert code == 0, printed
    code, printed = host.run(BEGIN[0], MEANWHILE, BEGIN[1], WAIT, missing=("airflow",))
    assert code == 0, printed
    assert host.calls() == ["bootstrap", "import", "begin", "end", "meanwhile", "begin", "end"]


def test_two_at_a_time_do_not_disturb_each_other(host: Host) -> None:
    """As when somebody types the command twice: one Debian, and one build after the other."""
    processes = [host.start(HEAD_START, BEGIN[1], WAIT) for _ in range(2)]
    for process in processes:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, printed
    assert host.calls() == ["bootstrap", "import", "begin", "end", "begin", "end"]
