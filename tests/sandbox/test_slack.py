"""The Slack sink takes what Slack takes, refuses what Slack refuses, and shows what came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from sandbox.slack import create_app

HOOK = "/services/T000/B000/XXXX"
SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "hi"}}


def long_section(length: int) -> dict[str, Any]:
    """A section whose text has so many characters."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": "x" * length}}


@pytest.fixture
def slack() -> FlaskClient:
    return create_app().test_client()


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "hi"},
        {"blocks": [SECTION]},
        {"attachments": [{"text": "hi"}]},
        {"text": "", "blocks": [SECTION]},
        {"blocks": [long_section(3000)]},
    ],
    ids=json.dumps,
)
def test_takes_a_message_and_lists_it(slack: FlaskClient, payload: dict[str, Any]) -> None:
    response = slack.post(HOOK, json=payload)
    assert (response.status_code, response.text) == (200, "ok")
    (message,) = slack.get("/messages").get_json()
    assert (message["payload"], message["webhook"]) == (payload, "T000/B000/XXXX")


def test_takes_a_form_as_older_clients_send_it(slack: FlaskClient) -> None:
    assert slack.post(HOOK, data={"payload": '{"text": "hi"}'}).text == "ok"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "invalid_payload"),
        (b"{", "invalid_payload"),
        (b"[1]", "invalid_payload"),
        (b'{"text": 1}', "invalid_payload"),
        (b'{"text": NaN}', "invalid_payload"),
        (b"[" * 100_000, "invalid_payload"),
        (b"{}", "no_text"),
        (b'{"text": "", "blocks": []}', "no_text"),
        (b'{"blocks": [{}]}', "invalid_blocks"),
        (b'{"blocks": {}}', "invalid_blocks"),
        (json.dumps({"blocks": [SECTION] * 51}).encode(), "invalid_blocks"),
        (json.dumps({"blocks": [long_section(3001)]}).encode(), "invalid_blocks"),
        (json.dumps({"blocks": [long_section(0)]}).encode(), "invalid_blocks"),
        (b'{"blocks": [{"type": "section", "text": "hi"}]}', "invalid_blocks"),
        (b'{"attachments": [1]}', "invalid_attachments"),
        (json.dumps({"attachments": [{}] * 101}).encode(), "too_many_attachments"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:30].decode(),
)
def test_refuses_as_slack_does(slack: FlaskClient, body: bytes, error: str) -> None:
    response = slack.post(HOOK, data=body, content_type="application/json")
    assert (response.status_code, response.text) == (400, error)
    assert slack.get("/messages").get_json() == []


def test_keeps_the_latest_hundred(slack: FlaskClient) -> None:
    for number in range(101):
        slack.post(HOOK, json={"text": str(number)})
    texts = [message["payload"]["text"] for message in slack.get("/messages").get_json()]
    assert texts == [str(number) for number in range(1, 101)]


@given(st.binary(max_size=200), st.sampled_from(["application/json", "application/x-www-form-urlencoded"]))
def test_no_body_breaks_it(body: bytes, kind: str) -> None:
    slack = create_app().test_client()
    assert slack.post(HOOK, data=body, content_type=kind).status_code in (200, 400)
    assert slack.get("/messages").status_code == 200
