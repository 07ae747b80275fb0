"""Messages for Slack, in one form for whoever sends them. What comes from outside is shown as it was written:
it notifies nobody, links to nothing, and cannot pass for another line.

The same file is in `dags/utils` and in the packages of webhook and checker, which are installed apart; a test
compares them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MESSAGE_LIMIT = 2900
"""Characters of a message; Slack refuses a section of more than 3000
(https://docs.slack.dev/reference/block-kit/blocks/section-block)."""

LINE_LIMIT = 300
"""Characters of a value in a message."""

DETAILS_SHOWN = 5

CONTROL_CHARACTERS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""Slack's own, and how to write them (https://docs.slack.dev/messaging/formatting-message-text)."""


def slack_message(
    headline: str,
    facts: Mapping[str, object],
    links: Mapping[str, str] | None = None,
    details: Iterable[object] = (),
    notify_channel: bool = False,
    details_shown: int = DETAILS_SHOWN,
) -> dict[str, Any]:
    """Return a message as Slack's incoming webhooks take it.

    Args:
        headline: what happened.
        facts: by their names, a line each.
        links: addresses by their names, a line each.
        details: a list below; more than `details_shown` are counted.
        notify_channel: whether everybody in the channel is notified.
        details_shown: how many details are shown.
    """
    first = ("<!channel> " if notify_channel else "") + escape(headline)
    lines = _within(MESSAGE_LIMIT, _lines(first, facts, links or {}, list(details), details_shown))
    text = "\n".join(lines)
    # `verbatim`: Slack makes no links of addresses that somebody else wrote.
    section = {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}
    return {"text": text, "blocks": [section], "unfurl_links": False, "unfurl_media": False}


def escape(text: object, limit: int = LINE_LIMIT) -> str:
    """Return any text as one line of at most `limit` characters that Slack shows as they are."""
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    written = [CONTROL_CHARACTERS.get(character, character) for character in " ".join(printable.split())]
    ends = list(itertools.accumulate(map(len, written)))
    if not ends or ends[-1] <= limit:
        return "".join(written)
    fitting = sum(end < limit for end in ends)
    return "".join(written[:fitting]) + "…"


def _lines(
    first: str, facts: Mapping[str, object], links: Mapping[str, str], details: list[object], shown: int
) -> Iterator[str]:
    yield first
    for name, value in facts.items():
        yield f"*{escape(name)}*: {escape(value)}"
    for name, address in links.items():
        yield f"*{escape(name)}*: {_link(address)}"
    for detail in details[:shown]:
        yield f"• {escape(detail)}"
    if len(details) > shown:
        yield f"… and {len(details) - shown} more"


def _link(address: str) -> str:
    """Return a link; what would end it is written as in any address."""
    if not address.startswith(("http://", "https://")):
        return escape(address)
    quoted = "".join(
        f"%{ord(character):02X}" if character in "<>|\"' " else character for character in address
    )
    link = escape(quoted, MESSAGE_LIMIT)
    return f"<{link}>" if not link.endswith("…") else escape(address)


def _within(limit: int, lines: Iterable[str]) -> Iterator[str]:
    """Yield whole lines while they are no longer than `limit` together, then a sign that there were more."""
    left = limit - len("\n…")
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            yield "…"
            return
        yield line
