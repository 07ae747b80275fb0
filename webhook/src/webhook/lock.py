"""One sync at a time, over all processes of the host; a pin goes first."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


class LockTimeoutError(Exception):
    """Another sync held the lock for longer than we were ready to wait."""


@contextlib.contextmanager
def exclusive(path: Path, timeout: float) -> Iterator[int]:
    """Hold the lock file; yield its descriptor.

    A child that inherits the descriptor keeps the lock: git, left behind by a killed sync, is waited for by
    the next.

    Raises:
        LockTimeoutError: not to be had, and nothing from its holder (`show_progress`), for `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        seen = os.fstat(descriptor).st_mtime_ns
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if (progress := os.fstat(descriptor).st_mtime_ns) != seen:
                    seen, deadline = progress, time.monotonic() + timeout
                if time.monotonic() >= deadline:
                    raise LockTimeoutError(f"another sync has held {path} for {timeout:.0f} s") from None
                time.sleep(0.02)  # flock has no time-out of its own
        yield descriptor
    finally:
        os.close(descriptor)


def show_progress(descriptor: int) -> None:
    """Have those who wait for the lock wait on: what its holder does takes long, and goes on."""
    os.utime(descriptor)


def is_held(path: Path) -> bool:
    """Say whether anybody has the lock now, without being taken for somebody who has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
