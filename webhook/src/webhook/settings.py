"""What the package is told from outside: environment variables into one frozen dataclass.

Nothing else in the package reads the environment. Times are in seconds, sizes in bytes unless a name says
otherwise.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# As in an inventory. A name becomes a part of commands for the gateway.
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SettingsError(Exception):
    """An environment variable is missing or unusable; the message names it and the form it takes."""


@dataclass(frozen=True, kw_only=True)
class ConnectSettings:
    """Where the webhook key lives in 1Password."""

    url: str
    token: str
    vault: str
    item: str
    field: str  # "section.label"


@dataclass(frozen=True, kw_only=True)
class RepositorySettings:
    """Which branch of which repository is live, and how it is reached."""

    url: str
    branch: str
    deploy_key: Path | None
    known_hosts: Path | None
    timeout: float  # for which the remote may be silent
    retry_pause: float = 1  # before a fetch is tried again, for the first time


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of it. Made by `from_environment`, or field by field in tests."""

    environment: str
    trees_dir: Path  # `current` and the worktrees: what Airflow and the gate mount, read-only
    state_dir: Path  # mirror, state file, key cache, job store: nobody else's
    repository: RepositorySettings | None = None
    connect: ConnectSettings | None = None
    relay_token_file: Path | None = None
    metrics_token_file: Path | None = None
    airflow_url: str = "http://airflow-webserver:8080"
    gate_socket: Path | None = None
    gate_timeout: float = 300
    dags_folder: str = "dags"
    requirements_file: str = "images/airflow/requirements.txt"
    blob_limit: int = 100 * 2**20
    keep_trees_seconds: float = 86_400
    keep_trees_count: int = 3
    # Percentages of free disk, as for the checker's lights disk-low and disk-full: below the first no tree is
    # kept that no task can be reading, below the second none is made. Postgres needs the rest.
    disk_low_percent: float = 10
    disk_full_percent: float = 5
    lock_timeout: float = 300
    body_limit: int = 16 * 2**10
    signature_window: float = 300
    failures_per_minute: int = 30
    converged_commit_file: Path | None = None
    health_file: Path | None = None  # what the host's checker found
    backup_state_file: Path | None = None  # what the host's backups say of themselves
    github_api: str = "https://api.github.com"
    github_repository: str | None = None  # "owner/name"
    github_token: str | None = None
    slack_webhook_url: str | None = None
    status_page_url: str | None = None
    workers: tuple[str, ...] = ()  # the names of the worker hosts
    worker_gateway_socket: Path | None = None  # the admin socket of their gateway
    # For which a commit waits for workers that prepare it.
    worker_prepare_seconds: float = 10

    @property
    def worker_socket(self) -> Path:
        """Return where a sync, of whichever process, finds the coordinator of the workers."""
        return self.state_dir / "workers.sock"

    @property
    def is_production(self) -> bool:
        """Only production takes calls; every other environment answers that it skipped them."""
        return self.environment == "production"


def github_repository_of(url: str) -> str | None:
    """Return "owner/name" for a repository URL that ends in it, or None.

    >>> github_repository_of("git@github.com:cityofaustin/atd-airflow.git")
    'cityofaustin/atd-airflow'
    """
    match = re.search(r"[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", url)
    return match.group(1) if match else None


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment.

    Raises:
        SettingsError: a required variable is absent, or a value has the wrong form.
    """
    read = _Reader(environ)
    environment = read.text("ENVIRONMENT")
    url = read.optional("DAG_REPOSITORY")
    return Settings(
        environment=environment,
        trees_dir=Path(read.text("DAG_TREES_DIR")),
        state_dir=Path(read.text("DAG_STATE_DIR")),
        repository=None
        if url is None
        else RepositorySettings(
            url=url,
            branch=read.text("DAG_BRANCH", "production"),
            deploy_key=read.path("DAG_DEPLOY_KEY_FILE"),
            known_hosts=read.path("DAG_KNOWN_HOSTS_FILE"),
            timeout=read.number("DAG_GIT_TIMEOUT_SECONDS", 120),
        ),
        connect=connect_from_environment(environ) if read.optional("OP_CONNECT") else None,
        relay_token_file=read.path("RELAY_TOKEN_FILE"),
        metrics_token_file=read.path("METRICS_TOKEN_FILE"),
        airflow_url=read.text("AIRFLOW_URL", Settings.airflow_url).rstrip("/"),
        gate_socket=read.path("GATE_SOCKET"),
        gate_timeout=read.number("GATE_TIMEOUT_SECONDS", Settings.gate_timeout),
        dags_folder=read.text("DAG_FOLDER", Settings.dags_folder).strip("/"),
        requirements_file=read.text("DAG_REQUIREMENTS_FILE", Settings.requirements_file),
        blob_limit=int(read.number("DAG_BLOB_LIMIT_MIB", Settings.blob_limit / 2**20) * 2**20),
        keep_trees_seconds=read.number("DAG_KEEP_TREES_SECONDS", Settings.keep_trees_seconds),
        keep_trees_count=int(read.number("DAG_KEEP_TREES_COUNT", Settings.keep_trees_count)),
        disk_low_percent=read.number("DAG_DISK_LOW_PERCENT", Settings.disk_low_percent),
        disk_full_percent=read.number("DAG_DISK_FULL_PERCENT", Settings.disk_full_percent),
        lock_timeout=read.number("DAG_LOCK_TIMEOUT_SECONDS", Settings.lock_timeout),
        body_limit=int(read.number("WEBHOOK_BODY_LIMIT_KIB", Settings.body_limit / 2**10) * 2**10),
        signature_window=read.number("WEBHOOK_SIGNATURE_WINDOW_SECONDS", Settings.signature_window),
        failures_per_minute=int(read.number("WEBHOOK_FAILURES_PER_MINUTE", Settings.failures_per_minute)),
        converged_commit_file=read.path("CONVERGED_COMMIT_FILE"),
        health_file=read.path("HEALTH_FILE"),
        backup_state_file=read.path("BACKUP_STATE_FILE"),
        github_api=read.text("GITHUB_API_URL", Settings.github_api).rstrip("/"),
        github_repository=read.optional("GITHUB_REPOSITORY") or (github_repository_of(url) if url else None),
        github_token=read.optional("GITHUB_STATUS_TOKEN"),
        slack_webhook_url=read.optional("SLACK_WEBHOOK_URL"),
        status_page_url=read.optional("STATUS_PAGE_URL"),
        workers=workers_from_environment(environ),
        worker_gateway_socket=_gateway_socket(environ),
        worker_prepare_seconds=read.number("WORKER_PREPARE_SECONDS", Settings.worker_prepare_seconds),
    )


def workers_from_environment(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Read the names of the worker hosts, which commas separate.

    Raises:
        SettingsError: something there is no name.
    """
    names = tuple(
        name.strip() for name in (_Reader(environ).optional("WORKERS") or "").split(",") if name.strip()
    )
    for name in names:
        if not _WORKER.fullmatch(name):
            raise SettingsError(f"WORKERS: {name!r} is no name of a host: letters, digits and . _ - only")
    return names


