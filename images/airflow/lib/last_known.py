"""What 1Password Connect answered lately, for tasks that ask while it gives no answer.

It is kept in a tmpfs of the container, which all tasks of a worker share, and in no file of a disk. It is
encrypted: the key is made of the token that asks, and of a random part that is gone when the container stops.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

log = logging.getLogger(__name__)

FOLDER = Path("/run/airflow/connect")
"""Below a tmpfs of the Compose project; where that is not mounted, nothing is kept."""

RANDOM = "random"
"""The file with the random part of the key."""

KEEP_SECONDS = 15 * 60
"""How old an answer may be that stands for one of Connect's."""

TRUST_SECONDS = 30
"""How long a client uses what is kept before it asks again: a question to a Connect that is away waits."""


class LastKnownAdapter(HTTPAdapter):
    """Keeps each document that Connect gives, and returns it while Connect gives no answer or a 5xx.

    The log then says how old it is. Any other answer is returned as it is: a revoked token reads nothing.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what HTTPAdapter takes."""
        super().__init__(*arguments, **options)
        self._trusted_until = 0.0

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """Send a request; raise what HTTPAdapter does, unless there is an answer that was kept."""
        if request.method != "GET":
            return super().send(request, *arguments, **options)
        if time.monotonic() < self._trusted_until:
            kept = _kept(request)
            if kept is not None:
                return kept
        try:
            response = super().send(request, *arguments, **options)
            body = response.content
        except (ConnectionError, Timeout, ChunkedEncodingError):
            kept = self._stand_in(request)
            if kept is None:
                raise
            return kept
        if response.status_code == 200:
            _keep(request, body)
        elif response.status_code >= 500:
            return self._stand_in(request) or response
        return response

    def _stand_in(self, request: PreparedRequest) -> Response | None:
        kept = _kept(request)
        if kept is not None:
            self._trusted_until = time.monotonic() + TRUST_SECONDS
        else:
            log.warning(
                "1Password Connect at %s does not answer, and gave this worker no such answer within the "
                "last %d minutes, or since its container started: this task goes on without",
                urlsplit(str(request.url)).netloc,
                KEEP_SECONDS // 60,
            )
        return kept


def _keep(request: PreparedRequest, body: bytes) -> None:
    """Keep a document; what is no JSON is not Connect's. If it cannot be kept, the task goes on without."""
    try:
        json.loads(body)
        path, fernet = _place(request)
        with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
            try:
                file.write(fernet.encrypt(body))
                file.flush()
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
        _forget()
    except (OSError, ValueError) as error:
        log.debug("What 1Password Connect answered is not kept: %s", type(error).__name__)


def _forget() -> None:
    """Remove what is too old; it would take memory until the container stops."""
    with os.scandir(FOLDER) as entries:
        for entry in entries:
            # Another task may be quicker.
            with contextlib.suppress(FileNotFoundError):
                if entry.name != RANDOM and time.time() - entry.stat().st_mtime > KEEP_SECONDS:
                    os.unlink(entry)


def _kept(request: PreparedRequest) -> Response | None:
    """Return the answer that was kept, None where there is none or only one that is too old."""
    from cryptography.fernet import InvalidToken

    try:
        path, fernet = _place(request)
        document = path.read_bytes()
        body = fernet.decrypt(document, ttl=KEEP_SECONDS)
    except OSError:
        return None
    except InvalidToken:
        # Too old.
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    address = urlsplit(str(request.url))
    age = max(0, time.time() - fernet.extract_timestamp(document))
    log.warning(
        "1Password Connect at %s does not answer: this task uses what it gave %d seconds ago",
        address.netloc,
        age,
    )
    response = Response()
    response.status_code = 200
    response.reason = "OK"
    response.headers["Content-Type"] = "application/json"
    response.url = str(request.url)
    response.request = request
    response._content = body
    return response


def _place(request: PreparedRequest) -> tuple[Path, Any]:
    """Return the file for a request's answer, and what it is encrypted with. Raises OSError."""
    from cryptography.fernet import Fernet

    sent: str | bytes = request.headers.get("Authorization") or ""
    token = sent if isinstance(sent, bytes) else sent.encode()
    key = hmac.new(_random_part(), token, hashlib.sha256).digest()
    name = hmac.new(key, str(request.url).encode(), hashlib.sha256).hexdigest()
    return FOLDER / name, Fernet(base64.urlsafe_b64encode(key))


def _random_part() -> bytes:
    """Return the random part of the key, made by the first process that asks. Raises OSError."""
    path = FOLDER / RANDOM
    if not path.exists():
        # Its parent is the tmpfs, and is never made here: it would be on a disk.
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=FOLDER) as file:
            file.write(os.urandom(32))
            file.flush()
            # A name that appears with its whole content, and only once.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_bytes()
