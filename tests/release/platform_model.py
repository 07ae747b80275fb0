"""A platform of dictionaries: what the commands do to databases, containers and doors, and nothing else.

The commands are the real ones that the engine gives; this is what Docker, Postgres and HAProxy answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host, read_environment

CONTAINERS = (
    "airflow-webserver",
    "airflow-scheduler",
    "airflow-triggerer",
    "airflow-worker",
    "flower",
    "postgres",
    "redis",
    "haproxy",
    "webhook",
)
STANDBY = "airflow-webserver-standby"


class Killed(BaseException):
    """The engine's process was killed: nothing in it can catch that."""


@dataclass
class World:
    """All that a switch may change outside the platform's directory."""

    databases: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name to schema revision and the version that wrote to it last."""
    running: dict[str, str] = field(default_factory=dict)
    """Service to the version of its image."""
    doors: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    die_at: int | None = None
    """The number of the command at which the engine is killed, counted from 0."""
    die_before: bool = True
    """Whether the command had no effect, or all of it."""
    fail: str = ""
    """A command with this text fails."""
    unhealthy_version: str = ""
    """The webserver of this version never gets healthy."""


_WORLDS: dict[Path, World] = {}


class PlatformModel(Host):
    """The host whose commands change a `World`."""

    @property
    def world(self) -> World:
        """The world of this host."""
        return _WORLDS[self.directory]

    def volume(self, name: str) -> Path:
        """Return a place on the same disk as all else."""
        return self.directory

    def world_of(self, world: World) -> None:
        """Give this host its world."""
        _WORLDS[self.directory] = world

    def run(
        self,
        command: Sequence[str],
        *,
        input: str | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 600,
        doing: str = "",
    ) -> str:
        """Do what the command does; die or fail where the world says so."""
        world = self.world
        line = " ".join(command) + (f" <<< {input}" if input else "")
        number = len(world.commands)
        world.commands.append(line)
        if number == world.die_at and world.die_before:
            raise Killed
        if world.fail and world.fail in line:
            raise ReleaseError(f"{doing or line} failed with code 1", "as asked")
        answer = self._answer(list(command), input or "")
        if number == world.die_at:
            raise Killed
        return answer

    def _answer(self, command: list[str], text: str) -> str:
        if "psql" in command:
            return self._sql(text, next(a for a in command if a.startswith("--dbname=")).partition("=")[2])
        if command[:2] == ["docker", "run"]:
            image = next(word for word in command if word.startswith("airflow:"))
            return image.replace("airflow:", "schema-of-")
        verb = next(word for word in command[4:] if not word.startswith("-"))
        services = [word for word in command[command.index(verb) + 1 :] if not word.startswith("-")]
        return str(getattr(self, f"_{verb}")(Path(command[3]), services, command))

    def _sql(self, text: str, database: str) -> str:
        databases = self.world.databases
        if "postgres" not in self.world.running:
            raise ReleaseError("Postgres does not run")
        if database != "postgres" and database not in databases:
            raise ReleaseError(f"no database {database}")
        renamed = dict(databases)
        for old, new in re.findall(r"ALTER DATABASE (\w+) RENAME TO (\w+)", text):
            if new in renamed or old not in renamed:
                raise ReleaseError(f"cannot rename {old} to {new}")
            renamed[new] = renamed.pop(old)
        databases.clear()
        databases.update(renamed)
        if found := re.search(r"DROP DATABASE IF EXISTS (\w+)", text):
            databases.pop(found[1], None)
        if found := re.search(r"CREATE DATABASE (\w+) TEMPLATE (\w+)", text):
            databases[found[1]] = dict(databases[found[2]])
        elif text == "SELECT datname FROM pg_database":
            return "\n".join(databases)
        elif "alembic_version" in text:
            return databases[database]["revision"]
        return ""

    def _version(self, project: Path) -> str:
        return read_environment((project / ".env").read_text())["AIRFLOW_VERSION"]

    def _up(self, project: Path, services: list[str], command: list[str]) -> str:
        version = self._version(project)
        for service in services or CONTAINERS:
            self.world.running[service] = version
        if version == self.world.unhealthy_version and not services and "--wait" in command:
            raise ReleaseError("airflow-webserver is unhealthy")
        return ""

    def _stop(self, project: Path, services: list[str], command: list[str]) -> str:
        for service in services:
            self.world.running.pop(service, None)
        return ""

    def _rm(self, project: Path, services: list[str], command: list[str]) -> str:
        return self._stop(project, services, command)

    def _run(self, project: Path, services: list[str], command: list[str]) -> str:
        version = self._version(project)
        pointed = (self.releases / "database/pg_service.conf").read_text().partition("dbname=")[2].strip()
        if self.world.databases[pointed] is self.world.databases.get("airflow"):
            raise AssertionError("the live database was migrated")
        self.world.databases[pointed]["revision"] = f"schema-of-{version}"
        return ""

    def _exec(self, project: Path, services: list[str], command: list[str]) -> str:
        if services[0] not in self.world.running:
            raise ReleaseError(f"{services[0]} does not run")
        self.world.doors.update(re.findall(r"set server airflow/(\w+) state (\w+)", command[-1]))
        if command[-1].endswith("/health"):
            return '{"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}'
        if command[-1].endswith("/api/v1/version"):
            return f'{{"version": "{self.world.running["airflow-webserver"]}"}}'
        return ""

    def _ps(self, project: Path, services: list[str], command: list[str]) -> str:
        running = self.world.running
        form = command[-1]
        if "Image" in form:
            return "\n".join(f"{name} airflow:{version}" for name, version in running.items())
        return "\n".join(f"{name} {'running ' if 'State' in form else ''}healthy" for name in running)

    def _config(self, project: Path, services: list[str], command: list[str]) -> str:
        return "\n".join(CONTAINERS)

    def _logs(self, project: Path, services: list[str], command: list[str]) -> str:
        return "log"
