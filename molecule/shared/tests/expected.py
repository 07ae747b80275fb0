"""What the platform promises of each service: the table that the tests compare the running host with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests import compose_project, endpoints

DIRECTORY = "/srv/airflow"
BACKUPS = "/var/backups/airflow"
METRICS_TOKEN_FILE = f"{DIRECTORY}/webhook/metrics_token"
PROJECT = "airflow"

ENDPOINT_LIST: list[dict[str, Any]] = endpoints.ENDPOINTS
ENDPOINTS: dict[str, int] = {endpoint["name"]: endpoint["port"] for endpoint in ENDPOINT_LIST}
"""The ports that HAProxy publishes on the host."""

WORKERS: dict[str, list[str]] = compose_project.workers(compose_project.project())
"""Each worker of the Compose template, with the queues that it consumes."""

DAG = "weather-checker"
CAMERA_TITLE = "38th & Duval"

CODE = {
    (f"{DIRECTORY}/trees", "/opt/airflow/trees", "read-only"),
    (f"{DIRECTORY}/plugins", "/opt/airflow/plugins", "read-only"),
    (f"{DIRECTORY}/logs", "/opt/airflow/logs", "writable"),
}
STORES = {"postgres": "service_healthy", "redis": "service_healthy"}
AIRFLOW_SECRETS = {"Fernet key", "webserver key", "Postgres password", "Redis password"}


@dataclass(frozen=True)
class Service:
    """A service's privileges. Everything that is not named here it must not have."""

    networks: set[str]
    uid: int | None
    """The user id of its first process; None for AIRFLOW_UID, which the inventory chooses."""
    secrets: set[str]
    mounts: set[tuple[str, str, str]]
    """Host directory or volume, place in the container, read-only or writable."""
    read_only: bool
    """Whether the container's own file system is."""
    depends_on: dict[str, str]
    stop_seconds: int | None = None
    """How long it may take to stop; None for Docker's own ten seconds."""


SERVICES = {
    "airflow-webserver": Service({"edge-airflow", "database"}, None, AIRFLOW_SECRETS, CODE, False, STORES),
    "airflow-scheduler": Service(
        {"database", "broker", "outside"}, None, AIRFLOW_SECRETS | {"Slack's address"}, CODE, False, STORES
    ),
    "airflow-triggerer": Service(
        {"database", "broker", "outside"}, None, AIRFLOW_SECRETS, CODE, False, STORES
    ),
    "airflow-worker": Service(
        {"database", "broker", "outside"},
        None,
        AIRFLOW_SECRETS | {"tasks' 1Password token", "Slack's address", "registry's password"},
        CODE
        | {
            ("airflow_docker_proxy", "/run/docker-proxy", "writable"),
            ("airflow_weather", "/opt/airflow/weather", "writable"),
        },
        False,
        STORES | {"docker-socket-proxy": "service_healthy"},
        600,
    ),
    "flower": Service(
        {"edge-flower", "broker"},
        None,
        {"Redis password", "Flower password"},
        set(),
        False,
        {"redis": "service_healthy"},
    ),
    "postgres": Service(
        {"database"},
        999,
        {"Postgres password"},
        {("airflow_postgres_data", "/var/lib/postgresql/data", "writable")},
        False,
        {},
        60,
    ),
    "redis": Service(
        {"broker"}, 999, {"Redis password"}, {("airflow_redis_data", "/data", "writable")}, True, {}, 30
    ),
    "haproxy": Service(
        {"public", "edge-airflow", "edge-webhook", "edge-flower", "edge-weather"},
        99,
        set(),
        {(f"{DIRECTORY}/haproxy", "/usr/local/etc/haproxy", "read-only")},
        True,
        {},
        30,
    ),
    "webhook": Service(
        {"edge-webhook", "edge-airflow", "outside"},
        50001,
        {"platform's 1Password token", "Slack's address"},
        {
            (f"{DIRECTORY}/trees", f"{DIRECTORY}/trees", "writable"),
            (f"{DIRECTORY}/delivery", f"{DIRECTORY}/delivery", "writable"),
            (f"{DIRECTORY}/webhook", "/etc/webhook", "read-only"),
            (f"{DIRECTORY}/status", "/run/status", "read-only"),
            ("airflow_gate", "/run/gate", "read-only"),
        },
        True,
        {},
        30,
    ),
    "gate": Service(
        {"none"},
        None,
        set(),
        {
            (f"{DIRECTORY}/trees", f"{DIRECTORY}/trees", "read-only"),
            (f"{DIRECTORY}/plugins", "/opt/airflow/plugins", "read-only"),
            ("airflow_gate", "/run/gate", "writable"),
        },
        True,
        {},
    ),
    "weather": Service(
        {"edge-weather"},
        101,
        set(),
        {
            (f"{DIRECTORY}/weather", "/etc/weather", "read-only"),
            ("airflow_weather", "/srv/weather", "read-only"),
        },
        True,
        {},
    ),
    "docker-socket-proxy": Service(
        {"none"},
        0,
        set(),
        {
            (f"{DIRECTORY}/docker-socket-proxy", "/etc/docker-policy", "read-only"),
            ("airflow_docker_proxy", "/run/docker-proxy", "writable"),
            ("/var/run/docker.sock", "/var/run/docker.sock", "writable"),
        },
        True,
        {},
    ),
}

