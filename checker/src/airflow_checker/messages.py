"""One message to Slack per change of state, three a fault at most; and the call that all is well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airflow_checker import http
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
    """Return what is to be told: a fault that stood for a while or led to a restart, again after a day."""
    began, stands = [], []
    for finding in findings:
        episode = memory.episodes[finding.key]
        if finding.severity == NOTICE:
            continue
        stood = episode.runs > 1 and memory.now - episode.since >= LIGHTS[finding.light].patience
        if episode.told == 0 and (stood or episode.restarts):
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
        lines.append(f"{sign} {escape(finding.what)}{still}{mended} {escape(finding.advice)}")
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


def post(address: str, words: str) -> str:
    """Send a message; return "" when it was taken, else why not."""
    return _taken(address, json.dumps({"text": words}))


def beat(address: str) -> str:
    """Call the heartbeat; return "" when it was taken, else why not."""
    return _taken(address, None)


def _taken(address: str, body: str | None) -> str:
    try:
        answer = http.call(address, body=body, headers={"Content-Type": "application/json"} if body else {})
    except http.NoAnswerError as error:
        return str(error)
    return "" if answer.status < 400 else f"HTTP {answer.status}"
