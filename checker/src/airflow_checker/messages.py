"""One message to Slack per change of state, three a fault at most; and the call that all is well.

The second is that restarts did not help and are used up, or that the fault is a day old.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_checker import http
from airflow_checker.judge import DAY, minutes
from airflow_checker.lights import CRITICAL, LIGHTS, NOTICE, WARNING, Finding
from airflow_checker.memory import Episode, Memory
from airflow_checker.mend import MOST, SETTLE_SECONDS
from airflow_checker.slack_message import LINE_LIMIT, slack_message

REMIND_SECONDS = DAY
SIGNS = {CRITICAL: ":red_circle:", WARNING: ":large_orange_circle:", NOTICE: ":large_blue_circle:"}
LINES = 12
"""Faults that one message shows; how many more there are is said."""
_MANUAL = "docs/when-something-is-wrong.md#"


@dataclass(frozen=True)
class News:
    """What somebody has to be told after a run."""

    began: Sequence[Finding] = ()
    stands: Sequence[Finding] = ()
    """Told before, and not over: for a day, or after as many restarts as there are."""
    over: Mapping[str, Episode] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.began or self.stands or self.over)


def news(findings: Sequence[Finding], over: Mapping[str, Episode], memory: Memory) -> News:
    """Return what is to be told: a fault that stood for a while or led to a restart.

    It is told once more, when restarts are used up or after a day.
    """
    began, stands = [], []
    for finding in findings:
        episode = memory.episodes[finding.key]
        light = LIGHTS[finding.light]
        if light.once:
            if episode.told == 0:
                began.append(finding)
            continue
        if finding.severity == NOTICE or not light.message or (finding.follows and not episode.restarts):
            continue
        stood = episode.runs > 1 and memory.now - episode.since >= light.patience
        if episode.told == 0 and (stood or episode.restarts):
            began.append(finding)
        elif episode.told == 1 and (
            memory.now - episode.told_at >= REMIND_SECONDS or _used_up(finding, episode, memory)
        ):
            stands.append(finding)
    return News(began, stands, over)


def _used_up(finding: Finding, episode: Episode, memory: Memory) -> bool:
    """Say whether the last of the restarts did not help, and nobody was told."""
    last = max(memory.restarted.get(finding.mends) or [memory.now])
    return episode.restarts >= MOST > episode.told_restarts and memory.now - last >= SETTLE_SECONDS


def note(news: News, memory: Memory) -> None:
    """Remember that it was told."""
    for finding in (*news.began, *news.stands):
        episode = memory.episodes[finding.key]
        episode.told, episode.told_at = episode.told + 1, memory.now
        episode.told_restarts = episode.restarts


def message(news: News, memory: Memory, *, title: str, page: str = "") -> dict[str, Any]:
    """Return the message as Slack takes it; `title` says which platform, `page` where its status page is."""
    lines = []
    for finding in (*news.began, *news.stands):
        episode = memory.episodes[finding.key]
        sign = SIGNS[finding.severity]
        still = f" (for {minutes(memory.now - episode.since)})" if finding in news.stands else ""
        in_vain = ", which did not help" if finding in news.stands else ""
        mended = f" Restarted {_times(episode.restarts)}{in_vain}." if episode.restarts else ""
        written = f"{_MANUAL}{finding.anchor}"
        lines.append(_line(f"{sign} ", finding.what, f"{still}{mended} {finding.advice} {written}"))
    for episode in news.over.values():
        restarts = f", restarted {_times(episode.restarts)}" if episode.restarts else ""
        lasted = minutes(episode.last - episode.since)
        lines.append(_line(f":large_green_circle: Over after {lasted}{restarts}: ", episode.what))
    links = {"Status page": page} if page else {}
    return slack_message(f"*{title}*", {}, links, lines, details_shown=LINES)


def _times(count: int) -> str:
    """Return how often in words.

    >>> _times(1), _times(3)
    ('once', '3 times')
    """
    return "once" if count == 1 else f"{count} times"


def _line(before: str, what: str, after: str = "") -> str:
    """Return a line in which what is wrong, which may be long, leaves room for what to do."""
    room = LINE_LIMIT - len(before) - len(after)
    return before + (what if len(what) <= room else f"{what[: room - 1]}…") + after


def post(address: str, message: Mapping[str, Any]) -> str:
    """Send a message; return "" when it was taken, else why not."""
    return _taken(address, json.dumps(message))


def beat(address: str) -> str:
    """Call the heartbeat; return "" when it was taken, else why not."""
    return _taken(address, None)


def _taken(address: str, body: str | None) -> str:
    try:
        answer = http.call(address, body=body, headers={"Content-Type": "application/json"} if body else {})
    except http.NoAnswerError as error:
        return str(error)
    return "" if answer.status < 400 else f"HTTP {answer.status}"
