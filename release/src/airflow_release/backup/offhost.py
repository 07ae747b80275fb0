"""Copies of the backups on another host or in a cloud, by rclone."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from airflow_release.backup import bundle
from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file
from airflow_release.core.host import Host
from airflow_release.core.settings import Settings

SILENCE = "5m"
"""After so long without a byte rclone gives up an attempt. How long a copy takes depends on its size."""
END_BYTES = 512 * bundle.BLOCK
"""How much of a bundle's end contains its manifest for sure."""


@dataclass(frozen=True)
class Remote:
    """The place that `backup_remote` names. It has bundles under the same names as the host does."""

    host: Host
    settings: Settings

    def __bool__(self) -> bool:
        """Say whether there is one."""
        return bool(self.settings.remote)

    def copy(self, file: Path) -> None:
        """Copy a bundle there, and compare the copy by digest or, where the remote knows none, by size.

        Raises:
            ReleaseError: it cannot be reached or written, or the copy differs.
        """
        self._rclone(
            "copyto",
            str(file),
            self._place(file.name),
            doing=f"copying {file.name} to {self.settings.remote}",
        )
        self._rclone(
            "check",
            "--one-way",
            f"--include=/{file.name}",
            str(file.parent),
            self.settings.remote,
            doing=f"comparing {file.name} with its copy in {self.settings.remote}",
        )

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file there, by name."""
        listed = self._rclone(
            "lsjson",
            "--files-only",
            "--no-modtime",
            "--no-mimetype",
            self.settings.remote,
            doing=f"listing {self.settings.remote}",
        )
        return {file["Name"]: file["Size"] for file in json.loads(listed)}

    def manifest(self, name: str) -> bundle.Manifest | None:
        """Return what a bundle there says of itself, None when it is damaged; it is not fetched for that."""
        with tempfile.TemporaryFile() as end:
            try:
                self._rclone(
                    "cat", f"--tail={END_BYTES}", self._place(name), doing=f"looking at {name}", stdout=end
                )
            except ReleaseError:
                return None
            end.seek(0)
            return bundle.read_end(end.read())

    def fetch(self, name: str, into: Path) -> None:
        """Copy a bundle from there."""
        self._rclone(
            "copyto", self._place(name), str(into), doing=f"fetching {name} from {self.settings.remote}"
        )

    def remove(self, name: str) -> None:
        """Delete a bundle there."""
        self._rclone("deletefile", self._place(name), doing=f"removing {name} from {self.settings.remote}")

    def _place(self, name: str) -> str:
        separator = "" if self.settings.remote.endswith((":", "/")) else "/"
        return f"{self.settings.remote}{separator}{name}"

    def _rclone(self, *arguments: str, doing: str, stdout: IO[bytes] | None = None) -> str:
        # rclone tries again by itself, three times and with pauses.
        command = [
            "rclone",
            f"--config={self._configuration()}",
            "--contimeout=30s",
            f"--timeout={SILENCE}",
            *arguments,
        ]
        return self.host.run(
            command, stdout=stdout, environment=self.settings.proxies, timeout=None, doing=doing
        )

    def _configuration(self) -> Path:
        """Return rclone's own copy of the configuration, in which it keeps the tokens that it refreshes.

        Its name is a digest of what it was copied from: another configuration makes another copy.

        Raises:
            ReleaseError: there is no configuration, or no room for its copy.
        """
        folder = self.host.releases / "rclone"
        try:
            given = self.settings.remote_config.read_text()
            copy = folder / f"{hashlib.sha256(given.encode()).hexdigest()[:16]}.conf"
            if not copy.exists():
                replace_file(copy, given, directory_mode=0o700)
                for former in folder.iterdir():
                    if former != copy:
                        former.unlink()
        except OSError as error:
            raise ReleaseError(f"rclone's configuration cannot be prepared: {error}") from error
        return copy
