"""What the role `airflow_checker` tells about the host, in a file, and the secrets of its unit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airflow_checker.facts import Facts
from airflow_checker.roles import POSTGRES

FILE = Path("/etc/airflow-checker/settings.json")


class SettingsError(Exception):
    """The settings cannot be understood."""


@dataclass(frozen=True)
class Settings:
    """Where things are, and what is never restarted; each field has its default."""

    directory: Path = Path("/srv/airflow")
    backups: Path = Path("/var/backups/airflow")
    state: Path = Path("/var/lib/airflow-checker")
    runtime: Path = Path("/run/airflow-checker")
    environment: str = ""
    host: str = ""
    status_page: str = ""
    backup_remote: bool = False
    disk_low_percent: float = Facts.disk_low_percent
    disk_full_percent: float = Facts.disk_full_percent
    never_restart: tuple[str, ...] = (POSTGRES,)
    worker_queues: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The queues of each worker host of which the webhook does not tell."""
    profiles: tuple[str, ...] = ()
    """The profiles of the Compose project whose services should run on this host."""
    slack: str = ""
    """The address of Slack's incoming webhook, a secret; "" for no messages."""
    heartbeat: str = ""
    """The address that is called while all is well, a secret; "" for none."""

    @property
    def health(self) -> Path:
        """The file that the status page reads."""
        return self.directory / "status/health.json"

    @property
    def memory(self) -> Path:
        """What is remembered from one run to the next."""
        return self.state / "memory.json"

    @property
    def spare_memory(self) -> Path:
        """The same while the disk takes no file, until the host goes down."""
        return self.runtime / "memory.json"

    @property
    def rendered(self) -> Path:
        """The hashes of the host's files as they were rendered."""
        return self.state / "rendered.json"


def load(path: Path = FILE, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; the two addresses come from the environment, where the unit has put them.

    Raises:
        SettingsError: the file cannot be understood.
    """
    slack, heartbeat = (environ.get(name, "").strip() for name in ("SLACK_WEBHOOK_URL", "HEARTBEAT_URL"))
    try:
        values = json.loads(path.read_text())
        return Settings(
            directory=Path(values["directory"]),
            backups=Path(values["backups"]),
            environment=str(values["environment"]),
            host=str(values["host"]),
            status_page=str(values["status_page"]),
            backup_remote=bool(values["backup_remote"]),
            # Written since they are settings.
            disk_low_percent=float(values.get("disk_low_percent", Settings.disk_low_percent)),
            disk_full_percent=float(values.get("disk_full_percent", Settings.disk_full_percent)),
            never_restart=tuple(values["never_restart"]),
            # Written only where there are such hosts.
            worker_queues={
                str(name): frozenset(map(str, queues))
                for name, queues in values.get("worker_queues", {}).items()
            },
            # Written only on a worker host.
            profiles=tuple(map(str, values.get("profiles", ()))),
            slack=slack,
            heartbeat=heartbeat,
        )
    except FileNotFoundError:
        return Settings(slack=slack, heartbeat=heartbeat)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be understood ({error}); run site.yml") from error
