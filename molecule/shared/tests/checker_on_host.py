"""The checker on the host, as its files and its messages show it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from expected import BACKUPS, DIRECTORY
from testinfra.host import Host

HEALTH = f"{DIRECTORY}/status/health.json"
MEMORY = "/var/lib/airflow-checker/memory.json"

OF_THE_MACHINE = re.compile(
    rf"The disk of (?!{BACKUPS})|was started \d+ times within the hour|synchronised|security update|a reboot"
)
"""What is told of the machine that the tests run on, and of restarts that earlier tests caused."""
OVER = re.compile(r"died, and systemd has started it again|went down without a shutdown")
"""What is told of Docker and the host when it is over already."""


class Checker:
    """What the host's checker says: in its file, in its memory, and to Slack."""

    def __init__(self, host: Host, http: Callable[..., Any], slack: str) -> None:
        """Ask the host, and Slack's stand-in at this address."""
        self._host = host
        self._http = http
        self._slack = slack

    @property
    def health(self) -> dict[str, Any]:
        """Return what it wrote last."""
        document: dict[str, Any] = json.loads(self._host.file(HEALTH).content_string)
        return document

    @property
    def memory(self) -> dict[str, Any]:
        """Return what it remembers; the file is replaced at every look."""
        document: dict[str, Any] = json.loads(self._host.file(MEMORY).content_string)
        return document

    def look(self) -> None:
        """Have its unit look once, or wait for the look that is under way."""
        done = self._host.run("systemctl start airflow-checker.service")
        assert done.rc == 0, self._host.run("journalctl --no-pager --unit=airflow-checker --lines=50").stdout

    def found(self) -> set[tuple[str, str]]:
        """Return light and subject of all that is wrong."""
        return {(finding["id"], finding["subject"]) for finding in self.health["findings"]}

    def open_faults(self) -> list[str]:
        """Return what somebody was told of and not yet that it is over."""
        episodes = self.memory["episodes"].values()
        told = [one["what"] for one in episodes if one["told"]]
        return [what for what in told if not OF_THE_MACHINE.search(what) and not OVER.search(what)]

    def messages(self, since: datetime, words: str = "") -> list[str]:
        """Return the messages since a time with a line of a fault that has these words."""
        sent = self._http("GET", f"{self._slack}/messages").json()
        texts = [one["payload"]["text"] for one in sent if datetime.fromisoformat(one["received_at"]) > since]
        return [text for text in texts if any(words in line for line in _lines(text))]

    def begun(self, since: datetime) -> list[str]:
        """Return what was told since a time, but for the ends of earlier faults."""
        lines = [line for text in self.messages(since) for line in _lines(text)]
        return [line for line in lines if "Over after" not in line]


def _lines(text: str) -> list[str]:
    """Return the lines of a message of the checker that are about faults of the platform."""
    lines = [line for line in text.splitlines() if re.search(r":(?:red|large_\w+)_circle:", line)]
    return [line for line in lines if not OF_THE_MACHINE.search(line)]
