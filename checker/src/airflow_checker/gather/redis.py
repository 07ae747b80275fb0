"""Redis, asked over its own protocol for the lengths of Celery's queues (RESP, https://redis.io/docs/reference/protocol-spec)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

PREFIX = "_kombu.binding."
NOT_QUEUES = ("celeryev", "celery.pidbox", "reply.celery.pidbox")
"""Celery's own exchanges, whose queues have other names."""
MOST_QUEUES = 200


class RedisError(Exception):
    """Redis does not answer, or says no."""


def queues(address: str, password: str, *, port: int = 6379, timeout: float = 5) -> dict[str, int]:
    """Return how many messages wait in each queue that Celery has bound.

    Raises:
        RedisError: Redis does not answer in time, or refuses.
    """
    try:
        with (
            socket.create_connection((address, port), timeout) as connection,
            connection.makefile("rwb") as file,
        ):
            stream = cast(BinaryIO, file)
            if password:
                ask(stream, "AUTH", password)
            bound = [key.decode(errors="replace") for key in ask(stream, "KEYS", PREFIX + "*")]
            names = sorted(key[len(PREFIX) :] for key in bound)
            names = [name for name in names if name not in NOT_QUEUES][:MOST_QUEUES]
            return {name: int(ask(stream, "LLEN", name)) for name in names}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RedisError(str(error) or type(error).__name__) from error


def ask(stream: BinaryIO, *words: str) -> Any:
    """Send one command and return the answer.

    Raises:
        RedisError: the answer is an error.
    """
    stream.write(command(words))
    stream.flush()
    return reply(stream)


def command(words: Sequence[str]) -> bytes:
    """Return a command as the protocol has it: an array of bulk strings."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def reply(stream: BinaryIO, depth: int = 0) -> Any:
    """Read one answer: bytes, a whole number, a list, or None.

    Raises:
        RedisError: the answer is an error, is cut short or is none of the protocol's.
    """
    line = stream.readline(65_536)
    if not line.endswith(b"\r\n") or depth > 8:
        raise RedisError("the answer is cut short")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        raise RedisError(rest.decode(errors="replace")[:200])
    if kind not in (b":", b"$", b"*"):
        raise RedisError("the answer is not of Redis' protocol")
    try:
        count = int(rest)
    except ValueError:
        raise RedisError("the answer is not of Redis' protocol") from None
    if kind == b":":
        return count
    if count < 0:
        return None
    if kind == b"*":
        return [reply(stream, depth + 1) for _ in range(count)]
    data = stream.read(count + 2)
    if len(data) != count + 2:
        raise RedisError("the answer is cut short")
    return data[:-2]
