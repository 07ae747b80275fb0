"""A folder with the files of one release (Compose project, .env), and its Airflow image put to work.

What runs here runs in the service `gate` of that project: the release's Airflow image with its limits and
environment, without network and without secrets.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.report import image_edits, image_facts

GATE = "gate"
FACTS_SECONDS = 180
EDITS_SECONDS = 600
PARSE_SECONDS = 1800
"""For all DAGs together; the gate itself has a limit for each file."""
EXIT_REFUSED = 3  # of gate-check: the tree has problems, which its answer tells

Json = dict[str, Any]


@dataclass(frozen=True)
class ReleaseFolder:
    """The files of one release, as they lie in /srv/airflow or in releases/next."""

    host: Host
    directory: Path

    @property
    def airflow_image(self) -> str:
        """The full name of the Airflow image. Raises ReleaseError when .env names none."""
        try:
            return self.host.environment(project=self.directory)["AIRFLOW_IMAGE"]
        except KeyError:
            raise ReleaseError(f"{self.directory}/.env names no AIRFLOW_IMAGE") from None

    def live_tree(self) -> Path:
        """Return the tree of DAGs that is live now, by a path that stays the same when another goes live.

        It is not resolved further: the gate knows the trees by the path of the release's directory.
        """
        trees = self.directory / "trees"
        try:
            return trees / os.readlink(trees / "current")
        except OSError as error:
            raise ReleaseError(
                f"there is no live tree of DAGs at {trees}/current ({error.strerror})"
            ) from error

    def facts(self) -> Json:
        """Return what `image_facts` says of the release's Airflow image."""
        script = Path(image_facts.__file__).read_text(encoding="utf-8")
        return self._ask("asking for its facts", "python3", "-c", script, seconds=FACTS_SECONDS)

    def edits(self, tree: Path, moved_names: Path, mount: Path) -> Json:
        """Return the edits that `image_edits` finds for a tree. Tree and `moved_names` are below `mount`."""
        script = Path(image_edits.__file__).read_text(encoding="utf-8")
        command = ("python3", "-c", script, str(tree), str(moved_names))
        return self._ask("looking for edits", *command, seconds=EDITS_SECONDS, mount=mount)

    def parse(self, tree: Path, mount: Path | None = None) -> Json:
        """Return what the gate of this release says of a tree of DAGs.

        A tree that is not one of the platform's own is below `mount`, a folder that the gate gets to read.
        The answer's shape is `Report` in webhook/src/gate_check/report.py.
        """
        command = ("python3", "/usr/local/bin/gate-check", "check", str(tree))
        codes = (0, EXIT_REFUSED)
        return self._ask("parsing the DAGs", *command, seconds=PARSE_SECONDS, codes=codes, mount=mount)

    def airflow_settings(self) -> dict[str, list[str]]:
        """Return the names of the variables AIRFLOW__… that are set, each with the services that get it.

        The values are secrets in part; they go no further than this function.
        """
        doing = f"reading the Compose project in {self.directory}"
        arguments = ("config", "--format", "json")
        answer = self.host.compose(*arguments, project=self.directory, timeout=60, doing=doing)
        found: dict[str, list[str]] = {}
        for service, definition in sorted(_json(answer, doing)["services"].items()):
            for name in definition.get("environment") or {}:
                if name.startswith("AIRFLOW__"):
                    found.setdefault(name, []).append(service)
        return dict(sorted(found.items()))

    def _ask(
        self,
        what: str,
        *command: str,
        seconds: float,
        codes: Collection[int] = (0,),
        mount: Path | None = None,
    ) -> Json:
        name = f"airflow-report-{os.getpid()}"
        mounts = (f"--volume={mount}:{mount}:ro",) if mount else ()
        run = ("run", "--rm", "--no-deps", "--no-TTY", "--name", name, *mounts, GATE, *command)
        doing = f"{what}, in the gate of {self.directory},"
        try:
            answer = self.host.compose(
                *run, project=self.directory, timeout=seconds, doing=doing, codes=codes
            )
        except BaseException:
            # The container outlives a client that was stopped by the time-out.
            with contextlib.suppress(ReleaseError):
                self.host.run(["docker", "rm", "--force", name], timeout=60)
            raise
        return _json(answer, doing)


def _json(text: str, doing: str) -> Json:
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise ReleaseError(f"{doing} gave no JSON: {error}") from None
