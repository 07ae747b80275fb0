"""Redis, asked over its own protocol for the lengths of Celery's queues (RESP, https://redis.io/docs/reference/protocol-spec)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

PREFIX = "_kombu.binding."
"""Before the name of an exchange, in the key of what is bound to it. Each queue of Airflow has its own."""
PRIORITY = "\x06\x16"
"""Between a queue and a priority that is not the usual one, in a list's key (kombu/transport/redis.py)."""
UNACKED = ("unacked", "unacked_index", "unacked_mutex")
"""Where kombu keeps what a worker has taken and not yet done."""
MOST_QUEUES = 200
MOST_KEYS = 10_000


class RedisError(Exception):
    """Redis does not answer, or says no."""


def queues(address: str, password: str, *, port: int = 6379, timeout: float = 5) -> dict[str, int]:
    """Return how many messages wait in each queue that Celery has bound, and in each that has any.

    Redis forgets a queue's list when it is empty, but not that it is bound.

    Raises:
        RedisError: Redis does not answer in time, or refuses.
    """
    with session(address, password, port=port, timeout=timeout) as stream:
        bound = [key.decode(errors="replace") for key in ask(stream, "KEYS", PREFIX + "*")]
        names = sorted(filter(is_queue, (key[len(PREFIX) :] for key in bound)))
        lengths = dict.fromkeys(names[:MOST_QUEUES], 0)
        for key in lists(stream):
            name = queue_of(key)
            if name is not None and (name in lengths or len(lengths) < MOST_QUEUES):
                lengths[name] = lengths.get(name, 0) + int(ask(stream, "LLEN", key))
        return lengths


@contextmanager
def session(address: str, password: str, *, port: int = 6379, timeout: float = 5) -> Iterator[BinaryIO]:
    """Yield a connection to Redis that has given its password, if there is one.

    Raises:
        RedisError: Redis does not answer in time, or refuses, or an answer is not what was expected of it.
    """
    try:
        with (
            socket.create_connection((address, port), timeout) as connection,
            connection.makefile("rwb") as file,
        ):
            stream = cast(BinaryIO, file)
            if password:
                ask(stream, "AUTH", password)
            yield stream
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RedisError(str(error) or type(error).__name__) from error


def lists(stream: BinaryIO) -> list[bytes]:
    """Return the keys of all lists, sorted, each once.

    Raises:
        RedisError: there are more than a broker has.
    """
    keys: set[bytes] = set()
    cursor = "0"
    while True:
        following, found = ask(stream, "SCAN", cursor, "COUNT", "1000", "TYPE", "list")
        keys.update(found)
        cursor = following.decode()
        if cursor == "0":
            return sorted(keys)
        if len(keys) > MOST_KEYS:
            raise RedisError(f"it has more than {MOST_KEYS} lists")


def queue_of(key: bytes) -> str | None:
    """Return the queue whose messages a list has, None for a list of Celery's own.

    >>> queue_of(b"gpu"), queue_of(b"gpu\\x06\\x169"), queue_of(b"3f1e.reply.celery.pidbox")
    ('gpu', 'gpu', None)
    """
    text = key.decode(errors="replace")
    name, separator, priority = text.rpartition(PRIORITY)
    if not (separator and name and re.fullmatch("[0-9]{1,3}", priority)):
        name = text
    return name if is_queue(name) else None


def is_queue(name: str) -> bool:
    """Say whether tasks may wait under a name; events, orders to workers and their answers have others."""
    of_celery = name == "celeryev" or name.startswith("celeryev.") or name.endswith("celery.pidbox")
    return not (of_celery or name in UNACKED or name.startswith("_kombu."))


def ask(stream: BinaryIO, *words: str | bytes) -> Any:
    """Send one command and return the answer.

    Raises:
        RedisError: the answer is an error.
    """
    stream.write(command(words))
    stream.flush()
    return reply(stream)


def command(words: Sequence[str | bytes]) -> bytes:
    """Return a command as the protocol has it: an array of bulk strings."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
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
