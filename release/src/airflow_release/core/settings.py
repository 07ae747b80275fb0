"""What the role `airflow_release` tells about the host, in /etc/airflow-release/settings.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from airflow_release.core.errors import ReleaseError

SETTINGS_FILE = Path("/etc/airflow-release/settings.json")


@dataclass(frozen=True)
class Settings:
    """What is kept how long and where else, and host names. Without the file the values here count."""

    keep_days: int = 14
    keep_count: int = 7
    remote: str = ""
    """Where bundles are copied to, as rclone writes it (`name:path`); "" for nowhere."""
    remote_config: Path = Path("/etc/airflow-release/rclone.conf")
    proxies: dict[str, str] = field(default_factory=dict)
    """By which rclone reaches that place, as environment variables."""
    fernet_key: dict[str, str] = field(default_factory=dict)
    """Where the Fernet key is kept: the 1Password `vault`, `item` and `field`. Never the key."""
    host: str = ""
    """The inventory's name of this host, which its backups bear; "" for the name that it has itself."""
    environment: str = ""
    """Which the backups bear, too; "" for that of the platform's `.env`."""
    disk_full_percent: int = 5
    """No backup begins that would leave less of its disk free; the checker then shows `disk-full`, too."""
    hostnames: list[str] = field(default_factory=list)
    """The names for which a certificate has to be good; none without host names."""
    history_days: int = 90
    """Days for which runs, tasks and what belongs to them stay in the metadata database."""
    log_days: int = 90
    log_percent: int = 20
    """How much of their disk tasks' logs may take."""
    scheduler_log_days: int = 90
    scheduler_log_percent: int = 5
    """How much of their disk the logs of the scheduler and its DAG processor may take."""
    container_log_days: int = 90
    container_log_percent: int = 5
    """How much of Docker's disk the logs that it has rotated may take."""
    image_days: int = 30
    """Days for which images and build cache stay that nothing needs."""
    database_days: int = 30
    """Days for which databases stay that an operation left."""
    free_percent: int = 15
    """While less of Docker's disk is free, what nothing needs goes before its days are over."""


CLEAN = {one.name for one in fields(Settings) if one.name.endswith(("_days", "_percent"))} - {
    "keep_days",
    "disk_full_percent",
}


def load(path: Path = SETTINGS_FILE) -> Settings:
    """Read the settings; a file that is not there leaves all as it is without.

    Raises:
        ReleaseError: the file cannot be understood.
    """
    if not path.exists():
        return Settings()
    try:
        values = json.loads(path.read_text())
        return Settings(
            keep_days=int(values["keep_days"]),
            keep_count=int(values["keep_count"]),
            remote=values["remote"],
            remote_config=path.with_name("rclone.conf"),
            fernet_key=values["fernet_key"],
            # Written since it has a way through a proxy.
            proxies=dict(values.get("proxies", {})),
            # Written since two hosts may share a remote.
            host=str(values.get("host", "")),
            environment=str(values.get("environment", "")),
            # Written since it is a setting.
            disk_full_percent=int(values.get("disk_full_percent", Settings.disk_full_percent)),
            # Written since a certificate can be dropped.
            hostnames=[str(name) for name in values.get("hostnames", [])],
            **{name: int(value) for name, value in values.get("clean", {}).items() if name in CLEAN},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{path} cannot be understood ({error}); run site.yml") from error
