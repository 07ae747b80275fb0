"""A platform of dictionaries: what the commands do to databases, containers and HAProxy, and nothing else.

The commands are the real ones that a switch gives; this is what Docker, Postgres and HAProxy answer.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host, read_environment

from tests import compose_project

CONTAINERS = tuple(sorted(compose_project.enabled(compose_project.project())["services"]))
"""The services that should run."""
STANDBY = "airflow-webserver-standby"


class Killed(BaseException):
    """The process of the switch was killed: nothing in it can catch that."""


@dataclass
class World:
    """All that a switch may change outside the platform's directory."""

    databases: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name to schema revision and the version that wrote to it last."""
    closed: set[str] = field(default_factory=set)
    """Databases that take no connections."""
    sessions: dict[str, str] = field(default_factory=dict)
    """Service to the database that it is connected to."""
    running: dict[str, str] = field(default_factory=dict)
    """Service to the version of its image."""
    servers: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    units: set[str] = field(default_factory=set)
    """Units of systemd that were started."""
    die_at: int | None = None
    """The number of the command at which the switch is killed, counted from 0."""
    die_before: bool = True
    """Whether the command had no effect, or all of it."""
    fail: str = ""
    """A command with this text fails."""
    ill: dict[str, set[str]] = field(default_factory=dict)
    """Version to its services that never get healthy."""
    tasks: list[str] = field(default_factory=list)
    """What the database says of tasks under way, an answer for each time that it is asked; then nothing."""
    during: Callable[[str], None] = lambda line: None
    """Told of each command before it takes effect: what else happens on the host at that moment."""


@functools.lru_cache(maxsize=100)
def _parse(project: str) -> dict[str, Any]:
    return dict(json.loads(project)["services"])


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
        timeout: float | None = 600,
        doing: str = "",
        codes: Collection[int] = (0,),
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
        world.during(line)
        try:
            return self._answer(list(command), input or "")
        finally:
            if number == world.die_at:
                raise Killed

    def _answer(self, command: list[str], text: str) -> str:
        if command[0] == "systemctl":
            self.world.units.add(command[-1])
            return ""
        if "psql" in command:
            return self._sql(text, next(a for a in command if a.startswith("--dbname=")).partition("=")[2])
        if command[:2] == ["docker", "run"]:
            image = next(word for word in command if word.startswith("airflow:"))
            return image.replace("airflow:", "schema-of-")
        verb = next(word for word in command[4:] if not word.startswith("-"))
        services = [word for word in command[command.index(verb) + 1 :] if not word.startswith("-")]
        return str(getattr(self, f"_{verb}")(Path(command[3]), services, command))

    def _sql(self, text: str, database: str) -> str:
        world, databases = self.world, self.world.databases
        if "postgres" not in world.running:
            raise ReleaseError("Postgres does not run")
        if database != "postgres" and (database not in databases or database in world.closed):
            raise ReleaseError(f"database {database} does not exist or takes no connections")
        self._connect()
        for ended in re.findall(r"pg_terminate_backend.* IN \(([^)]*)\)", text):
            names = set(re.findall(r"\w+", ended))
            world.sessions = {one: to for one, to in world.sessions.items() if to not in names}
        for name, allowed in re.findall(r"ALTER DATABASE (\w+) ALLOW_CONNECTIONS (\w+)", text):
            if "RENAME" not in text:
                (world.closed.discard if allowed == "true" else world.closed.add)(name)
        self._connect()
        self._rename(text)
        if found := re.search(r"DROP DATABASE IF EXISTS (\w+)", text):
            databases.pop(found[1], None)
            world.closed.discard(found[1])
        if found := re.search(r"CREATE DATABASE (\w+) TEMPLATE (\w+)", text):
            self._nobody_is_connected(found[2])
            databases[found[1]] = dict(databases[found[2]])
        elif found := re.search(r"CREATE DATABASE (\w+) OWNER", text):
            databases[found[1]] = {"revision": ""}
        elif text == "SELECT datname FROM pg_database":
            return "\n".join(databases)
        elif text.startswith("SELECT pg_database_size"):
            return "1000000"
        elif "task_instance ti" in text:
            return world.tasks.pop(0) if world.tasks else ""
        elif "RETURNING dag_id" in text:
            return "team-dag\nweather-checker"
        elif "alembic_version" in text:
            return databases[database]["revision"]
        return ""

    def _rename(self, text: str) -> None:
        """All of a transaction's renames, or none."""
        world, renamed = self.world, dict(self.world.databases)
        pairs = re.findall(r"ALTER DATABASE (\w+) RENAME TO (\w+)", text)
        for old, new in pairs:
            if new in renamed or old not in renamed:
                raise ReleaseError(f"cannot rename {old} to {new}")
            self._nobody_is_connected(old)
            renamed[new] = renamed.pop(old)
        if not pairs:
            return
        world.databases.clear()
        world.databases.update(renamed)
        world.closed -= {old for old, _ in pairs}
        for name, allowed in re.findall(r"ALTER DATABASE (\w+) ALLOW_CONNECTIONS (\w+)", text):
            (world.closed.discard if allowed == "true" else world.closed.add)(name)

    def _nobody_is_connected(self, database: str) -> None:
        """Postgres neither renames a database nor takes it for a template while somebody uses it."""
        if users := sorted(one for one, to in self.world.sessions.items() if to == database):
            raise ReleaseError(f"database {database} is being accessed by other users: {', '.join(users)}")

    def _connect(self) -> None:
        """Have every client that runs connected to its database, if that takes it."""
        world = self.world
        service_file = self.releases / "database/pg_service.conf"
        pointed = service_file.read_text().partition("dbname=")[2].strip() if service_file.exists() else ""
        world.sessions = {one: to for one, to in world.sessions.items() if one in world.running}
        for client in self._clients():
            wanted = pointed if client == STANDBY else "airflow"
            if client in world.running and wanted in world.databases and wanted not in world.closed:
                world.sessions.setdefault(client, wanted)

    def _clients(self) -> set[str]:
        """Return what connects to its database while it runs: what is on the network with it."""
        known = {**self._services(self.next), **self._services(self.directory)}
        networks = {name: service.get("networks") or () for name, service in known.items()}
        return {name for name, reached in networks.items() if "database" in reached} - {"postgres"}

    def _services(self, project: Path) -> dict[str, Any]:
        """Return the services of the release whose files these are."""
        file = project / "docker-compose.yaml"
        return _parse(file.read_text()) if file.exists() else {}

    def wanted(self, project: Path | None = None) -> list[str]:
        """Return the services that should run."""
        services = self._services(project or self.directory)
        return [name for name, service in services.items() if not service.get("profiles")]

    def _version(self, project: Path) -> str:
        return read_environment((project / ".env").read_text())["AIRFLOW_VERSION"]

    def _up(self, project: Path, services: list[str], command: list[str]) -> str:
        version = self._version(project)
        self._known(project, services)
        services = services or self.wanted(project)
        for service in services:
            if service not in self.world.running or "--no-recreate" not in command:
                self.world.running[service] = version
        ill = self.world.ill.get(version, set()) & set(services)
        if ill and "--wait" in command:
            raise ReleaseError(f"{', '.join(sorted(ill))} is unhealthy")
        return ""

    def _known(self, project: Path, services: list[str]) -> None:
        """Compose works on the services of the project that it is given, whatever else runs."""
        if unknown := set(services) - self._services(project).keys():
            raise ReleaseError(f"no such service: {', '.join(sorted(unknown))}")

    def _stop(self, project: Path, services: list[str], command: list[str]) -> str:
        self._known(project, services)
        for service in services:
            self.world.running.pop(service, None)
        return ""

    def _rm(self, project: Path, services: list[str], command: list[str]) -> str:
        return self._stop(project, services, command)

    def _run(self, project: Path, services: list[str], command: list[str]) -> str:
        if "check-fernet" in command:
            return "2 of 2 encrypted values can be decrypted"
        if services[0] != "airflow-init-next":
            raise AssertionError("the live database was migrated")
        version = self._version(project)
        pointed = (self.releases / "database/pg_service.conf").read_text().partition("dbname=")[2].strip()
        if self.world.databases[pointed] is self.world.databases.get("airflow"):
            raise AssertionError("the live database was migrated")
        self.world.databases[pointed]["revision"] = f"schema-of-{version}"
        return ""

    def _exec(self, project: Path, services: list[str], command: list[str]) -> str:
        if services[0] not in self.world.running:
            raise ReleaseError(f"{services[0]} does not run")
        if "pg_restore" in command:
            self.world.databases[command[-1].partition("=")[2]]["revision"] = "schema-of-a-backup"
        self.world.servers.update(re.findall(r"set server airflow/(\w+) state (\w+)", command[-1]))
        if "show info" in command[-1]:
            return f"Pid: {sum('kill -HUP' in line for line in self.world.commands)}"
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
        health = {
            name: "unhealthy" if name in self.world.ill.get(version, set()) else "healthy"
            for name, version in running.items()
        }
        return "\n".join(f"{name} {'running ' if 'State' in form else ''}{health[name]}" for name in running)

    def _config(self, project: Path, services: list[str], command: list[str]) -> str:
        profiles = [word.partition("=")[2] for word in command if word.startswith("--profile=")]
        return json.dumps(compose_project.enabled({"services": self._services(project)}, profiles))

    def _logs(self, project: Path, services: list[str], command: list[str]) -> str:
        return "log"
