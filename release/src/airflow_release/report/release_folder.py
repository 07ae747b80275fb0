"""A folder with the files of one release (Compose project, .env), and its Airflow image put to work.

What runs here runs in the service `gate` of that project: the release's Airflow image with its limits and
environment, without network and without secrets.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_release.report import image_facts

GATE = "gate"
FACTS_SECONDS = 180
PARSE_SECONDS = 1800
"""For all DAGs together; the gate itself has a limit for each file."""
EXIT_REFUSED = 3  # of gate-check: the tree has problems, which its answer tells

Json = dict[str, Any]


class ReportError(Exception):
    """Why there is no report, in words for the person on call."""


@dataclass(frozen=True)
class ReleaseFolder:
    """The files of one release, as they lie in /srv/airflow or in releases/next."""

    directory: Path

    @property
    def settings(self) -> dict[str, str]:
        """The variables of .env. Raises ReportError when it cannot be read."""
        path = self.directory / ".env"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ReportError(f"{path} cannot be read: {error.strerror}") from error
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    @property
    def airflow_image(self) -> str:
        """The full name of the Airflow image. Raises ReportError when .env names none."""
        try:
            return self.settings["AIRFLOW_IMAGE"]
        except KeyError:
            raise ReportError(f"{self.directory}/.env names no AIRFLOW_IMAGE") from None

    def live_tree(self) -> Path:
        """Return the tree of DAGs that is live now, by a path that stays the same when another goes live.

        It is not resolved further: the gate knows the trees by the path of the release's directory.
        """
        trees = self.directory / "trees"
        try:
            return trees / os.readlink(trees / "current")
        except OSError as error:
            raise ReportError(
                f"there is no live tree of DAGs at {trees}/current ({error.strerror})"
            ) from error

    def facts(self) -> Json:
        """Return what `image_facts` says of the release's Airflow image."""
        script = Path(image_facts.__file__).read_text(encoding="utf-8")
        return self._ask("python3", "-c", script, seconds=FACTS_SECONDS)

    def parse(self, tree: Path) -> Json:
        """Return what the gate of this release says of a tree of DAGs.

        Its shape is `Report` in webhook/src/webhook/gate_check.py.
        """
        command = ("python3", "/usr/local/bin/gate-check", "check", str(tree))
        return self._ask(*command, seconds=PARSE_SECONDS, fine=(0, EXIT_REFUSED))

    def airflow_settings(self) -> dict[str, list[str]]:
        """Return the names of the variables AIRFLOW__… that are set, each with the services that get it.

        The values are secrets in part; they go no further than this function.
        """
        project = self._json(self._compose("config", "--format", "json", seconds=60), "config")
        found: dict[str, list[str]] = {}
        for service, definition in sorted(project["services"].items()):
            for name in definition.get("environment") or {}:
                if name.startswith("AIRFLOW__"):
                    found.setdefault(name, []).append(service)
        return dict(sorted(found.items()))

    def _ask(self, *command: str, seconds: float, fine: tuple[int, ...] = (0,)) -> Json:
        name = f"airflow-report-{os.getpid()}"
        options = ("--rm", "--no-deps", "--no-TTY", "--name", name)
        try:
            answer = self._compose("run", *options, GATE, *command, seconds=seconds, fine=fine)
        except ReportError:
            # The container outlives a client that was stopped by the time-out.
            _docker("rm", "--force", name, seconds=60)
            raise
        return self._json(answer, command[1] if command[1] != "-c" else "the question about the image")

    def _compose(self, *arguments: str, seconds: float, fine: tuple[int, ...] = (0,)) -> str:
        command = ("compose", "--project-directory", str(self.directory), *arguments)
        shown = f"docker compose {arguments[0]} in {self.directory}"
        try:
            done = _docker(*command, seconds=seconds)
        except subprocess.TimeoutExpired:
            raise ReportError(f"{shown} did not end within {seconds:g} s") from None
        except OSError as error:
            raise ReportError(f"docker cannot be run: {error.strerror}") from error
        if done.returncode not in fine:
            last = "\n".join(done.stderr.strip().splitlines()[-15:])
            raise ReportError(f"{shown} ended with status {done.returncode}:\n{last}")
        return done.stdout

    def _json(self, text: str, what: str) -> Json:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ReportError(f"the answer of {what} in {self.directory} is not JSON: {error}") from None
        return dict(document)


def _docker(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    # A list without a shell; docker is the host's own.
    return subprocess.run(
        ["docker", *arguments],  # noqa: S607
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
