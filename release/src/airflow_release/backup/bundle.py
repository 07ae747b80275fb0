"""A backup as one file: a tar archive of the dump, the configuration and a manifest, under a seal.

The last member, `SEAL`, holds the SHA-256 of every byte before it, and nothing else about it varies. So the
file alone, under whatever name, shows whether a byte was lost, added or changed. Any `tar` can unpack it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from airflow_release.core.errors import ReleaseError

FORMAT = 1
DUMP = "database.dump"
MANIFEST = "manifest.json"
NAME = re.compile(
    r"airflow-(?:(?P<environment>[A-Za-z0-9_]+)-(?P<host>[A-Za-z0-9._-]+)-)?"
    r"(?P<created>\d{8}T\d{6}Z)-(?P<version>[0-9][0-9A-Za-z.]*)\.tar"
)
"""Bundles of earlier versions of this platform bear neither environment nor host."""

BLOCK = 512
SEAL_SIZE = 4 * BLOCK
"""Header, digest, and the two empty blocks that end an archive."""
CHUNK = 1 << 20


class DamagedError(ReleaseError):
    """A file that is not what a backup has to be, whoever reads it and however often."""


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle and where it came from. Sizes are in bytes, times are ISO 8601 in UTC."""

    created: str
    reason: str
    host: str
    environment: str
    airflow_version: str
    postgres_version: str
    schema_revision: str
    counts: dict[str, int]
    """The rows of each main table, as of the very snapshot that the dump shows."""
    newest_run: str
    """When the newest DAG run started, "" when there is none."""
    database_size: int
    dag_commit: str
    images: dict[str, dict[str, str]]
    """Name and id of each image, by its variable in `.env`."""
    fernet_key: dict[str, Any]
    """1Password's vault, item and field of the key, and fingerprints of each key that was in use."""
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    """SHA-256 and size of each other member."""
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The bundle's file name."""
        stamp = re.sub(r"[-:]", "", self.created)
        environment, host = name_part(self.environment, "_") or "unknown", name_part(self.host)
        return f"airflow-{environment}-{host}-{stamp}-{self.airflow_version}.tar"


def name_part(text: str, other: str = "._-") -> str:
    """Return an environment's or a host's name as it stands in a bundle's name."""
    return re.sub(rf"[^A-Za-z0-9{re.escape(other)}]", "_", text)


def fingerprints(fernet_key: str) -> list[str]:
    """Return a short digest of each key in Airflow's comma-separated list.

    A key is 256 random bits, so nobody finds it from the digest.
    """
    keys = [key.strip() for key in fernet_key.split(",") if key.strip()]
    return [hashlib.sha256(key.encode()).hexdigest()[:16] for key in keys]


def write(path: Path, manifest: Manifest, members: Mapping[str, Path | bytes]) -> Manifest:
    """Write a bundle and return the manifest with the members' digests. The caller syncs and names the file.

    Raises:
        OSError: the disk is full, or a member cannot be read.
    """
    with path.open("xb") as file:
        path.chmod(0o600)
        sealed = _Hashing(file)
        digests = {name: _add(sealed, name, content) for name, content in members.items()}
        complete = Manifest(**{**asdict(manifest), "members": digests})
        _add(sealed, MANIFEST, (json.dumps(asdict(complete), indent=2) + "\n").encode())
        file.write(_seal(sealed.digest.hexdigest()))
    return complete


def verify(path: Path) -> Manifest:
    """Read every byte of a bundle and return its manifest.

    Raises:
        ReleaseError: it is no bundle, was cut off or altered, or is of a later format.
    """
    try:
        with path.open("rb") as file:
            _verify_seal(path, file)
            return _read_manifest(path, file)
    except OSError as error:
        raise ReleaseError(f"the backup {path} cannot be read: {error.strerror}") from error


def describe(path: Path) -> Manifest:
    """Return the manifest without a look at the rest, for a list.

    Raises:
        ReleaseError: there is none.
    """
    try:
        with path.open("rb") as file:
            return _read_manifest(path, file)
    except OSError as error:
        raise ReleaseError(f"the backup {path} cannot be read: {error.strerror}") from error


def read_end(end: bytes) -> Manifest | None:
    """Return the manifest that stands in the last bytes of a bundle, None when they are those of no bundle.

    It says what a bundle on the remote is without fetching it, and proves nothing.
    """
    for start in range(len(end) - SEAL_SIZE - BLOCK, -1, -BLOCK):
        if end.startswith(MANIFEST.encode() + b"\0", start):
            try:
                header = tarfile.TarInfo.frombuf(end[start : start + BLOCK], "utf-8", "strict")
                return Manifest(**json.loads(end[start + BLOCK : start + BLOCK + header.size]))
            except (tarfile.TarError, TypeError, ValueError):
                return None
    return None


def extract(path: Path, member: str, into: Path) -> Path:
    """Write one member of a verified bundle into a directory and return its path.

    Raises:
        ReleaseError: as `verify`, or the disk is full.
    """
    manifest = verify(path)
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = into / Path(member).name
    digest = hashlib.sha256()
    try:
        with tarfile.open(path, "r:") as archive, target.open("wb") as output:
            target.chmod(0o600)
            source = archive.extractfile(member)
            while source and (chunk := source.read(CHUNK)):
                digest.update(chunk)
                output.write(chunk)
    except (KeyError, OSError) as error:
        target.unlink(missing_ok=True)
        raise ReleaseError(f"{member} cannot be taken out of {path}: {error}") from error
    if digest.hexdigest() != manifest.members[member]["sha256"]:
        target.unlink()
        raise DamagedError(f"{member} in {path} is not what its manifest says")
    return target


class _Hashing:
    """Writes to a file and takes the digest of what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)


def _header(name: str, size: int) -> bytes:
    # GNU's format has no limit of 8 GiB. Everything but name and size is the same in every bundle.
    information = tarfile.TarInfo(name)
    information.size, information.mode = size, 0o600
    return information.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _add(archive: _Hashing, name: str, content: Path | bytes) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as source:
        expected = source.seek(0, io.SEEK_END)
        source.seek(0)
        archive.write(_header(name, expected))
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            archive.write(chunk)
    if size != expected:
        raise OSError(0, f"{name} changed while it was read")
    archive.write(_padding(size))
    return {"sha256": digest.hexdigest(), "size": size}


def _seal(digest: str) -> bytes:
    line = f"{digest}\n".encode()
    return _header("SEAL", len(line)) + line + _padding(len(line)) + bytes(2 * BLOCK)


def _verify_seal(path: Path, file: IO[bytes]) -> None:
    left = file.seek(0, io.SEEK_END) - SEAL_SIZE
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    if left or file.read() != _seal(digest.hexdigest()):
        raise DamagedError(
            f"{path} is not a complete backup: it was cut off or altered, or is another kind of file"
        )


def _read_manifest(path: Path, file: IO[bytes]) -> Manifest:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            source = archive.extractfile(MANIFEST)
            values = json.load(source) if source else {}
            sizes = {member.name: member.size for member in archive if member.name not in (MANIFEST, "SEAL")}
        if values.get("format") != FORMAT:
            raise ReleaseError(f"{path} has format {values.get('format')}; this version reads {FORMAT}")
        manifest = Manifest(**values)
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path} is not one of this platform's backups: {error}") from error
    if sizes != {name: member["size"] for name, member in manifest.members.items()}:
        raise DamagedError(f"the members of {path} are not those of its manifest")
    return manifest