PUBLISHED = [endpoint["service"].partition(":")[0] for endpoint in ENDPOINT_LIST]
"""The services behind HAProxy. Each shares a network with it that no other service is on."""

LISTENS = {
    "airflow-webserver": 8080,
    "webhook": 8080,
    "flower": 5555,
    "weather": 8080,
    "postgres": 5432,
    "redis": 6379,
    "airflow-scheduler": 8974,
    "airflow-worker": 8793,
}
"""A port of each service that somebody might want to reach."""

AIRFLOW_SERVICES = [name for name in SERVICES if name.startswith("airflow-")]

SECRETS: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "Fernet key": ("airflow.env", "AIRFLOW__CORE__FERNET_KEY", str),
    "webserver key": ("airflow.env", "AIRFLOW__WEBSERVER__SECRET_KEY", str),
    "Postgres password": ("postgres.env", "POSTGRES_PASSWORD", str),
    "Redis password": ("redis.env", "REDISCLI_AUTH", str),
    "Flower password": ("flower.env", "FLOWER_BASIC_AUTH", lambda login: login.partition(":")[2]),
    "administrator's password": ("init.env", "_AIRFLOW_WWW_USER_PASSWORD", str),
    "smoke test's password": (
        "init.env",
        "ACCOUNTS",
        lambda text: str(json.loads(text)["smoke_test"]["password"]),
    ),
    "tasks' 1Password token": ("onepassword.env", "OP_API_TOKEN", str),
    "platform's 1Password token": ("webhook.env", "OP_API_TOKEN", str),
    "Slack's address": ("slack.env", "AIRFLOW_CONN_SLACK", lambda text: str(json.loads(text)["password"])),
    "registry's password": (
        "onepassword.env",
        "AIRFLOW_CONN_DOCKER_DEFAULT",
        lambda text: str(json.loads(text)["password"]),
    ),
    "heartbeat's address": ("checker.env", "HEARTBEAT_URL", str),
}
"""Where on the host each secret is: the file below env/, the variable, and how to take it from the value."""

VARIABLES = {
    "ENVIRONMENT": {*AIRFLOW_SERVICES, "webhook", "gate"},
    "OP_CONNECT": {"airflow-worker", "webhook"},
    "OP_API_TOKEN": {"airflow-worker", "webhook"},
    "OP_VAULT_ID": {"airflow-worker", "webhook"},
    "AIRFLOW__SECRETS__BACKEND": {"airflow-worker"},
    "AIRFLOW__CORE__XCOM_BACKEND": set(AIRFLOW_SERVICES),
    "AIRFLOW_CONN_SLACK": {"airflow-worker", "airflow-scheduler"},
    "AIRFLOW_CONN_DOCKER_DEFAULT": {"airflow-worker"},
    "HEARTBEAT_URL": set(),
    "_AIRFLOW_WWW_USER_USERNAME": set(),
    "_AIRFLOW_WWW_USER_PASSWORD": set(),
    "ACCOUNTS": set(),
    "AIRFLOW__CORE__FERNET_KEY": set(AIRFLOW_SERVICES),
    "FLOWER_BASIC_AUTH": {"flower"},
    "POSTGRES_PASSWORD": {"postgres"},
    "REDISCLI_AUTH": {"redis"},
}
"""Which services see a variable of this name. A second worker belongs into each row of `airflow-worker`."""
