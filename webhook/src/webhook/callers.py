"""Who may call: machines with a token of their own, and what a caller with a wrong credential is answered."""

import hmac
import math
from http import HTTPStatus
from pathlib import Path

from flask import abort, request
from werkzeug.exceptions import TooManyRequests

from webhook.services import services


def token_in(path: Path) -> str | None:
    """Return the token in a file, None without a file. It is read anew each time: it may be rotated."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def require_token(token: str | None, whose: str) -> None:
    """Let only those pass who send the token as `Authorization: Bearer`; without a token nobody does."""
    expected = f"Bearer {token}".encode()
    # A header is bytes, which WSGI hands on as Latin-1 (PEP 3333).
    given = request.headers.get("Authorization", "").encode("latin-1", "replace")
    if not token or not hmac.compare_digest(given, expected):
        refuse(HTTPStatus.UNAUTHORIZED, f"the {whose} token is missing or wrong")


def refuse(status: HTTPStatus, detail: str) -> None:
    """Answer a failed verification, or that there were too many from there."""
    wait = services().failures.failed(request.remote_addr or "")
    if wait is not None:
        raise TooManyRequests("too many calls with wrong credentials", retry_after=math.ceil(wait))
    abort(status, detail)
