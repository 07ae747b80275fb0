"""One change of the platform at a time, over all processes of the host."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from airflow_release.core.errors import ReleaseError


def may_wait(parser: argparse.ArgumentParser) -> None:
    """Give a command the option for how long it waits for the lock: `arguments.wait`, in seconds."""
    parser.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long to wait for another change of the platform; `inf` is no limit",
    )


@contextlib.contextmanager
def exclusive(path: Path, wait_seconds: float = 0, *, doing: str = "a switch") -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when the process ends, however it ends.

    `wait_seconds` may be `math.inf`. `doing` is what others are told meanwhile, such as "a backup".

    Raises:
        ReleaseError: somebody else held it for all of `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = path.read_text() or "another change of the platform is active"
                    raise ReleaseError(f"{holder}; try again later") from None
                time.sleep(0.2)  # flock has no time-out of its own
        # It outlives a crash; whether it is so says the lock alone.
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):  # a full disk: what is to be done may be what frees it
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{doing} has been active since {since}".encode())
        yield
    finally:
        os.close(descriptor)
