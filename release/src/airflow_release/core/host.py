"""The platform on this host: where its files are, and how its containers are spoken to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from airflow_release.core.errors import ReleaseError


@dataclass(frozen=True)
class Host:
    """The platform's places on this host."""

    directory: Path = Path("/srv/airflow")
    backups: Path = Path("/var/backups/airflow")

    @property
    def releases(self) -> Path:
        """What the switch knows: its operation, the next release's files, the records of earlier ones."""
        return self.directory / "releases"

    @property
    def next(self) -> Path:
        """The files of the release that is being prepared, laid out as the platform's own."""
        return self.releases / "next"

    @property
    def lock(self) -> Path:
        """Held by whatever changes or copies the platform's data."""
        return self.releases / "lock"

    @property
    def status(self) -> Path:
        """What the status page may know of this package's work; no secret."""
        return self.directory / "status"

    def run(
        self,
        command: Sequence[str],
        *,
        input: str | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = 600,
        doing: str = "",
        codes: Collection[int] = (0,),
    ) -> str:
        """Run a command to its end and return what it printed.

        `doing` names the step in the error; `timeout` is in seconds, None for no limit; `codes` are the exit
        codes that are no failure. Secrets belong into `input`, a file or `environment`, never into the
        command, which every process of the host can read.

        Raises:
            ReleaseError: it cannot be run, ended with another code than these, or not in time.
        """
        doing = doing or " ".join(command[:6])
        try:
            done = subprocess.run(
                command,
                input=None if input is None else input.encode(),
                stdin=subprocess.DEVNULL if stdin is None and input is None else stdin,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ReleaseError(f"{doing} did not end within {timeout:.0f} s", _text(error.stderr)) from None
        except OSError as error:
            raise ReleaseError(f"{doing} failed: {command[0]} cannot be run ({error.strerror})") from error
        if done.returncode not in codes:
            raise ReleaseError(
                f"{doing} failed with code {done.returncode}", _text(done.stdout) + _text(done.stderr)
            )
        return _text(done.stdout)

    def compose_command(self, *arguments: str, project: Path | None = None) -> list[str]:
        """Return a Docker Compose command for the platform, or for the files of a release beside it."""
        return ["docker", "compose", "--project-directory", str(project or self.directory), *arguments]

    def compose(
        self,
        *arguments: str,
        project: Path | None = None,
        timeout: float = 600,
        doing: str = "",
        codes: Collection[int] = (0,),
    ) -> str:
        """Run a Docker Compose command (see `run`)."""
        command = self.compose_command(*arguments, project=project)
        return self.run(command, timeout=timeout, doing=doing, codes=codes)

    def environment(self, name: str = ".env", project: Path | None = None) -> dict[str, str]:
        """Read one of the platform's env files, `.env` or one below `env/`; {} where there is none."""
        path = (project or self.directory) / name
        return read_environment(path.read_text()) if path.exists() else {}

    def volume(self, name: str) -> Path:
        """Return where on this host a volume of the platform has its files."""
        place = self.run(
            ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"airflow_{name}"],
            timeout=60,
            doing=f"looking for the volume {name}",
        )
        return Path(place.strip())

    def image_id(self, name: str) -> str:
        """Return the digest by which Docker knows an image, "" when it has none of that name."""
        command = ["docker", "image", "ls", "--no-trunc", "--quiet", name]
        return self.run(command, timeout=60, doing="looking at the images").strip()

    def running(self) -> dict[str, str]:
        """Return the running services, each with Docker's word for its health."""
        lines = self.compose(
            "ps", "--format", "{{.Service}} {{.Health}}", timeout=60, doing="looking at the containers"
        )
        services = (line.partition(" ") for line in lines.splitlines() if line.strip())
        return {service: health.strip() for service, _, health in services}


def read_environment(text: str) -> dict[str, str]:
    """Read an env file of this platform: `NAME=value`, the value perhaps in single quotes."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {
        name: value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
        for name, value in pairs
    }


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")
