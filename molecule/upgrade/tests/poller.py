"""Looks at addresses again and again, as a browser's reader would, and remembers what they answered.

Every request is a connection of its own, so that one that is refused or reset is seen as such.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Answer:
    """What one request met, with its start and end in seconds since the epoch."""

    started: float
    ended: float
    status: int = 0
    """The HTTP status; 0 when there was no answer."""
    retry_after: str = ""
    problem: str = ""
    """Why there was no answer."""

    @property
    def served(self) -> bool:
        """Say whether it was what the reader wanted: a page, or the way to one."""
        return 200 <= self.status < 400


def ask(address: str) -> Answer:
    """Make one GET request. Proxies and redirects are not followed."""
    url = urlsplit(address)
    started = time.time()
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", url.path or "/")
        response = connection.getresponse()
        response.read()
        return Answer(started, time.time(), response.status, response.headers.get("Retry-After", ""))
    except (OSError, http.client.HTTPException) as error:
        return Answer(started, time.time(), problem=f"{type(error).__name__}: {error}")
    finally:
        connection.close()


class Poller:
    """Polls some addresses, each in a thread of its own, while it is entered."""

    def __init__(self, addresses: Mapping[str, str], pause: float = 0.25) -> None:
        """Poll nothing yet; `pause` is in seconds."""
        self.answers: dict[str, list[Answer]] = {name: [] for name in addresses}
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._poll, args=(name, address, pause), daemon=True)
            for name, address in addresses.items()
        ]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the last requests end."""
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS + 5)

    def _poll(self, name: str, address: str, pause: float) -> None:
        while not self._over.is_set():
            self.answers[name].append(ask(address))
            self._over.wait(pause)

    def unanswered(self) -> list[str]:
        """Return every request that was refused, reset or left without an answer."""
        return [
            f"{name} at {answer.started:.1f}: {answer.problem}"
            for name, answers in self.answers.items()
            for answer in answers
            if not answer.status
        ]

    def abrupt(self) -> list[str]:
        """Return every error of a server that does not say when to come again."""
        return [
            f"{name} at {answer.started:.1f}: {answer.status} without Retry-After"
            for name, answers in self.answers.items()
            for answer in answers
            if answer.status >= 500 and not answer.retry_after
        ]

    def outages(self, name: str) -> list[tuple[float, float]]:
        """Return each span without service: from the start of a request that was not served to the end of
        the next one that was, or of the last one."""
        found: list[tuple[float, float]] = []
        began = 0.0
        for answer in self.answers[name]:
            if not answer.served:
                began = began or answer.started
            elif began:
                found.append((began, answer.ended))
                began = 0.0
        if began:
            found.append((began, self.answers[name][-1].ended))
        return found

    def unavailable(self, name: str) -> float:
        """Return the seconds without service, all outages together."""
        return sum(end - began for began, end in self.outages(name))
