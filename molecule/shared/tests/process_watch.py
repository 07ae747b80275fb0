"""Watches the processes of a host for secrets of the sandbox's vaults, while playbooks and operators work.

The unit canary-watch.service runs it (molecule/shared/watch_processes.yml). Every user of a host can read
the command line of each process; its variables are for its own user. Until it is stopped, the watch keeps
what it has seen in its memory, since secrets are made meanwhile. Its report has names alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Event

from canary_search import known_to, marks, service_of

PAUSE = 0.05
"""Seconds between two looks for new processes."""
LOOKS = 6
"""How often a new process is looked at: at first it is a copy of the one that started it."""
EVERYBODY_SECONDS = 3.0
"""After these, all processes are looked at again: one may become another program, or write a new title."""
COMMAND_LINES = "command lines"
CONTAINERS = Path("/var/lib/docker/containers")
"""Where Docker keeps a folder for each container, named with its id."""
CONTAINER = re.compile(r"[0-9a-f]{64}")


class Watch:
    """What the processes of this host have shown up to now."""

    def __init__(self, proc: Path = Path("/proc"), containers: Path = CONTAINERS) -> None:
        """See nothing yet."""
        self._proc = proc
        self._containers = containers
        self._services: dict[str, str] = {}
        self._newest = ""
        self._known: set[str] = set()
        self._young: dict[str, int] = {}
        self._everybody_due = 0.0
        self.seen: set[tuple[str, str]] = set()
        """Places, each with a text."""

    def look(self) -> None:
        """Look at each process that is new, or may have become another program."""
        newest = (self._proc / "loadavg").read_text().split()[-1]
        everybody = time.monotonic() >= self._everybody_due
        if everybody or newest != self._newest:
            self._newest = newest
            present = {name for name in os.listdir(self._proc) if name.isdigit()}
            self._young.update(dict.fromkeys(present - self._known, LOOKS))
            self._known = present
        if everybody:
            self._everybody_due = time.monotonic() + EVERYBODY_SECONDS
        for process in self._known if everybody else list(self._young):
            self._look_at(process)
        self._young = {process: looks - 1 for process, looks in self._young.items() if looks > 1}

    def _look_at(self, process: str) -> None:
        folder = self._proc / process
        try:
            command = _words(folder / "cmdline")
            variables = _words(folder / "environ")
            place = self._place(folder)
        except OSError:
            # It has ended.
            return
        self.seen.add((COMMAND_LINES, command))
        if place:
            self.seen.add((place, variables))

    def _place(self, folder: Path) -> str:
        """Return what the variables of a process are called; nothing for those that root alone can read."""
        for identity in reversed(CONTAINER.findall((folder / "cgroup").read_text())):
            # The host may be a container itself, which its own Docker does not know.
            if service := self._service(identity):
                return f"variables of {service}"
        user = folder.stat().st_uid
        return f"variables of processes of user {user}" if user else ""

    def _service(self, identity: str) -> str:
        if identity not in self._services:
            try:
                document = json.loads((self._containers / identity / "config.v2.json").read_text())
            except (OSError, ValueError):
                return ""
            self._services[identity] = service_of(document["Config"]["Labels"] or {}, document["Name"])
        return self._services[identity]

    def report(self, canaries: dict[str, str]) -> dict[str, list[str]]:
        """Return the names of the canaries in each place, and under `programs` whose command lines it saw."""
        texts: dict[str, list[str]] = {}
        for place, text in self.seen:
            texts.setdefault(place, []).append(text)
        found = {"programs": {Path(line.split(" ", 1)[0]).name for line in texts.get(COMMAND_LINES, [])}}
        for place, lines in texts.items():
            # All at once: to look for each canary in each line would take minutes.
            text = "\n".join(lines)
            found[place] = {name for form, name in canaries.items() if form in text}
        return {place: sorted(names) for place, names in found.items()}


def _words(file: Path) -> str:
    """Return the words of a command line, or the variables of a process, of whatever bytes they are."""
    return file.read_bytes().decode(errors="replace").replace("\0", " ")


def canaries_of(directory: str) -> dict[str, str]:
    """Return the canaries that the platform has at this moment; none where there is no platform yet."""
    try:
        return known_to(directory)
    except (OSError, KeyError):
        return {}


def merged(reports: Iterable[dict[str, list[str]]]) -> dict[str, list[str]]:
    """Return what all of these found."""
    found: dict[str, set[str]] = {}
    for report in reports:
        for place, names in report.items():
            found.setdefault(place, set()).update(names)
    return {place: sorted(names) for place, names in found.items()}


def main(directory: str, file: Path) -> None:
    """Watch until SIGTERM, then add what was found to the report in `file`."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    watch = Watch()
    canaries = canaries_of(directory)
    while not stop.wait(PAUSE):
        watch.look()
    watch.look()
    canaries |= canaries_of(directory)
    report = {**watch.report(canaries | marks()), "canaries": sorted(set(canaries.values()))}
    earlier = [json.loads(file.read_text())] if file.exists() else []
    partial = file.with_suffix(".new")
    partial.write_text(json.dumps(merged([*earlier, report])))
    partial.replace(file)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
