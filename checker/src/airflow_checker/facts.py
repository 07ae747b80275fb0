"""What was observed at one moment. Whatever could not be observed is None, and says why in `Facts.gaps`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_checker import roles

OUTCOME_HOURS = 24
"""For so many hours the outcomes of tasks are counted, the one that is not over included."""


@dataclass(frozen=True)
class Container:
    """A container of the platform; times are in seconds since the epoch."""

    service: str
    id: str = ""
    image: str = ""
    state: str = "running"
    """Docker's word: created, running, paused, restarting, removing, exited or dead."""
    health: str = "healthy"
    """Docker's word: starting, healthy or unhealthy; "" without a health check."""
    failing: int = 0
    """How often the health check failed in a row."""
    said: str = ""
    """What the last failed check printed."""
    started: float = 0.0
    finished: float = 0.0
    restarts: int = 0
    """How often Docker has started it again by itself."""
    memory: int = 0
    """The most bytes that it may have; 0 for no limit."""
    out_of_memory: bool = False
    """Whether the kernel ended a process of it for want of memory since it was started."""
    addresses: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    """Only what `gather.docker` names; never a secret."""
    labels: dict[str, str] = field(default_factory=dict)
    """As `environment`."""

    @property
    def role(self) -> str:
        """Return what it does for Airflow."""
        return roles.role(self.service, self.labels)


@dataclass(frozen=True)
class Service:
    """A service of the Compose project."""

    image: str
    role: str


@dataclass(frozen=True)
class Unit:
    """A unit of systemd, in its own words (systemctl(1), show)."""

    name: str
    load: str = "loaded"
    active: str = "active"
    sub: str = "running"
    result: str = "success"
    enabled: str = "enabled"
    next: float = 0.0
    """When a timer elapses next, in seconds since the epoch; 0 when systemd names no time."""
    restarts: int = 0
    """How often systemd has started it again by itself since somebody started it (NRestarts)."""
    last: float = 0.0
    """When a timer elapsed last; 0 when it has not since the host's start."""
    started: float = 0.0
    """When it became active last; 0 when it has not since the host's start."""


@dataclass(frozen=True)
class Disk:
    """A file system, in bytes and inodes."""

    path: str
    size: int
    free: int
    """What programs other than root's may still use."""
    inodes: int = 0
    """0 where the file system has no fixed number."""
    inodes_free: int = 0


@dataclass(frozen=True)
class Database:
    """What Airflow's own tables say; ages are in seconds, None where there is nothing to be old."""

    size: int = 0
    scheduler_age: float | None = 0.0
    triggerer_age: float | None = 0.0
    parsed_age: float | None = 0.0
    """Since any DAG file was parsed; None when there is no active DAG."""
    running: int = 0
    running_on: dict[str, int] = field(default_factory=dict)
    """By host name, as tasks know it: how many of those run there."""
    queued: int = 0
    oldest_queued: dict[str, float] = field(default_factory=dict)
    """By queue: for how long its oldest task has been queued."""
    oldest_tasks: dict[str, list[str]] = field(default_factory=dict)
    """By queue: the DAG and the name of that task."""
    overdue: dict[str, float] = field(default_factory=dict)
    """By DAG: how long ago its next run should have been created."""


@dataclass(frozen=True)
class Hour:
    """The tasks that ended within one hour."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    """How long they ran, all together."""
    longest: float = 0.0
    """How long the longest of them ran, in seconds."""


@dataclass(frozen=True)
class Connect:
    """1Password Connect, as tasks know it."""

    status: int = 200
    """The HTTP status of a call with the token; 0 for no answer."""
    said: str = ""
    clock: float | None = None
    """Connect's time minus this host's, in seconds."""
    token_ends: float | None = None
    """When the first of the two tokens ends."""
    reads_platform: bool = False
    """Whether the tasks' token reads the vault with the platform's own secrets."""
    platform_status: int = 200
    """The HTTP status of the same call with the webhook's token for the platform's vault."""
    last_given: float | None = None
    """When the vault last gave the platform its secrets, in seconds since the epoch; None if unknown."""


@dataclass(frozen=True)
class Told:
    """Something that is wrong by the webhook's own account."""

    light: str
    what: str
    """One plain sentence."""


