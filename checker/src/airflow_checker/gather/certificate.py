"""The end of a certificate, from its PEM text: DER as in X.690, the fields as in RFC 5280, 4.1."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime, timezone

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE, UTC_TIME, GENERALIZED_TIME, VERSION = 0x30, 0x17, 0x18, 0xA0


def ends(pem: str) -> float:
    """Return when the first of the certificates to end does so, in seconds since the epoch.

    Raises:
        ValueError: there is no certificate in the text, or one that cannot be read.
    """
    found = _PEM.findall(pem)
    if not found:
        raise ValueError("there is no certificate in it")
    try:
        return min(_end(base64.b64decode("".join(text.split()), validate=True)) for text in found)
    except (binascii.Error, IndexError, OverflowError) as error:
        raise ValueError("a certificate in it is damaged") from error


def _end(der: bytes) -> float:
    certificate = _element(der, 0, SEQUENCE)[0]
    fields = _element(certificate, 0, SEQUENCE)[0]
    position = 0
    if fields[0] == VERSION:
        position = _element(fields, position, VERSION)[1]
    for _ in ("serialNumber", "signature", "issuer"):
        position = _element(fields, position)[1]
    validity = _element(fields, position, SEQUENCE)[0]
    after = _element(validity, 0)[1]
    return time(validity[after], _element(validity, after)[0].decode("ascii", "replace"))


def time(tag: int, text: str) -> float:
    """Return a time of a certificate in seconds since the epoch (RFC 5280, 4.1.2.5).

    Raises:
        ValueError: it is none.
    """
    if tag == UTC_TIME and re.fullmatch(r"\d{12}Z", text):
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != GENERALIZED_TIME or not re.fullmatch(r"\d{14}Z", text):
        raise ValueError("a certificate in it has no end")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _element(data: bytes, position: int, expected: int = -1) -> tuple[bytes, int]:
    """Return an element's content, and where the next one begins."""
    tag, length, start = data[position], data[position + 1], position + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if expected not in (-1, tag) or start + length > len(data):
        raise ValueError("a certificate in it is damaged")
    return data[start : start + length], start + length
