"""Who may call: machines with a token of their own, and what a caller with a wrong credential is answered."""

import hmac
import math
from http import HTTPStatus
from pathlib import Path

from flask import abort, request
from werkzeug.exceptions import TooManyRequests

from webhook.services import services


def token_in(path: Path | None) -> str:
    """Return the token in a file, "" where there is none. It is read anew each time: it may be rotated."""
    return path.read_text().strip() if path is not None and path.is_file() else ""


def require_token(token: str, whose: str) -> None:
    """Let only those pass who send the token as `Authorization: Bearer`; without a token nobody does."""
    expected = f"Bearer {token}".encode()
    given = request.headers.get("Authorization", "").encode(errors="replace")
    if not token or not hmac.compare_digest(given, expected):
        refuse(HTTPStatus.UNAUTHORIZED, f"the {whose} token is missing or wrong")


def refuse(status: HTTPStatus, detail: str) -> None:
    """Answer a failed verification, or that there were too many from there."""
    wait = services().failures.failed(request.remote_addr or "")
    if wait is not None:
        raise TooManyRequests("too many calls with wrong credentials", retry_after=math.ceil(wait))
    abort(status, detail)
