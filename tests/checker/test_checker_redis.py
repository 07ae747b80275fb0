"""The lengths of queues in a real Redis that has what Celery leaves there."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import pytest
from airflow_checker.gather import redis

from tests.missing import missing

PASSWORD = "of the broker"
SEPARATOR = redis.PRIORITY
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis of the test's own, which asks for a password."""
    program = shutil.which("redis-server")
    if program is None:
        missing("there is no redis-server on this machine")
    folder = tmp_path_factory.mktemp("redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (folder / "redis.conf").write_text(
        f'bind 127.0.0.1\nport {port}\nsave ""\ndir {folder}\nrequirepass "{PASSWORD}"\n'
    )
    with subprocess.Popen([program, str(folder / "redis.conf")], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield port
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when it takes connections."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)


@pytest.fixture
def ask(port: int) -> Iterator[Ask]:
    """Ask that Redis, which is empty at first."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as connection,
        connection.makefile("rwb") as file,
    ):
        stream = cast(BinaryIO, file)
        redis.ask(stream, "AUTH", PASSWORD)
        redis.ask(stream, "FLUSHALL")
        yield lambda *words: redis.ask(stream, *words)


def bind(ask: Ask, exchange: str, queue: str) -> None:
    """Bind a queue as kombu does."""
    ask("SADD", redis.PREFIX + exchange, f"{queue}{SEPARATOR}{SEPARATOR}{queue}")


def lengths(port: int) -> dict[str, int]:
    return redis.queues("127.0.0.1", PASSWORD, port=port)


def test_empty_broker_has_no_queues(port: int, ask: Ask) -> None:
    assert lengths(port) == {}


def test_queue_that_is_bound_is_known_while_it_is_empty(port: int, ask: Ask) -> None:
    bind(ask, "default", "default")
    bind(ask, "gpu", "gpu")
    ask("LPUSH", "gpu", "{}", "{}")
    assert lengths(port) == {"default": 0, "gpu": 2}


def test_messages_of_all_priorities_wait(port: int, ask: Ask) -> None:
    bind(ask, "gpu", "gpu")
    ask("LPUSH", "gpu", "{}")
    for priority in (3, 6, 9):
        ask("LPUSH", f"gpu{SEPARATOR}{priority}", "{}", "{}")
    assert lengths(port) == {"gpu": 7}


def test_messages_wait_also_when_their_queue_is_not_bound(port: int, ask: Ask) -> None:
    ask("LPUSH", f"of a worker that is gone{SEPARATOR}9", "{}")
    ask("LPUSH", "größer", "{}")
    assert lengths(port) == {"größer": 1, "of a worker that is gone": 1}


def test_what_celery_keeps_for_itself_is_no_queue(port: int, ask: Ask) -> None:
    """Events, orders to workers and their answers, what is not acknowledged, results."""
    bind(ask, "default", "default")
    for exchange in ("celeryev", "celery.pidbox", "reply.celery.pidbox"):
        bind(ask, exchange, f"one.{exchange}")
        ask("LPUSH", f"3f1e.{exchange}" if exchange != "celeryev" else "celeryev.3f1e", "{}")
    ask("LPUSH", "celery@atd-worker01.celery.pidbox", "{}")
    ask("HSET", "unacked", "1", "{}")
    ask("ZADD", "unacked_index", "1", "1")
    ask("SET", "unacked_mutex", "1")
    ask("SET", "celery-task-meta-1", "{}")
    assert lengths(port) == {"default": 0}


def test_queue_is_found_among_many_keys(port: int, ask: Ask) -> None:
    """Redis gives them in parts."""
    for start in range(0, 5000, 500):
        pairs = [word for each in range(start, start + 500) for word in (f"celery-task-meta-{each}", "{}")]
        ask("MSET", *pairs)
    for answer in range(2500):
        ask("LPUSH", f"{answer}.reply.celery.pidbox", "{}")
    ask("LPUSH", "gpu", "{}")
    assert lengths(port) == {"gpu": 1}


def test_other_password_is_one_kind_of_error(port: int) -> None:
    with pytest.raises(redis.RedisError, match="WRONGPASS"):
        redis.queues("127.0.0.1", "another", port=port)
