"""The task that bootstraps Debian into an image, with programs in the place of mmdebstrap and Docker."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.policy.conftest import ROOT, load

PROGRAMS = {
    "unshare": 'shift; exec "$@"',
    # Docker imports whatever comes until its input ends.
    "docker": 'echo "$*" >> "$CALLS"; [ "$1" != import ] || { cat >/dev/null; echo sha256:abc; }',
}


@pytest.mark.parametrize(
    ("bootstrap", "passes"), [("echo whole", True), ("echo part; exit 1", False), ("kill -9 $$", False)]
)
def test_only_a_whole_debian_gets_the_images_name(tmp_path: Path, bootstrap: str, passes: bool) -> None:
    """One that was cut off once passed for built, and every build on it failed until somebody removed it."""
    [task] = [task for task in load(ROOT / "roles/stack/tasks/build.yml") if "docker import" in str(task)]
    command = re.sub(r"\{\{.*?\}\}", "a-name", task["ansible.builtin.shell"]["cmd"])
    for name, text in {**PROGRAMS, "mmdebstrap": bootstrap}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    calls = tmp_path / "calls"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)
    assert (done.returncode == 0) is passes, done.stderr
    named = ["tag sha256:abc a-name"] if passes else []
    assert calls.read_text().splitlines() == ["import -", *named]
