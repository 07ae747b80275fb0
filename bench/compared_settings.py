"""Makes of a host's Compose project others of the same images, with the platform's and upstream's settings.

bench/tasks and bench/footprint run them on the host that the scenario `default` leaves.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BENCH = f"bench/{Path(sys.argv[0]).name}"
INSTANCE = os.environ.get("SANDBOX_INSTANCE") or "airflow-molecule"
HOST = f"{INSTANCE}-atd-data03"
STACK = "/srv/airflow"
PROJECT = "airflow-bench"
FILES = "/var/lib/airflow-bench"
LIMIT_SECONDS = 900

INIT = "airflow-init"
MIGRATE = "airflow db migrate || airflow db upgrade"
"""The first came with 2.7, which leaves the second in place."""

UPSTREAM = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "true",
    # Upstream's file has "true": its examples would be parsed beside the DAGs that are measured.
    "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "true",
}
"""What upstream's Compose file sets, the same for all supported versions."""

KEPT = ("HOME", "USER", "ENVIRONMENT", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CELERY__RESULT_BACKEND", "AIRFLOW__CELERY__BROKER_URL")  # fmt: skip
"""What upstream's services keep of the platform's environment: where things are."""

UPSTREAM_COMMANDS = {
    "airflow-webserver": ["airflow", "webserver"],
    "airflow-scheduler": ["airflow", "scheduler"],
    "airflow-triggerer": ["airflow", "triggerer"],
    "airflow-worker": ["airflow", "celery", "worker"],
}

CGROUP = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage"

Project = dict[str, Any]


def platform_project(config: Project, names: Sequence[str]) -> Project:
    """Return the project of these services with the platform's settings, from `docker compose config`."""
    services = {name: copy.deepcopy(config["services"][name]) for name in (*names, INIT)}
    for service in services.values():
        needs = service.get("depends_on", {})
        service["depends_on"] = {name: need for name, need in needs.items() if name in services}
        service["networks"] = {name: None for name in service["networks"] if name in ("database", "broker")}
        service["volumes"] = [volume for each in service.get("volumes", []) if (volume := _own_volume(each))]
    services[INIT].update(command=["bash", "-c", MIGRATE], profiles=["init"])
    # A scheduler of another environment would pause all DAGs at its start.
    services["airflow-scheduler"]["command"] = UPSTREAM_COMMANDS["airflow-scheduler"]
    return {
        "name": PROJECT,
        "services": services,
        "networks": {name: {"internal": True} for name in ("database", "broker")},
        "volumes": {name: {} for name in ("postgres_data", "redis_data")},
    }


def upstream_project(config: Project, names: Sequence[str]) -> Project:
    """Return the same project with upstream's settings instead of the platform's."""
    project = platform_project(config, names)
    for name, service in project["services"].items():
        for limit in ("mem_limit", "pids_limit", "cpus", "deploy"):
            service.pop(limit, None)
        if name in (*UPSTREAM_COMMANDS, INIT):
            kept = {key: value for key, value in service["environment"].items() if key in KEPT}
            service["environment"] = {**kept, **UPSTREAM}
            # The image's own settings file and the modules that settings name are the platform's.
            service["tmpfs"] = [*service.get("tmpfs", []), "/opt/airflow/config", "/opt/airflow/lib"]
        if name in UPSTREAM_COMMANDS:
            service["command"] = UPSTREAM_COMMANDS[name]
            service.pop("healthcheck", None)
    project["services"]["airflow-worker"]["environment"]["DUMB_INIT_SETSID"] = "0"
    return project


def _own_volume(volume: dict[str, Any]) -> dict[str, Any] | None:
    """Return a volume as a project of the bench has it, None for one that it does not need."""
    if volume["source"] in ("postgres_data", "redis_data"):
        return volume
    folder = {"/opt/airflow/trees": "trees", "/opt/airflow/logs": "logs"}.get(volume["target"])
    return {**volume, "source": f"{FILES}/{folder}"} if folder else None


def processor_seconds(text: str) -> float:
    """Read what a cgroup has used: `cpu.stat` of version 2, or `cpuacct.usage` of version 1.

    >>> processor_seconds("usage_usec 1500000\\nuser_usec 1000000"), processor_seconds("1500000000")
    (1.5, 1.5)
    """
    words = text.split()
    return int(words[1]) / 1e6 if words[0] == "usage_usec" else int(words[0]) / 1e9


def on_host(script: str, given: str = "") -> str:
    """Run a shell script on the host, in the platform's directory; return what it printed."""
    done = subprocess.run(  # noqa: S603 - all that is run is in these files
        ["docker", "exec", "--interactive", "--workdir", STACK, HOST, "bash", "-euc", script],  # noqa: S607
        input=given,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{BENCH}: this failed on {HOST}:\n{script}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def platform_config() -> Project:
    """Return the platform's own Compose project, with the service that initializes a database."""
    config: Project = json.loads(on_host("docker compose --profile init config --format json"))
    return config


@contextmanager
def platform_stopped() -> Iterator[None]:
    """Stop the platform, and start it again at the end."""
    on_host("systemctl stop airflow.service")
    try:
        yield
    finally:
        on_host("systemctl start airflow.service")


@contextmanager
def running(project: Project, dags: str = "") -> Iterator[None]:
    """Start a project with an empty database, and remove it at the end.

    `dags` is the source of its DAGs; without it they are those that are live on the platform. Compose reads
    the project from standard input: it has the platform's secrets, which belong into no file.
    """
    compose, given = "docker compose --file -", json.dumps(project)
    first = [name for name in project["services"] if name in ("postgres", "redis")]
    then = [name for name in project["services"] if name not in (*first, INIT)]
    owner = project["services"]["airflow-worker"]["user"].partition(":")[0]
    try:
        on_host(f"mkdir -p {FILES}/trees/bench/dags {FILES}/logs; ln -sfn bench {FILES}/trees/current")
        if dags:
            on_host(f"cat > {FILES}/trees/bench/dags/bench.py", dags)
        else:
            on_host(f"cp --recursive trees/current/dags/. {FILES}/trees/bench/dags")
        on_host(f"chown -R {owner}:0 {FILES}/logs")
        on_host(f"{compose} up --detach --wait {' '.join(first)}", given)
        on_host(f"{compose} run --rm --no-TTY {INIT}", given)
        on_host(f"{compose} up --detach --wait {' '.join(then)}", given)
        yield
    finally:
        on_host(f"{compose} --profile init down --volumes --remove-orphans; rm -rf {FILES}", given)


def wait_for(what: str, statement: str, wanted: str) -> None:
    """Ask the measured database until it answers as wanted."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while (found := sql(statement)) != wanted:
        if "failed" in found or time.monotonic() > deadline:
            sys.exit(f"{BENCH}: waited for {what}; the database says {found!r}, not {wanted!r}")
        time.sleep(1)


def container(service: str, project: str = PROJECT) -> str:
    """Return the container's name."""
    return f"{project}-{service}-1"


def sql(statement: str) -> str:
    """Return what a query of the measured database gives."""
    program = "psql --username=airflow --no-psqlrc -qtA --set=ON_ERROR_STOP=1"
    return on_host(f"docker exec --interactive {container('postgres')} {program}", f"{statement};\n")


def processor_used(containers: Sequence[str]) -> dict[str, float]:
    """Return the seconds of processor time that each container has used."""
    return {name: processor_seconds(on_host(f"docker exec {name} sh -c '{CGROUP}'")) for name in containers}
