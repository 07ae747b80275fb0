"""One message to Slack per change of state, three a fault at most; and the call that all is well."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_checker.judge import DAY, minutes
from airflow_checker.lights import CRITICAL, LIGHTS, NOTICE, Finding
from airflow_checker.memory import Episode, Memory
from airflow_checker.mend import MOST

REMIND_SECONDS = DAY
LINES = 15
"""Faults that one message shows; how many more there are is said."""


@dataclass(frozen=True)
class News:
    """What somebody has to be told after a run."""

    began: Sequence[Finding] = ()
    stands: Sequence[Finding] = ()
    """Told a day ago, and not over."""
    over: Mapping[str, Episode] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.began or self.stands or self.over)


def news(findings: Sequence[Finding], over: Mapping[str, Episode], memory: Memory) -> News:
    """Return what is to be told: a fault in its second run, or once it led to a restart, and after a day."""
    began, stands = [], []
    for finding in findings:
        episode = memory.episodes[finding.key]
        if finding.severity == NOTICE:
            continue
        if episode.told == 0 and (episode.runs > 1 or episode.restarts):
            began.append(finding)
        elif episode.told == 1 and memory.now - episode.told_at >= REMIND_SECONDS:
            stands.append(finding)
    return News(began, stands, over)


def note(news: News, memory: Memory) -> None:
    """Remember that it was told."""
    for finding in (*news.began, *news.stands):
        episode = memory.episodes[finding.key]
        episode.told, episode.told_at = episode.told + 1, memory.now


def text(news: News, memory: Memory, *, title: str, page: str = "") -> str:
    """Return the message; `title` says which platform. All that others wrote is escaped."""
    lines = []
    for finding in (*news.began, *news.stands):
        episode = memory.episodes[finding.key]
        sign = ":red_circle:" if finding.severity == CRITICAL else ":large_orange_circle:"
        still = f" (for {minutes(memory.now - episode.since)})" if finding in news.stands else ""
        mended = f" Restarted, {episode.restarts} of {MOST} times an hour." if episode.restarts else ""
        lines.append(f"{sign} {escape(finding.what)}{still}{mended} {escape(LIGHTS[finding.light].advice)}")
    for episode in news.over.values():
        restarts = f", restarted {episode.restarts} times" if episode.restarts > 1 else ""
        restarts = ", restarted once" if episode.restarts == 1 else restarts
        lines.append(
            f":large_green_circle: Over after {minutes(episode.last - episode.since)}{restarts}:"
            f" {escape(episode.what)}"
        )
    shown = lines[:LINES]
    if len(lines) > LINES:
        shown.append(f"… and {len(lines) - LINES} more")
    where = f"\n<{page}|Status page>; every light is in docs/operations.md." if page else ""
    return f"*{escape(title)}*\n" + "\n".join(shown) + where


def escape(words: str) -> str:
    """Escape what Slack reads as markup, on one line: https://api.slack.com/reference/surfaces/formatting"""
    line = " ".join(words.split())[:500]
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def call(address: str, body: Mapping[str, str] | None = None, *, timeout: float = 5) -> str:
    """Post JSON to an address, or fetch it; return "" when it was taken, else why not."""
    parts = urlsplit(address)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            import ssl  # costs more than all else, where nothing is to be told

            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        if body is None:
            connection.request("GET", path or "/")
        else:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path or "/", json.dumps(body), headers)
        status = connection.getresponse().status
        connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        # An error's words may have the address in them, which is a secret.
        return type(error).__name__
    return "" if status < 400 else f"HTTP {status}"