@dataclass(frozen=True)
class WorkerHost:
    """A host of the inventory's group `airflow_workers`, as the webhook knows it."""

    name: str
    state: str = "live"
    """One of `gather.webhook.STATES`."""
    release: str = ""
    """What it said last, "" for nothing yet, as for the next three."""
    commit: str = ""
    queues: tuple[str, ...] = ()
    slots: int = 0
    heard_seconds_ago: float | None = 0.0
    """None while it has not been heard since the webhook was started."""

    @property
    def takes_tasks(self) -> bool:
        """Say whether it is heard and not cut off from the broker."""
        return self.state in ("live", "preparing")


@dataclass(frozen=True)
class Said:
    """The webhook's answer."""

    lights: list[Told] = field(default_factory=list)
    workers: list[WorkerHost] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """One observation of the host. `now` is in seconds since the epoch."""

    now: float
    docker: bool = True
    live_restore: bool | None = None
    """Whether containers outlive Docker, by its own account."""
    services: dict[str, Service] | None = None
    """What the Compose project wants running, by name."""
    containers: dict[str, Container] = field(default_factory=dict)
    out_of_memory: dict[str, float] = field(default_factory=dict)
    """By service: when the kernel last ended a process of it for want of memory."""
    units: list[Unit] = field(default_factory=list)
    boot: str = ""
    """What tells this boot of the host from every other, "" for unknown."""
    told_to_stop: float = 0.0
    """When the platform was last told to stop, in seconds since the epoch; 0 for never."""
    operation: dict[str, Any] = field(default_factory=dict)
    """releases/operation.json; {} where there never was one."""
    stopped: bool = False
    """Whether the platform was stopped on purpose."""
    drained: float | None = None
    """On a worker host: when its worker was last told to take no more tasks, 0 for never; None while the main
    host does not say."""
    tasks: int | None = None
    """On a worker host whose worker is unhealthy: how many tasks run there; None for unknown."""
    database: Database | None = None
    outcomes: dict[int, Hour] | None = None
    """The tasks that ended, by the start of the hour in seconds since the epoch; an hour without any may be
    absent."""
    queues: dict[str, int] | None = None
    """By queue: the messages that wait in Redis."""
    refusals: dict[str, int] | None = None
    """By field: the requests of DAGs to Docker that were refused since their filter was started."""
    webhook: list[Told] = field(default_factory=list)
    """What the webhook says is wrong."""
    worker_hosts: list[WorkerHost] | None = None
    """None while the webhook does not say."""
    worker_queues: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By worker host of which the webhook never tells: its queues, by the inventory's word."""
    disks: list[Disk] = field(default_factory=list)
    disk_low_percent: float = 10
    """A disk with less free is low, and with less than the next one full; the inventory sets both."""
    disk_full_percent: float = 5
    certificate_ends: float | None = None
    worker_certificate_ends: float | None = None
    """Of this host's certificate for what goes between the main host and worker hosts."""
    connect: Connect | None = None
    clock_synchronised: bool | None = None
    reboot_required: bool = False
    security_updates: int | None = None
    backup: dict[str, Any] | None = None
    """status/backup.json; {} when it cannot be read."""
    backup_remote: bool = False
    clean: dict[str, Any] | None = None
    """status/clean.json; {} when there was no clean-up yet, or it cannot be read."""
    certificate_refused: str = ""
    """Why the certificate that was dropped on the host is not served, "" where none waits."""
    changed_files: list[str] = field(default_factory=list)
    version: str = ""
    """The Airflow version that the files on the host name."""
    release: str = ""
    """The name under which worker hosts know the release that the files on the host name."""
    recorded_version: str = ""
    """That of the newest recorded release, "" where there is none."""
    asked_version: str = ""
    """That of the inventory, "" where nobody has told."""
    dag_commit: str = ""
    """The commit whose DAGs are live, "" where they come from no repository."""
    gaps: dict[str, str] = field(default_factory=dict)
    """What could not be looked at, and why."""

    def has(self, role: str) -> bool:
        """Say whether a service has this role; those that run count while it is unknown what should run."""
        known: Iterable[Service | Container] = (
            self.containers.values() if self.services is None else self.services.values()
        )
        return role in {one.role for one in known}

    def wanted(self, role: str) -> list[str]:
        """Return the services that should run and have this role; [] where it is unknown what should run."""
        return sorted(name for name, service in (self.services or {}).items() if service.role == role)