def report_socket_from_environment(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the socket on which worker hosts report, beside that of their gateway; None without any.

    Raises:
        SettingsError: there are workers and no gateway.
    """
    gateway = _gateway_socket(environ)
    return None if gateway is None else gateway.with_name("follow.sock")


def _gateway_socket(environ: Mapping[str, str]) -> Path | None:
    """Raise SettingsError where there are workers and no gateway: nobody could keep them from tasks."""
    read = _Reader(environ)
    return Path(read.text("WORKER_GATEWAY_SOCKET")) if workers_from_environment(environ) else None


@dataclass(frozen=True, kw_only=True)
class FollowerSettings:
    """What a worker host's follower is told. Its `delivery` fetches from the main host's mirror."""

    delivery: Settings
    repository: RepositorySettings
    coordinator: str  # the address of the main host's coordinator, such as http://follow:8090
    release: str
    queues: tuple[str, ...]
    slots: int


def follower_from_environment(environ: Mapping[str, str] = os.environ) -> FollowerSettings:
    """Read the follower's environment; what it has in common with the webhook's has the same names.

    Raises:
        SettingsError: a required variable is absent, or a value has the wrong form.
    """
    read = _Reader(environ)
    mirror = {"DAG_REPOSITORY": read.text("DAG_MIRROR"), "ENVIRONMENT": "worker", "WORKERS": ""}
    delivery = from_environment({**environ, **mirror})
    if delivery.repository is None:
        raise SettingsError("the environment variable DAG_MIRROR is not set")
    return FollowerSettings(
        delivery=delivery,
        repository=delivery.repository,
        coordinator=read.text("FOLLOW_URL").rstrip("/"),
        release=read.text("WORKER_RELEASE"),
        queues=tuple(name.strip() for name in read.text("WORKER_QUEUES").split(",") if name.strip()),
        slots=int(read.number("WORKER_SLOTS", 0)),
    )


def connect_from_environment(environ: Mapping[str, str]) -> ConnectSettings:
    """Read the part that says where the webhook key is.

    Raises:
        SettingsError: a variable is absent.
    """
    read = _Reader(environ)
    return ConnectSettings(
        url=read.text("OP_CONNECT"),
        token=read.text("OP_API_TOKEN"),
        vault=read.text("OP_VAULT_ID"),
        item=read.text("WEBHOOK_KEY_ITEM", "Airflow webhook"),
        field=read.text("WEBHOOK_KEY_FIELD", f"{read.text('ENVIRONMENT')}.key"),
    )


class _Reader:
    """Typed access to the variables; an empty value counts as absent, as in a rendered env file."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def optional(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, default: str | None = None) -> str:
        value = self.optional(name) or default
        if value is None:
            raise SettingsError(f"the environment variable {name} is not set")
        return value

    def path(self, name: str) -> Path | None:
        value = self.optional(name)
        return None if value is None else Path(value)

    def number(self, name: str, default: float) -> float:
        value = self.optional(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            raise SettingsError(f"{name} must be a number, not {value!r}") from None
        if not 0 <= number < float("inf"):
            raise SettingsError(f"{name} must be zero or more, not {value!r}")
        return number
