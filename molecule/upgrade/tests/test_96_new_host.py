"""A host that was never there before gets the platform and its data by one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from control_node import ROOT, ControlNode
from long_tests import when_asked
from platform_host import BACKUPS, Platform

pytestmark = when_asked


def test_restore_makes_the_platform_on_a_new_host(
    platform: Platform, control: ControlNode, tmp_path: Path
) -> None:
    """Nothing is left of the old host but one backup, on the control node. About 400 s."""
    host = f"{os.environ['SANDBOX_INSTANCE']}-atd-data03"
    version, before = platform.version, platform.snapshot()
    control.run("backup.yml").succeeded()
    [bundle, *_] = platform.check(f"ls -t {BACKUPS}").split()
    for command in (
        ["docker", "cp", f"{host}:{BACKUPS}/{bundle}", str(tmp_path)],
        ["docker", "rm", "--force", host],
        ["docker", "volume", "rm", f"{os.environ['SANDBOX_INSTANCE']}-docker"],
        # The scenario that prepares nothing, without the state of another run: it creates what is missing.
        [str(Path(sys.executable).parent / "molecule"), "create", "--scenario-name=local"],
    ):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "molecule")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert platform.host.run("which docker rclone airflow-release").stdout == "", "the host is not a new one"
    confirmed = "--extra-vars=confirm_host=atd-data03"
    control.run(
        "restore.yml", f"--extra-vars=backup={tmp_path}/{bundle}", confirmed, seconds=1500
    ).succeeded()
    platform.wait_until_healthy()
    assert platform.version == version
    assert before.differences(platform.snapshot()) == []
    platform.pulse_goes_on()
