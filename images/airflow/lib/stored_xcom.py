"""How the platform stores an XCom: encrypted with a Fernet key, in a JSON document.

It is JSON because Airflow parses each row that it deletes, and does not ask the backend (`BaseXCom.clear`).
Nothing but the standard library is imported: the image's programs read it without Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

BEGIN, END = b'{"encrypted_xcom": "', b'"}'


class Encryption(Protocol):
    """A Fernet key, or several: `cryptography.fernet.Fernet` or `MultiFernet`."""

    def encrypt(self, msg: bytes) -> bytes:
        """Return a token of the message."""

    def decrypt(self, msg: bytes) -> bytes:
        """Return the message of a token, or raise `cryptography.fernet.InvalidToken`."""


def wrap(token: bytes) -> bytes:
    """Return what is stored for a Fernet token, which is URL-safe base64."""
    return BEGIN + token + END


def token_of(stored: bytes) -> bytes | None:
    """Return the Fernet token of what is stored; None for a value that is not encrypted."""
    if stored.startswith(BEGIN) and stored.endswith(END):
        return stored[len(BEGIN) : -len(END)]
    return None


def encrypt(key: Encryption, value: bytes, secrets: Iterable[str] = ()) -> bytes:
    """Return what is stored for a serialized value; `secrets` is what a reader's log has to mask of it."""
    return wrap(key.encrypt(json.dumps(sorted(secrets)).encode() + b"\n" + value))


def decrypt(key: Encryption, token: bytes) -> tuple[bytes, list[str]]:
    """Return the serialized value of a token and its secrets.

    Raises cryptography.fernet.InvalidToken when the key is another one, or the token is damaged.
    """
    secrets, _, value = key.decrypt(token).partition(b"\n")
    return value, json.loads(secrets)
