"""A sink for Slack's incoming webhooks: refuses what Slack refuses, and shows what it accepted."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, jsonify, request

from sandbox.web import MAX_BODY_BYTES, log_requests, parse_json

KEPT_MESSAGES = 100
# Slack's own limits: https://docs.slack.dev/reference/block-kit/blocks and the chat.postMessage reference.
MAX_BLOCKS = 50
MAX_SECTION_CHARACTERS = 3000
MAX_ATTACHMENTS = 100


def create_app() -> Flask:
    """Return the sink: ``POST /services/...`` takes a message, ``GET /messages`` lists the latest."""
    app = Flask("sandbox.slack")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    messages: deque[dict[str, Any]] = deque(maxlen=KEPT_MESSAGES)

    @app.post("/services/<path:webhook>")
    def receive(webhook: str) -> Response:
        try:
            payload = _payload()
        except ValueError:
            return _text("invalid_payload", 400)
        error = refusal(payload)
        if error:
            return _text(error, 400)
        messages.append(
            {"received_at": datetime.now(UTC).isoformat(), "webhook": webhook, "payload": payload}
        )
        return _text("ok", 200)

    @app.get("/messages")
    def latest() -> Response:
        return jsonify(list(messages))

    log_requests(app)
    return app


def refusal(payload: Any) -> str | None:
    """Return the error text that Slack answers to ``payload``, or None when it takes the message."""
    if not isinstance(payload, dict):
        return "invalid_payload"
    text, blocks, attachments = (payload.get(key) for key in ("text", "blocks", "attachments"))
    if text is not None and not isinstance(text, str):
        return "invalid_payload"
    if blocks is not None and not _typed_objects(blocks, MAX_BLOCKS):
        return "invalid_blocks"
    if attachments is not None:
        if not isinstance(attachments, list) or not all(isinstance(entry, dict) for entry in attachments):
            return "invalid_attachments"
        if len(attachments) > MAX_ATTACHMENTS:
            return "too_many_attachments"
    return None if text or blocks or attachments else "no_text"


def _typed_objects(blocks: Any, limit: int) -> bool:
    return (
        isinstance(blocks, list)
        and len(blocks) <= limit
        and all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in blocks)
        and all(_section(block) for block in blocks if block["type"] == "section")
    )


def _section(block: dict[str, Any]) -> bool:
    """Tell whether Slack takes a section: with fields, or with a text that is neither empty nor too long."""
    text = block.get("text")
    if text is None:
        return isinstance(block.get("fields"), list)
    if not isinstance(text, dict) or text.get("type") not in ("mrkdwn", "plain_text"):
        return False
    content = text.get("text")
    return isinstance(content, str) and 0 < len(content) <= MAX_SECTION_CHARACTERS


def _payload() -> Any:
    """Read the message: a JSON body, or JSON in the form field ``payload`` as older clients send it."""
    if request.mimetype == "application/x-www-form-urlencoded":
        return parse_json(request.form.get("payload", "").encode(errors="surrogatepass"))
    return parse_json(request.get_data())


def _text(body: str, status: int) -> Response:
    return Response(body, status, mimetype="text/html")
