"""1Password Connect as tasks know it: does it answer, does it accept the token, until when.

The token is never printed.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from urllib.parse import urlsplit

from airflow_checker.facts import Connect
from airflow_checker.http import NoAnswerError, call


def ask(address: str, token: str, vault: str, *, timeout: float = 5) -> Connect:
    """Ask Connect for the vault with the token, and compare its clock with this host's."""
    ends = token_ends(token)
    parts = urlsplit(address if "://" in address else f"http://{address}")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/v1") else f"{path}/v1"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        url = f"{parts.scheme}://{parts.netloc}{path}/vaults/{vault}"
        answer = call(url, headers=headers, timeout=timeout)
    except NoAnswerError as error:
        return Connect(status=0, said=str(error), token_ends=ends)
    return Connect(status=answer.status, clock=offset(answer.date, time.time()), token_ends=ends)


def offset(date: str | None, now: float) -> float | None:
    """Return by how many seconds an HTTP answer's clock is ahead of this host's; None without one."""
    from email.utils import parsedate_to_datetime

    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() - now
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def token_ends(token: str) -> float | None:
    """Return a JWT's `exp` (RFC 7519, 4.1.4) in seconds since the epoch; None when there is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        ends = claims["exp"]
        return float(ends) if type(ends) in (int, float) and abs(ends) < 1e12 else None
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return None
