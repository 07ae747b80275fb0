"""A release's files: what Ansible renders into the platform's directory, and how one set replaces another."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from airflow_release.core.files import replacing

MANAGED = (
    "docker-compose.yaml",
    ".env",
    "env",
    "haproxy",
    "weather",
    "docker-socket-proxy",
    "worker-gateway/haproxy.cfg",
)
"""What belongs to a release. The rest below the platform's directory is data or changes by itself.
Certificates of worker hosts, and who of them may in, are the host's own."""
CERTIFICATE = "haproxy/certificate.pem"
"""A host that has none gets the release's. One that is there stays: the release's may be older."""


def install(source: Path, target: Path) -> set[str]:
    """Make the managed files of `target` those of `source`; return the names that changed.

    Each file is replaced as a whole and directories stay the same ones, since containers have them mounted.
    It can be done again after it was interrupted.
    """
    wanted, present = _files(source), _files(target)
    kept = {CERTIFICATE} & wanted & present
    wanted, present = wanted - kept, present - kept
    changed = {name for name in wanted if name not in present or not _same(source / name, target / name)} | (
        present - wanted
    )
    for name in sorted(changed & wanted):
        _copy(source / name, target / name)
    for name in present - wanted:
        # What a killed copy left has been replaced by now where the same file was copied again.
        (target / name).unlink(missing_ok=True)
    return changed


def _files(directory: Path) -> set[str]:
    tops = [directory / name for name in MANAGED if (directory / name).exists()]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return {str(file.relative_to(directory)) for file in files}


def _same(left: Path, right: Path) -> bool:
    return filecmp.cmp(left, right, shallow=False) and _owner(left) == _owner(right)


def _owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mode, status.st_uid, status.st_gid


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its mode and owner, below directories that have those of the source's."""
    missing = [parent for parent in reversed(target.parents) if not parent.exists()]
    for parent in missing:
        model = source.parents[len(target.relative_to(parent).parts) - 1]
        parent.mkdir(mode=0o700)
        shutil.copystat(model, parent)
        os.chown(parent, model.stat().st_uid, model.stat().st_gid)
    with source.open("rb") as reader, replacing(target) as writer:
        shutil.copyfileobj(reader, writer)
        mode, owner, group = _owner(source)
        os.fchown(writer.fileno(), owner, group)
        os.fchmod(writer.fileno(), mode & 0o7777)
