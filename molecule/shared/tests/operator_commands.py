"""Playbooks as an operator types them, from this project, against the host of the sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def playbook(name: str, *options: str, seconds: float) -> str:
    """Run a playbook to its end; return what it printed."""
    # Molecule's own settings of Ansible are not an operator's.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [str(programs / "ansible-playbook"), "--inventory=inventories/local", name, *options],
        cwd=ROOT,
        env={**environment, "ANSIBLE_NOCOLOR": "1", "PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return done.stdout
