"""Disk that is put aside before a switch, so that the way back needs none that is not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host

NAME = "reserve"

SIZE = 64 * 2**20
"""Bytes. The way back writes the journal and some files again, and Postgres four segments of its log."""


def put_aside(host: Host) -> None:
    """Take the space, on each disk that the way back writes to.

    Raises:
        ReleaseError: a disk has less.
    """
    place = host.releases
    try:
        for place in _places(host):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SIZE)
            finally:
                os.close(descriptor)
    except OSError as error:
        give_back(host)
        raise ReleaseError(
            f"{place.parent} has no {SIZE // 2**20} MiB to put aside for the way back: {error.strerror}"
        ) from error


def give_back(host: Host) -> None:
    """Free the space again. What is not there, or cannot be freed, keeps nobody from going back."""
    # First this one, which is found without Docker.
    (host.releases / NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError, ReleaseError):
        for place in _places(host):
            place.unlink(missing_ok=True)


def _places(host: Host) -> list[Path]:
    """Return a file beside the journal and, where that is another disk, one beside Postgres' data."""
    beside_journal, beside_data = host.releases, host.volume("postgres_data").parent
    other_disk = beside_data.stat().st_dev != beside_journal.stat().st_dev
    return [directory / NAME for directory in (beside_journal, *([beside_data] if other_disk else []))]
