"""One observation of the host: each part on its own, so that what cannot be seen hides nothing else."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from airflow_checker import roles
from airflow_checker.facts import OUTCOME_HOURS, Container, Facts, Hour, Said, Service
from airflow_checker.files import replace_json
from airflow_checker.gather import host
from airflow_checker.gather.docker import Docker, DockerError
from airflow_checker.judge import MAIN_HOST, MEMORY_SECONDS, is_worker
from airflow_checker.memory import Memory
from airflow_checker.settings import Settings

T = TypeVar("T")
UPDATES_SECONDS = 86_400.0
OUTCOMES_SECONDS = 300.0
REBOOT = Path("/run/reboot-required")
"""Written by the packages that ask for a reboot (Debian Policy, update-notifier-common)."""


def observe(
    settings: Settings, memory: Memory, docker: Docker | None = None, run: host.Run = host.run
) -> Facts:
    """Look at everything once. Whatever fails is a gap, with its reason."""
    docker = docker or Docker()
    gaps: dict[str, str] = {}
    directory = settings.directory

    def attempt(name: str, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except Exception as error:  # of any kind: a look that fails is a finding and ends no other look
            gaps[name] = " ".join(str(error).split())[:200] or type(error).__name__
            return None

    containers = attempt("docker", docker.containers)
    known = containers or {}
    ill = [one for one in known.values() if is_worker(one) and one.state == "running" and not _is_well(one)]
    operation = host.document(directory / "releases/operation.json")
    units = attempt("units", lambda: host.units(run)) or []
    rendered = attempt("rendered files", lambda: _changed_files(settings, operation))
    environment = host.environment(directory / ".env")
    database = attempt("database", lambda: _database(docker, known)) if roles.POSTGRES in known else None
    said = attempt("webhook", lambda: _webhook(known)) if _is_well(known.get(roles.WEBHOOK)) else None
    info: dict[str, Any] = attempt("Docker itself", lambda: docker.get("/info")) or {}
    facts = Facts(
        now=time.time(),
        docker=containers is not None,
        live_restore=info.get("LiveRestoreEnabled"),
        services=attempt("Compose project", lambda: _services(settings, memory, run)),
        containers=known,
        out_of_memory=attempt("Docker events", lambda: _out_of_memory(docker, known, memory)) or {},
        units=units,
        boot=host.boot(),
        told_to_stop=host.told_to_stop(directory),
        operation=operation,
        stopped=host.stopped(units),
        drained=attempt(MAIN_HOST, lambda: _drained(known, settings))
        if _is_well(known.get(roles.TUNNEL))
        else None,
        tasks=attempt("tasks", lambda: _tasks(docker, ill)) if roles.TUNNEL in known and ill else None,
        database=database,
        outcomes=attempt("task outcomes", lambda: _outcomes(docker, known, memory)) if database else None,
        queues=attempt("queues", lambda: _queues(known, directory)) if roles.REDIS in known else None,
        webhook=said.lights if said else [],
        worker_hosts=said.workers if said else None,
        worker_queues=settings.worker_queues,
        disks=attempt("disks", lambda: host.disks(_places(info, settings))) or [],
        certificate_ends=attempt("certificate", lambda: _certificate(directory / "haproxy/certificate.pem")),
        worker_certificate_ends=attempt(
            "certificate for worker hosts", lambda: _worker_certificate(directory, known)
        ),
        connect=attempt("Connect", lambda: _connect(directory)),
        clock_synchronised=host.clock_synchronised(),
        reboot_required=REBOOT.exists(),
        security_updates=attempt("updates", lambda: _updates(memory, run)),
        backup=host.document(directory / "status/backup.json"),
        backup_remote=settings.backup_remote,
        disk_low_percent=settings.disk_low_percent,
        disk_full_percent=settings.disk_full_percent,
        clean=host.document(directory / "status/clean.json"),
        certificate_refused=str(host.document(directory / "status/certificate.json").get("refused", "")),
        refusals=attempt("refusals", lambda: _refusals(docker, known)),
        changed_files=rendered or [],
        version=environment.get("AIRFLOW_VERSION", ""),
        release=environment.get("WORKER_RELEASE", ""),
        recorded_version=host.recorded_version(directory),
        asked_version=str(host.document(directory / "status/inventory.json").get("airflow_version", "")),
        dag_commit=host.dag_commit(directory),
        gaps=gaps,
    )
    docker.close()
    return facts


def _services(settings: Settings, memory: Memory, run: host.Run) -> dict[str, Service]:
    """Ask Compose only when the project's files are others: that costs more than all else together."""
    files = [settings.directory / name for name in ("docker-compose.yaml", ".env")]
    # With the fields' names: an earlier version of this package has kept others.
    fields = [each.name for each in dataclasses.fields(Service)]
    stamp = [fields, *([path.stat().st_mtime_ns, path.stat().st_size] for path in files)]
    kept = memory.kept("project")
    if kept.get("stamp") != stamp:
        services = host.project(run, settings.directory, settings.profiles)
        kept.update(services={name: vars(service) for name, service in services.items()}, stamp=stamp)
    return {name: Service(**values) for name, values in kept["services"].items()}


