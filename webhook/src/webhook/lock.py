"""One sync at a time, over all processes of the host."""

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
        LockTimeoutError: not to be had within `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockTimeoutError(f"another sync has held {path} for {timeout:.0f} s") from None
                time.sleep(0.02)  # flock has no time-out of its own
        yield descriptor
    finally:
        os.close(descriptor)
