"""Whether copies of the database and its dumps fit on the disks, before anything is written."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from airflow_release.backup import bundle, store
from airflow_release.core.database import FAILED, KEPT, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import POSTGRES

RESERVE_BYTES = 256 * 2**20
"""What stays free on a disk: a full one stops Postgres."""


def require_space(
    host: Host, database: int, *, copies_of_dump: int, dump: int, copies_of_database: int = 1, images: int = 0
) -> None:
    """Refuse, before anything is written, what would fill a disk: copies of the database and of its dump.

    `images` is the size of images to be built; Docker keeps them where it keeps volumes. All are in bytes.

    Raises:
        ReleaseError: a disk has too little free space; the message says how much is missing, and which
            databases that nothing uses take room.
    """
    docker = host.volume("postgres_data")
    needed: dict[int, tuple[Path, list[tuple[int, str]]]] = {}
    for place, size, what in (
        (docker, copies_of_database * database, "copies of the database"),
        (docker, images, "new images"),
        (host.backups, copies_of_dump * dump, "dumps"),
    ):
        # What is not there yet will be made on its parent's disk.
        place = next(folder for folder in (place, *place.parents) if folder.exists())
        _, sizes = needed.setdefault(place.stat().st_dev, (place, [(RESERVE_BYTES, "reserve")]))
        sizes.append((size, what))
    for place, sizes in needed.values():
        free, total = shutil.disk_usage(place).free, sum(size for size, _ in sizes)
        if free < total:
            parts = ", ".join(f"{what} {size / 2**20:.0f}" for size, what in sizes if size)
            left = _left_over(host) if place == docker else ""
            raise ReleaseError(
                f"too little disk: {place} has {free / 2**20:.0f} MiB free, and {total / 2**20:.0f} MiB are "
                f"needed ({parts}){left}"
            )


def require_free(host: Host, dump: int, percent: int) -> None:
    """Refuse a backup, with a dump of so many bytes, that would leave less than this of its disk free.

    Raises:
        ReleaseError: less would be free, which others on the disk need, Postgres among them.
    """
    disk = shutil.disk_usage(host.backups)
    if (disk.free - dump) * 100 < percent * disk.total:
        raise ReleaseError(
            f"too little disk for a backup: {host.backups} has {disk.free / 2**20:.0f} of "
            f"{disk.total / 2**20:.0f} MiB free, and a backup of about {dump / 2**20:.0f} MiB would leave "
            f"less than {percent} %. Free disk first: `systemctl start airflow-clean` removes what need "
            "not be kept"
        )


def expected_dump(host: Host, size: int) -> int:
    """Return how large the dump of a database of `size` becomes: in proportion to the last; in bytes."""
    for name in store.names(host)[:1]:
        with contextlib.suppress(ReleaseError):
            last = bundle.describe(host.backups / name)
            return int(1.2 * size * last.members[bundle.DUMP]["size"] / last.database_size)
    return size


def _left_over(host: Host) -> str:
    """Name the databases that nothing uses, and the commands that drop them; "" where there is none."""
    database = Database(host)
    try:
        sizes = {
            name: database.size(name)
            for name in sorted(database.names())
            if name == FAILED or KEPT.fullmatch(name)
        }
    except ReleaseError:
        # What is missing has been found already; this is a hint on top of it.
        return ""
    drop = " ".join(host.compose_command("exec", POSTGRES, "dropdb", "--username=airflow"))
    return "".join(
        f". Nothing uses the database {name} of {size / 2**20:.0f} MiB; to drop it: `{drop} {name}`"
        for name, size in sizes.items()
    )
