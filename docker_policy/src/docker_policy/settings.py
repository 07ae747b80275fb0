"""What the filter is told from outside: one JSON file, which Ansible renders from the inventory."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from docker_policy.images import Images, registry

OWNER_LABEL = "airflow.dag-container"
"""The label of every container that was made through the filter, and of no other."""

MAKERS_LABEL = "airflow.made-by"
"""The label that says which containers may have made one of a DAG's (orphans.py)."""

TASK_LABEL = "airflow.task"
"""The label with `<DAG>/<task>`, as the worker said it: for people, and for the log."""

LABELS = {OWNER_LABEL: "true", "com.docker.compose.project": "airflow-dags"}
"""What each gets. They win over an image's labels: with the platform's own Compose project there, Compose
would take the container for one of its services."""

MIB = 2**20
LOWEST_MEMORY = 6 * MIB
"""Docker takes no less."""


class SettingsError(Exception):
    """The file is unusable; the message names the key."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of it. Sizes are in MiB."""

    images: tuple[str, ...]  # dag_container_images
    volumes: tuple[str, ...]  # dag_container_volumes
    registries: tuple[str, ...]  # dag_container_registries
    memory_mib: int  # dag_container_memory_mib
    cpus: int  # dag_container_cpus
    pids: int  # dag_container_pids
    no_new_privileges: bool = True  # dag_container_no_new_privileges
    cgroup_parent: str = ""  # a slice of systemd; empty is Docker's own place
    log_max_size_mib: int = 10
    log_max_files: int = 5
    reserved_names: tuple[str, ...] = ()
    """What no container's name may begin with: the names of the platform's own."""
    socket: Path = field(default=Path("/run/docker-proxy/docker.sock"))
    status_socket: Path = field(default=Path("/run/docker-policy/status.sock"))
    docker_socket: Path = field(default=Path("/var/run/docker.sock"))
    connections: int = 200


class File:
    """The file, which Ansible may replace while the filter runs."""

    def __init__(self, path: Path) -> None:
        """Take its path; nothing is read yet."""
        self.path = path
        self._seen: tuple[int, ...] = ()

    def read(self) -> Settings:
        """Read it, and remember which one it was.

        Raises:
            SettingsError: it cannot be read, or has a key too many, a key too few or a value of another form.
        """
        self._seen = self._identity()
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self.path}: {error}") from None
        return from_document(document)

    def is_another(self) -> bool:
        """Tell whether it was replaced or changed since it was read."""
        return self._identity() not in (self._seen, ())

    def _identity(self) -> tuple[int, ...]:
        try:
            status = self.path.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_mtime_ns, status.st_size


def from_document(document: Any) -> Settings:
    """Return the settings of a decoded file.

    Raises:
        SettingsError: as for `File.read`.
    """
    if not isinstance(document, dict):
        raise SettingsError("an object is expected")
    known = {each.name: str(each.type) for each in fields(Settings)}
    values: dict[str, Any] = {}
    for name, value in document.items():
        values[name] = _typed(name, known.get(name, ""), value)
    try:
        settings = Settings(**values)
        Images(settings.images, "images")
    except (TypeError, ValueError) as error:
        raise SettingsError(str(error)) from None
    unknown = [each for each in settings.registries if not registry(each)]
    if unknown:
        raise SettingsError(f"registries: {unknown} are no names of hosts")
    return settings


def _typed(name: str, kind: str, value: Any) -> Any:
    if "tuple" in kind and isinstance(value, list) and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    if kind == str(str) and isinstance(value, str):
        return value
    if "bool" in kind and isinstance(value, bool):
        return value
    if "int" in kind and isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if "Path" in kind and isinstance(value, str) and value.startswith("/"):
        return Path(value)
    raise SettingsError(f"{name}: {value!r} is not what is expected" if kind else f"{name} is no setting")