def _database(docker: Docker, containers: dict[str, Container]) -> Any:
    from airflow_checker.gather import database

    return database.parse(docker.execute(containers[roles.POSTGRES].id, database.command()))


def _outcomes(docker: Docker, containers: dict[str, Container], memory: Memory) -> dict[int, Hour]:
    """Ask every five minutes, and only for the hours that may have changed; what was over stays as it was."""
    from airflow_checker.gather import database

    kept, now = memory.kept("outcomes"), time.time()
    # As above: what an earlier version of this package has kept is asked for anew.
    fields = [each.name for each in dataclasses.fields(Hour)]
    if kept.get("fields") != fields:
        kept.clear()
    first = int(now // database.HOUR - OUTCOME_HOURS + 1) * database.HOUR
    asked = kept.get("at", 0)
    if not 0 <= now - asked < OUTCOMES_SECONDS:
        # What ended just before the last question may not have been written by then.
        since = int((asked - 60) // database.HOUR) * database.HOUR if asked <= now else 0
        since = max(first, since)
        question = database.command(database.outcomes(since))
        answer = database.parse_outcomes(docker.execute(containers[roles.POSTGRES].id, question))
        before = {
            hour: counts for hour, counts in kept.get("hours", {}).items() if first <= int(hour) < since
        }
        kept.update(at=now, fields=fields, hours={**before, **answer})
    return {int(hour): Hour(*values) for hour, values in kept["hours"].items()}


def _out_of_memory(docker: Docker, containers: dict[str, Container], memory: Memory) -> dict[str, float]:
    """Return when each service last ran out of memory, of those that did within the time that a light is lit.

    A container that is started again has forgotten it, and Docker's events have it. These Docker forgets
    soon, and its word on a container that goes on stays; that word is taken once.
    """
    kept, now = memory.kept("out of memory"), time.time()
    recent = {service: at for service, at in kept.get("times", {}).items() if 0 <= now - at < MEMORY_SECONDS}
    since = max(kept.get("at", 0), now - MEMORY_SECONDS)
    found = docker.out_of_memory(min(since, now), now)
    said = {each.service: each.started for each in containers.values() if each.out_of_memory}
    for service, started in said.items():
        if kept.get("said", {}).get(service) != started:
            found.setdefault(service, now)
    kept.update(at=now, times={**recent, **found}, said=said)
    return dict(kept["times"])


def _refusals(docker: Docker, containers: dict[str, Container]) -> dict[str, int] | None:
    from airflow_checker.gather import docker_policy

    container = containers.get(docker_policy.SERVICE)
    if container is None or not _is_well(container):
        return None
    return docker_policy.parse(docker.execute(container.id, docker_policy.COMMAND))


def _is_well(container: Container | None) -> bool:
    """Say whether it can be asked anything; where it cannot, that is told already."""
    return container is not None and container.state == "running" and container.health in ("healthy", "")


def _address(container: Container) -> str:
    if not container.addresses:
        raise DockerError("its container has no address")
    return container.addresses[0]


def _webhook(containers: dict[str, Container]) -> Said:
    from airflow_checker.gather import webhook

    return webhook.ask(_address(containers[roles.WEBHOOK]))


def _queues(containers: dict[str, Container], directory: Path) -> dict[str, int]:
    from airflow_checker.gather import redis

    password = host.environment(directory / "env/redis.env").get("REDISCLI_AUTH", "")
    return redis.queues(_address(containers[roles.REDIS]), password)


def _places(info: dict[str, Any], settings: Settings) -> list[Path]:
    """Return where data, images, logs and backups are.

    That Docker says nothing is told elsewhere; its usual place is looked at all the same. Its newer store of
    images is containerd's.
    """
    root = Path(info.get("DockerRootDir") or "/var/lib/docker")
    return [root, settings.directory, settings.backups, Path("/var/lib/containerd"), Path("/")]


def _drained(containers: dict[str, Container], settings: Settings) -> float:
    from airflow_checker.gather import main_host

    broker = host.environment(settings.directory / "env/worker.env").get("AIRFLOW__CELERY__BROKER_URL", "")
    return main_host.drained(_address(containers[roles.TUNNEL]), broker, settings.host)


def _tasks(docker: Docker, workers: list[Container]) -> int:
    from airflow_checker.gather import main_host

    return sum(main_host.parse_tasks(docker.execute(worker.id, main_host.TASKS)) for worker in workers)


def _certificate(path: Path) -> float | None:
    if not path.exists():
        return None
    from airflow_checker.gather import certificate

    return certificate.ends(path.read_text())


def _worker_certificate(directory: Path, containers: dict[str, Container]) -> float | None:
    """Return the end of what this host shows at its end of the way between main host and worker hosts."""
    names = {roles.GATEWAY: "worker-gateway/gateway.pem", roles.TUNNEL: "tunnel/worker.pem"}
    shown = [_certificate(directory / path) for service, path in names.items() if service in containers]
    return next(iter(shown), None)


def _connect(directory: Path) -> Any:
    """Ask with what tasks have, and with what the webhook has."""
    tasks = host.environment(directory / "env/onepassword.env")
    if not tasks.get("OP_CONNECT"):
        return None
    from airflow_checker.gather import connect

    accesses = [
        connect.Access(values.get("OP_API_TOKEN", ""), values.get("OP_VAULT_ID", ""))
        for values in (tasks, host.environment(directory / "env/webhook.env"))
    ]
    answer = connect.ask(tasks["OP_CONNECT"], *(access for access in accesses if access.vault))
    return dataclasses.replace(answer, last_given=_last_given(directory))


def _last_given(directory: Path) -> float | None:
    """Return the time of the file in which the role `secrets` keeps what the vault gave."""
    try:
        return (directory / "secrets/last_known.json").stat().st_mtime
    except OSError:
        return None


def _updates(memory: Memory, run: host.Run) -> int | None:
    """Ask apt once a day; on a host without it there is nothing to ask."""
    kept, now = memory.kept("updates"), time.time()
    if not 0 <= now - kept.get("at", 0) < UPDATES_SECONDS:
        kept["at"] = now
        kept["count"] = host.security_updates(run) if Path("/usr/bin/apt-get").exists() else None
    count: int | None = kept.get("count")
    return count


def _changed_files(settings: Settings, operation: dict[str, Any]) -> list[str]:
    """Compare the rendered files with how they were recorded; the end of an operation records them anew."""
    recorded = host.document(settings.rendered)
    if not recorded:
        return []
    if ended(operation) not in ("", recorded.get("operation")):
        record(settings, operation)
        return []
    return host.changes(recorded.get("files", {}), host.hashes(settings.directory))


def ended(operation: dict[str, Any]) -> str:
    """Return an operation that is over, as `id state`; "" where none is."""
    state = operation.get("state", "")
    return f"{operation.get('id')} {state}" if state in ("succeeded", "reverted") else ""


def record(settings: Settings, operation: dict[str, Any]) -> bool:
    """Write down the rendered files as they are now; say whether they were others."""
    document = {"operation": ended(operation), "files": host.hashes(settings.directory)}
    if host.document(settings.rendered) == document:
        return False
    replace_json(settings.rendered, document)
    return True
