"""Lookup: the ansible-playbook process that asks, or whether one that was noted down earlier still runs."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: control_process
author: Data and Technology Services
short_description: Tells one run of Ansible from another
description:
  - Without a term it describes the ansible-playbook process that asks - its host, pid and start.
  - With such a description it says C(alive), C(gone), or C(elsewhere) when that was another machine's.
options:
  _terms:
    description: Nothing, or one description that this lookup gave earlier.
"""

RETURN = r"""
_raw:
  description: A description, or one word.
  type: list
"""


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[Any]:
        """Return the one result."""
        return [state(terms[0])] if terms else [describe(playbook())]


def playbook() -> int:
    """Return the process id of the ansible-playbook that this belongs to.

    Its workers are forks, so they have its command line, and whatever started it (a shell, a CI runner in a
    directory named after Ansible) has another.
    """
    found = os.getpid()
    command = _ps(found, "args=")
    while (parent := int(_ps(found, "ppid="))) and _ps(parent, "args=") == command:
        found = parent
    return found


def describe(pid: int) -> dict[str, str | int]:
    """Describe a process so that it can be told from a later one with its number."""
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def state(described: dict[str, str | int]) -> str:
    """Say what became of a process that `describe` described."""
    if not described:
        return "gone"
    if described["host"] != socket.gethostname():
        return "elsewhere"
    return "alive" if _started(int(described["pid"])) == described["started"] else "gone"


def _started(pid: int) -> str:
    """Return what tells a process from a later one of its number; "" when there is no such process.

    Every asker gets the same. ps says a time, which is another one in another time zone, and on Linux another
    one once the clock was set.
    """
    try:
        # starttime of proc(5), in ticks since the boot; the name before it may have spaces and parentheses.
        ticks = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {ticks}"
    except OSError:
        # macOS has no /proc.
        return _ps(pid, "lstart=")


def _ps(pid: int, columns: str) -> str:
    """Ask ps, which Linux and macOS have with these options; "" when there is no such process."""
    done = subprocess.run(  # noqa: S603 - its one variable is a number
        ["ps", "-o", columns, "-p", str(pid)],  # noqa: S607 - ps is where the system has it
        stdout=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        text=True,
        check=False,
    )
    return done.stdout.strip()
