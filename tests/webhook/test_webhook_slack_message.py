"""The one form of messages in Slack: nothing from outside is markup, and Slack takes every one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook.slack_message import escape, slack_message

from sandbox.slack import refusal
from webhook import slack_message as module

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["dags/utils", "checker/src/airflow_checker"])
def test_whoever_sends_messages_has_the_same_form(folder: str) -> None:
    """They are installed apart, so each has the file."""
    assert (ROOT / folder / "slack_message.py").read_text() == Path(module.__file__ or "").read_text()


def test_details_are_counted_beyond_what_is_shown() -> None:
    text = slack_message("h", {}, details=range(9), details_shown=7)["text"]
    assert text.splitlines()[-2:] == ["• 6", "… and 2 more"]


def test_form() -> None:
    message = slack_message(
        "What happened.",
        {"A": 1, "B & C": "<!channel>\n*D*: forged"},
        {"Log URL": "http://a.example/log?x=1&y=<2|3>"},
        ["one", "two"],
        notify_channel=True,
    )
    assert message["text"].splitlines() == [
        "<!channel> What happened.",
        "*A*: 1",
        "*B &amp; C*: &lt;!channel&gt; *D*: forged",
        "*Log URL*: <http://a.example/log?x=1&amp;y=%3C2%7C3%3E>",
        "• one",
        "• two",
    ]
    assert message["blocks"][0]["text"] == {"type": "mrkdwn", "text": message["text"], "verbatim": True}


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("&&&", 15, "&amp;&amp;&amp;"),
        ("&&&", 14, "&amp;&amp;…"),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a\r\n\tb\u2028c\u202ed\0", 20, "a b c d"),
        ("", 5, ""),
    ],
)
def test_line_is_bounded_and_no_entity_is_cut(text: str, limit: int, shown: str) -> None:
    assert escape(text, limit) == shown


@pytest.mark.parametrize("address", ["javascript:alert(1)", "", "http://a.example/" + "x" * 3000])
def test_what_is_no_address_is_no_link(address: str) -> None:
    assert "<" not in slack_message("h", {}, {"Link": address})["text"]


@given(
    st.text(max_size=500),
    st.dictionaries(st.text(max_size=50), st.text(max_size=400), max_size=9),
    st.lists(st.text(max_size=400), max_size=9),
    st.text(max_size=300).map(lambda rest: f"https://a.example/{rest}"),
)
def test_slack_takes_every_message(
    headline: str, facts: dict[str, str], details: list[str], address: str
) -> None:
    message = slack_message(headline or "x", facts, {"Link": address}, details)
    if message["text"]:
        assert refusal(message) is None
    without_link = re.sub(r"<https://a\.example/[^<>|]*>", "", message["text"])
    assert not set("<>") & set(without_link)
    assert len(message["text"].splitlines()) <= 1 + len(facts) + 1 + 6
