"""1Password Connect as tasks know it: does it answer, does it accept the token, until when.

The token is never printed.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_checker.facts import Connect
from airflow_checker.http import Answer, NoAnswerError, call


@dataclass(frozen=True)
class Access:
    """A token, and the vault that it is for."""

    token: str
    vault: str


def ask(address: str, tasks: Access, platform: Access | None = None, *, timeout: float = 5) -> Connect:
    """Ask Connect for the vault of tasks with their token, and compare its clock with this host's.

    `platform` is what the webhook has. If that differs, Connect is asked for its vault with both tokens.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/v1") else f"{path}/v1"

    def get(token: str, vault: str) -> Answer:
        url = f"{parts.scheme}://{parts.netloc}{path}/vaults/{vault}"
        return call(url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout)

    known = [token_ends(access.token) for access in (tasks, platform or tasks)]
    ends = min((end for end in known if end is not None), default=None)
    try:
        answer = get(tasks.token, tasks.vault)
        own = others = answer.status
        if platform and platform != tasks:
            own = get(platform.token, platform.vault).status
            others = get(tasks.token, platform.vault).status
    except NoAnswerError as error:
        return Connect(status=0, said=str(error), token_ends=ends)
    return Connect(
        status=answer.status,
        clock=offset(answer.date, time.time()),
        token_ends=ends,
        reads_platform=platform is not None and others == 200,
        platform_status=own,
    )


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
