"""The script that builds the sandbox's images, with programs in the place of mmdebstrap and Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = """\
#!/bin/bash
# Knows the images that a file lists; imports whatever comes until its input ends, as Docker does.
case $1 in
  images) grep -Fx -- "$3" "$STATE/images" || true ;;
  import) cat >/dev/null; echo sha256:abc ;;
  tag) echo "$3" | tee -a "$STATE/images" >>"$STATE/made" ;;
  build)
    sleep 0.2
    [[ ${@: -1} != "$FAILING" ]] || exit 1
    while [ "$1" != --tag ]; do shift; done
    echo "$2" | tee -a "$STATE/images" >>"$STATE/made"
    echo "Successfully tagged $2" ;;
esac
"""


class Builder:
    """A copy of the sandbox's images, and what Docker has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "sandbox/images"
        shutil.copytree(ROOT / "sandbox/images", self.images)
        for name in ("images", "made"):
            (folder / name).touch()
        self.program("docker", DOCKER)
        self.program("mmdebstrap", "#!/bin/bash\necho whole\n")

    def program(self, name: str, text: str) -> None:
        """Write a program."""
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start the script."""
        known = {name: value for name, value in os.environ.items() if name != "SANDBOX_IMAGE_SOURCE"}
        settings = {"PATH": f"{self.folder}:{known['PATH']}", "STATE": str(self.folder), "FAILING": "nothing"}
        return subprocess.Popen(
            [self.images / "build"],
            env={**known, **settings, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, str]:
        """Run the script; return its exit code and what it printed."""
        process = self.start(**environment)
        printed, _ = process.communicate(timeout=30)
        return process.returncode, printed.strip()

    def made(self) -> set[str]:
        """Return the images made since the last call, each of them made once."""
        file = self.folder / "made"
        names = file.read_text().split()
        file.write_text("")
        assert len(names) == len(set(names))
        return set(names)


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def both(tag: str) -> set[str]:
    return {f"airflow-sandbox/host:{tag}", f"airflow-sandbox/services:{tag}"}


def test_images_are_built_once_for_what_they_are_made_of(builder: Builder) -> None:
    """An edited Dockerfile makes new ones, from the same Debian."""
    code, tag = builder.run()
    assert code == 0
    assert builder.made() == {"airflow-sandbox/debian:trixie", *both(tag)}
    assert builder.run() == (0, tag)
    assert builder.made() == set()
    with (builder.images / "host/Dockerfile").open("a") as file:
        file.write("RUN true\n")
    code, edited = builder.run()
    assert code == 0
    assert edited != tag
    assert builder.made() == both(edited)


def test_who_needs_them_waits_for_who_builds_them(builder: Builder) -> None:
    """bin/setup builds them beside its other work."""
    running = [builder.start(), builder.start()]
    first, second = (process.communicate(timeout=30)[0].strip() for process in running)
    assert first == second
    assert builder.made() == {"airflow-sandbox/debian:trixie", *both(first)}


def test_registry_has_debian(builder: Builder) -> None:
    """Nothing is bootstrapped, and the images are others."""
    _, bootstrapped = builder.run()
    builder.made()
    code, tag = builder.run(SANDBOX_IMAGE_SOURCE="registry")
    assert code == 0
    assert tag != bootstrapped
    assert builder.made() == both(tag)


@pytest.mark.parametrize("bootstrap", ["echo part; exit 1", "kill -9 $$"])
def test_only_a_whole_debian_gets_the_images_name(builder: Builder, bootstrap: str) -> None:
    """Every build on one that was cut off would fail until somebody removed it."""
    builder.program("mmdebstrap", f"#!/bin/bash\n{bootstrap}\n")
    code, printed = builder.run()
    assert code != 0
    assert printed == ""
    assert builder.made() == set()


@pytest.mark.parametrize("failing", ["host", "services"])
def test_failed_build_is_no_success(builder: Builder, failing: str) -> None:
    """Nobody gets a tag of which one image is missing; the next run builds that one alone."""
    code, printed = builder.run(FAILING=failing)
    assert code != 0
    assert printed == ""
    # The other build may outlive the script; the next run waits for it.
    code, tag = builder.run()
    assert code == 0
    assert builder.made() == {"airflow-sandbox/debian:trixie", *both(tag)}


def test_unknown_source_is_refused(builder: Builder) -> None:
    assert builder.run(SANDBOX_IMAGE_SOURCE="package") == (2, "")
    assert builder.made() == set()
