"""From what was observed to what is wrong: small functions without any effect, one for each kind of thing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_checker.facts import Container, Database, Disk, Facts, Unit, WorkerHost
from airflow_checker.gather.host import DOCKER, DOCKER_UNITS, KEEPERS
from airflow_checker.lights import LIGHTS, Finding
from airflow_checker.roles import POSTGRES, REDIS, SCHEDULER, TRIGGERER, TUNNEL, WEBHOOK, WORKER

MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0

SWITCHING = ("switching", "unconfirmed", "finishing", "reverting")
"""States of an operation that changes what runs: those of airflow_release.switch.journal but `prepared`."""
HOST_GAPS = ("units", "disks", "updates", "certificate for worker hosts")
PLATFORM_GAPS = ("Compose project", "Docker events", "rendered files", "task outcomes", "webhook", "tasks")
"""What has a light of its own when it cannot be looked at is in neither; a switch may replace the latter."""
MAIN_HOST = "main host"
"""What is asked by a worker host, through its tunnel; that it does not answer has a light of its own."""
HEARTBEAT_SECONDS = 45
"""A scheduler and a triggerer beat every 5 s; Airflow itself calls 30 s unhealthy."""
WORKER_HOST_SECONDS = MINUTE
"""A worker host asks the webhook again every ten seconds at most."""
PARSED_SECONDS = 5 * MINUTE
QUEUED_SECONDS = 3 * MINUTE
OVERDUE_SECONDS = 5 * MINUTE
STARTING_SECONDS = 5 * MINUTE
"""The longest start_period of the Compose file is 2 minutes."""
RESTARTS = 3
MEMORY_SECONDS = HOUR
"""For so long a service that ran out of memory is shown."""
DEATH_SECONDS = 10 * MINUTE
"""For so long what died and is back is shown."""
TIMER_LATE_SECONDS = 10 * MINUTE
TIMED_SECONDS = {"dag-sync.timer": 30 * MINUTE}
"""For so long at most a timer's work takes, where that is less than what its unit allows."""
WITHOUT_NEED = ("dag-sync.timer",)
"""Timers that are there and not enabled on a platform that does not need them: one without a repository."""
OPERATION_SECONDS = 6 * HOUR
BACKUP_SECONDS = 2 * DAY
CLEAN_SECONDS = 2 * DAY
CERTIFICATE_SECONDS = 21 * DAY
TOKEN_SECONDS = 14 * DAY
CLOCK_SECONDS = 60
GROWTH_BYTES = 2**30
GROWTH_SHARE = 0.1


def switching(operation: dict[str, Any]) -> bool:
    """Say whether an operation changes what runs at this moment."""
    return operation.get("state") in SWITCHING


def judge(facts: Facts, memory: Trends) -> list[Finding]:
    """Return all that is wrong.

    What a switch does on purpose is no finding, and nor is a platform that was stopped on purpose: then only
    the host itself is judged.
    """
    findings = [*host(facts), *disks(facts, memory), *deaths(facts.now, memory)]
    if not (facts.stopped or switching(facts.operation)):
        findings += with_causes(list(platform(facts, memory)), facts)
    findings += operation(facts)
    return [finding for finding in findings if has(facts, LIGHTS[finding.light].needs)]


def has(facts: Facts, needs: str) -> bool:
    """Say whether the host has what a light is about: a worker host has no database to back up."""
    return not needs or facts.has(needs)


class Trends:
    """What earlier observations say; see `memory.Memory`. This one knows nothing."""

    def starts(self, service: str) -> int:
        """Return how often the service's container started within the last hour, not to mend a fault."""
        return 0

    def unit_died(self, unit: str) -> float:
        """Return when systemd last started a unit of Docker again by itself; 0 for never."""
        return 0.0

    def power_cut(self) -> float:
        """Return when the host was first seen after it went down without a shutdown; 0 for never."""
        return 0.0

    def days_until_full(self, disk: Disk) -> float | None:
        """Return in how many days the disk is full at its present growth; None while that is unknown."""
        return None

    def database_growth(self) -> tuple[int, float] | None:
        """Return by how many bytes the database grew in a day, and by which share; None while unknown."""
        return None

    def queues_elsewhere(self) -> set[str]:
        """Return the queues that worker hosts consumed when the webhook last told of them."""
        return set()


def platform(facts: Facts, memory: Trends) -> Iterator[Finding]:
    """Judge what should run."""
    if not facts.docker:
        # All below follows from it.
        yield Finding("docker-down", "", "Docker does not answer.")
        return
    yield from services(facts, memory)
    yield from units(facts)
    yield from airflow(facts, memory)
    yield from worker_hosts(facts)
    if MAIN_HOST in facts.gaps:
        yield Finding("main-host-silent", "", f"The main host does not answer{because(facts, MAIN_HOST)}.")
    yield from database_growth(memory)
    yield from clean(facts)
    yield from gaps(facts, PLATFORM_GAPS)
    for name in facts.changed_files:
        yield Finding("files-differ", name, f"{name} is not as it was rendered.")
    if facts.recorded_version and facts.version != facts.recorded_version:
        what = (
            f"The files name Airflow {facts.version or '?'}, and {facts.recorded_version} was recorded last."
        )
        yield Finding("version-differs", "", what)
    if facts.asked_version and facts.version and facts.asked_version != facts.version:
        what = f"The inventory asks for Airflow {facts.asked_version}, and {facts.version} runs."
        yield Finding("pin-differs", "", what)
    for told in facts.webhook:
        yield Finding(told.light, "", told.what)


ROLE_OF = {
    "database-silent": POSTGRES,
    "queue-silent": REDIS,
    "scheduler-silent": SCHEDULER,
    "dags-not-parsed": SCHEDULER,
    "run-overdue": SCHEDULER,
    "triggerer-silent": TRIGGERER,
    "main-host-silent": TUNNEL,
}
"""The role of the services whose illness a light is, where the light itself does not say it."""
CAUSES = (
    *("service-down", "database-silent", "queue-silent"),
    *("scheduler-silent", "triggerer-silent", "main-host-silent"),
)
HEALTH_RANK = len(CAUSES)
"""The cause of a service's other findings is the first of these, or else its failing health check."""


def with_causes(findings: list[Finding], facts: Facts) -> Iterator[Finding]:
    """Say of each finding whether it follows from another, in the same service or in one that it needs."""
    ill = [(ill_services(finding, facts), finding) for finding in findings]
    for services, finding in ill:
        containers = [facts.containers[name] for name in services if name in facts.containers]
        needs = {name for container in containers for name in container.depends_on}
        yield dataclasses.replace(
            finding,
            follows=any(
                (others & services and rank(cause) < rank(finding))
                or (others & needs and finding.light != "service-down" and rank(cause) <= HEALTH_RANK)
                for others, cause in ill
            ),
        )


def ill_services(finding: Finding, facts: Facts) -> set[str]:
    """Return the services whose illness it is."""
    if finding.light in ("service-down", "service-unhealthy"):
        return {finding.subject}
    if finding.light in ROLE_OF:
        return set(facts.wanted(ROLE_OF[finding.light]))
    return {finding.mends} - {""}


def rank(finding: Finding) -> int:
    """Return how far a finding is from its cause."""
    if finding.light in CAUSES:
        return CAUSES.index(finding.light)
    return HEALTH_RANK if finding.light == "service-unhealthy" else HEALTH_RANK + 1


def services(facts: Facts, memory: Trends) -> Iterator[Finding]:
    """Judge each service that the Compose project wants."""
    # A Docker that starts says of every container that outlived it that it is starting, until its next check.
    docker_started = max((unit.started for unit in facts.units if unit.name == DOCKER), default=0.0)
    for service, wanted in (facts.services or {}).items():
        container = facts.containers.get(service)
        if container is None:
            yield Finding("service-down", service, f"{service} has no container.")
            continue
        if not (drained(container, facts) and container.state == "running"):
            yield from running(container, facts.now, docker_started)
        if wanted.image and container.image and container.image != wanted.image:
            what = f"{service} runs the image {container.image}, and the files name {wanted.image}."
            yield Finding("image-differs", service, what)
        if facts.now - facts.out_of_memory.get(service, 0.0) < MEMORY_SECONDS:
            limit = f"its limit is {container.memory // 2**20} MiB" if container.memory else "it has no limit"
            what = f"The kernel ended a process of {service} for want of memory; {limit}."
            yield Finding("service-out-of-memory", service, what)
        if memory.starts(service) >= RESTARTS:
            what = f"{service} was started {memory.starts(service)} times within the hour."
            yield Finding("service-restarts", service, what)


def drained(container: Container, facts: Facts) -> bool:
    """Say whether a worker was told to take no more tasks: its health check fails until it restarts."""
    return is_worker(container) and (facts.drained or 0.0) > container.started


def running(container: Container, now: float, docker_started: float) -> Iterator[Finding]:
    """Judge one container: it runs, and its check passes; times are in seconds since the epoch."""
    name = container.service
    if container.state != "running":
        yield Finding("service-down", name, f"The container of {name} is {container.state}.")
    elif container.health == "starting":
        starting = now - max(container.started, docker_started)
        if starting > STARTING_SECONDS:
            what = f"{name} has been starting for {minutes(starting)}."
            yield Finding("service-unhealthy", name, what, mends=name)
    elif container.health == "unhealthy" or container.failing:
        count = f"{container.failing} times in a row" if container.failing > 1 else "once"
        said = f": {container.said}" if container.said else ""
        # Docker itself waits for as many failures as the check has retries.
        mends = name if container.health == "unhealthy" else ""
        yield Finding(
            "service-unhealthy", name, f"{name} failed its health check {count}{said}.", mends=mends
        )


def units(facts: Facts) -> Iterator[Finding]:
    """Judge the platform's own units, and timers that did not run when they should have."""
    # What these say of their failure has a light of its own.
    said = {"airflow-backup.service": (facts.backup or {}).get("last_failure")}
    said["airflow-clean.service"] = (facts.clean or {}).get("failed")
    said["airflow-certificate.service"] = facts.certificate_refused
    for unit in facts.units:
        if unit.name.endswith(".timer"):
            yield from timer(unit, facts.now)
        elif unit.active == "failed" and not said.get(unit.name):
            yield Finding("unit-failed", unit.name, f"{unit.name} failed: {unit.result}.")
        elif unit.load == "masked":
            yield Finding("unit-failed", unit.name, f"{unit.name} is masked.")
        elif unit.name in KEEPERS and unit.active == "active" and unit.enabled == "disabled":
            yield Finding("boot-off", unit.name, f"{unit.name} is not enabled: the next boot starts nothing.")


def timer(unit: Unit, now: float) -> Iterator[Finding]:
    """Judge a timer."""
    longest = TIMED_SECONDS.get(unit.name, 0)
    if unit.load == "masked" or unit.enabled.startswith("masked"):
        yield Finding("timer-off", unit.name, f"{unit.name} is masked.")
    elif unit.active != "active":
        meant = unit.active == "inactive" and unit.enabled == "disabled" and unit.name in WITHOUT_NEED
        if not meant:
            yield Finding("timer-off", unit.name, f"{unit.name} is {unit.active}.")
    elif unit.sub == "elapsed":
        yield Finding("timer-off", unit.name, f"{unit.name} has no next time.")
    elif unit.sub == "waiting" and 0 < unit.next < now - TIMER_LATE_SECONDS:
        yield Finding("timer-off", unit.name, f"{unit.name} should have run {minutes(now - unit.next)} ago.")
    elif unit.sub == "running" and longest and 0 < unit.last < now - longest:
        service = unit.name.replace(".timer", ".service")
        what = f"{service}, started {minutes(now - unit.last)} ago, has not ended."
        yield Finding("unit-failed", service, what)


def airflow(facts: Facts, memory: Trends) -> Iterator[Finding]:
    """Judge what Airflow's tables and Redis say."""
    workers = [container for container in facts.containers.values() if is_worker(container)]
    schedulers, triggerers = facts.wanted(SCHEDULER), facts.wanted(TRIGGERER)
    database = facts.database
    if database is None:
        yield Finding("database-silent", "", f"The database does not answer{because(facts, 'database')}.")
    else:
        yield from heartbeat("scheduler-silent", schedulers, database.scheduler_age)
        yield from heartbeat("triggerer-silent", triggerers, database.triggerer_age)
        if database.parsed_age is not None and database.parsed_age > PARSED_SECONDS:
            what = f"No DAG file was parsed for {minutes(database.parsed_age)}."
            yield Finding("dags-not-parsed", "", what, mends=first(schedulers))
        yield from waiting(database, workers, facts.worker_hosts or [], facts.worker_queues)
        for dag, age in sorted(database.overdue.items()):
            if age > OVERDUE_SECONDS:
                yield Finding(
                    "run-overdue", dag, f"The next run of {dag} should have been created {minutes(age)} ago."
                )
    if facts.queues is None:
        yield Finding("queue-silent", "", f"Redis does not answer{because(facts, 'queues')}.")
    # Without a container of any worker that should run, it is unknown which queues are its.
    if workers or not (facts.services is None or facts.wanted(WORKER)):
        yield from unconsumed(facts, workers, memory)


def waiting(
    database: Database, workers: list[Container], hosts: list[WorkerHost], untold: Iterable[str]
) -> Iterator[Finding]:
    """Judge tasks that wait although one of those who consume their queue has free slots.

    The containers of this host share one count: a task names a container that it runs in by its id alone.
    Of the worker hosts that are untold, by their names, nobody knows the slots.
    """
    names = {*untold, *(host.name for host in hosts)}
    elsewhere = {name: database.running_on.get(name, 0) for name in names}
    slots = sum(concurrency(worker) for worker in workers)
    idle = max(0, slots - (database.running - sum(elsewhere.values())))
    for queue, age in sorted(database.oldest_queued.items()):
        service = consumer(workers, queue)
        others = [host for host in hosts if host.takes_tasks and queue in host.queues]
        free_here = idle if service else 0
        free = free_here + sum(max(0, host.slots - elsewhere[host.name]) for host in others)
        if age > QUEUED_SECONDS and free:
            total = (slots if service else 0) + sum(host.slots for host in others)
            what = (
                f"A task in the queue {queue} waits for {minutes(age)}, and {free} of {total} slots are free."
            )
            yield Finding("tasks-wait", queue, what, mends=service if free_here else "")


def unconsumed(facts: Facts, workers: list[Container], memory: Trends) -> Iterator[Finding]:
    """Judge the queues in which something waits and that nobody consumes."""
    hosts = facts.worker_hosts
    consumed = {queue for worker in workers for queue in queues_of(worker)}
    consumed |= memory.queues_elsewhere() if hosts is None else queues_taken(hosts)
    consumed = consumed.union(*facts.worker_queues.values())
    messages = {queue: count for queue, count in (facts.queues or {}).items() if count}
    database = facts.database or Database()
    for queue in sorted({*messages, *database.oldest_queued} - consumed):
        away = [host.name for host in hosts or [] if queue in host.queues]
        who = f"The workers consume {', '.join(sorted(consumed))}" if consumed else "There is no worker"
        if away:
            who = f"It is a queue of {', '.join(away)}, which takes no tasks"
        what = f"Nobody consumes the queue {queue}: {waits(queue, database, messages, facts.now)}. {who}."
        yield Finding("queue-without-worker", queue, what)


def waits(queue: str, database: Database, messages: dict[str, int], now: float) -> str:
    """Say what waits in a queue: the task that waits the longest, since when, or else the messages."""
    if queue not in database.oldest_queued:
        count = messages[queue]
        return f"{count} message{'s wait' if count > 1 else ' waits'}"
    dag, task = database.oldest_tasks.get(queue) or ("?", "?")
    return f"the task {task} of the DAG {dag} has waited since {moment(now - database.oldest_queued[queue])}"


def queues_taken(hosts: Iterable[WorkerHost]) -> set[str]:
    """Return the queues that worker hosts consume at this moment."""
    return {queue for host in hosts if host.takes_tasks for queue in host.queues}


def worker_hosts(facts: Facts) -> Iterator[Finding]:
    """Judge each worker host by what the webhook knows of it."""
    webhook = facts.containers.get(WEBHOOK)
    for host in facts.worker_hosts or []:
        heard = host.heard_seconds_ago
        if heard is not None:
            silence, ago = heard, f"for {minutes(heard)}"
        else:
            silence = facts.now - webhook.started if webhook else 0.0
            ago = f"since the webhook was started, {minutes(silence)} ago"
        if silence > WORKER_HOST_SECONDS:
            yield Finding("worker-host-silent", host.name, f"{host.name} has not been heard {ago}.")
        elif host.state == "fenced":
            what = f"{host.name} is cut off: it did not prepare the DAG commit that went live."
            yield Finding("worker-host-fenced", host.name, what)
        if host.release and facts.release and host.release != facts.release:
            what = f"{host.name} runs the release {host.release}, and the main host {facts.release}."
            yield Finding("worker-host-differs", host.name, what)


def heartbeat(light: str, services: list[str], age: float | None) -> Iterator[Finding]:
    """Judge when one of these services last said that it is alive; there may be none that should."""
    name = first(services)
    if services and age is None:
        yield Finding(light, "", f"{name} has never said that it is alive.", mends=name)
    elif services and age is not None and age > HEARTBEAT_SECONDS:
        yield Finding(light, "", f"{name} was last alive {minutes(age)} ago.", mends=name)


def first(services: list[str]) -> str:
    """Return the first of them, "" for none: one that works is enough, and the others have a health check."""
    return services[0] if services else ""


def database_growth(memory: Trends) -> Iterator[Finding]:
    """Judge how fast the database grows."""
    growth = memory.database_growth()
    if growth is not None and growth[0] > GROWTH_BYTES and growth[1] > GROWTH_SHARE:
        yield Finding("database-grows", "", f"The database grew by {growth[0] / 2**30:.1f} GiB within a day.")


def is_worker(container: Container) -> bool:
    """Say whether tasks run in it."""
    return container.role == WORKER


def queues_of(worker: Container) -> list[str]:
    """Return the queues that a worker's command names, or Airflow's default queue."""
    command = worker.command
    for index, argument in enumerate(command):
        name, _, value = argument.partition("=")
        if name in ("-q", "--queues"):
            named = value or (command[index + 1] if index + 1 < len(command) else "")
            return [queue.strip() for queue in named.split(",") if queue.strip()]
    return [worker.environment.get("AIRFLOW__OPERATORS__DEFAULT_QUEUE") or "default"]


def concurrency(worker: Container) -> int:
    """Return a worker's slots; Airflow's own default is 16."""
    value = worker.environment.get("AIRFLOW__CELERY__WORKER_CONCURRENCY", "")
    return int(value) if value.isdigit() else 16


def consumer(workers: list[Container], queue: str) -> str:
    """Return the service that consumes a queue."""
    return next((worker.service for worker in workers if queue in queues_of(worker)), "")


def operation(facts: Facts) -> Iterator[Finding]:
    """Judge an operation that does not come to its end: while it switches, nothing else is judged."""
    state = facts.operation.get("state")
    phases = facts.operation.get("phases") or [{}]
    began = phases[0].get("started") or facts.operation.get("touched") or facts.now
    if state in (*SWITCHING, "prepared") and facts.now - began > OPERATION_SECONDS:
        what = f"The {facts.operation.get('kind', 'operation')} is {state} for {minutes(facts.now - began)}."
        yield Finding("operation-stands", "", what)


def host(facts: Facts) -> Iterator[Finding]:
    """Judge what does not depend on what runs."""
    yield from certificate(facts.certificate_ends, facts.now)
    if facts.certificate_refused:
        what = f"The new certificate is refused: {facts.certificate_refused}"
        yield Finding("certificate-refused", "", what[:300])
    if facts.worker_certificate_ends is not None:
        left = facts.worker_certificate_ends - facts.now
        if left < CERTIFICATE_SECONDS:
            when = f"ends in {minutes(left)}" if left > 0 else f"ended {minutes(-left)} ago"
            what = f"The certificate between the main host and worker hosts {when}."
            yield Finding("worker-certificate-ends", "", what)
    yield from connect(facts)
    yield from clock(facts)
    yield from backup(facts)
    if facts.live_restore is False:
        yield Finding("live-restore-off", "", "Docker runs without `live-restore`.")
    if facts.reboot_required:
        yield Finding("reboot-pending", "", "An update asks for a reboot.")
    if facts.security_updates:
        count = facts.security_updates
        yield Finding("security-updates", "", f"{count} security update{'s' * (count > 1)} to install.")
    yield from gaps(facts, HOST_GAPS)
    if "certificate" in facts.gaps:
        yield Finding(
            "certificate-ended", "", f"The certificate cannot be read{because(facts, 'certificate')}."
        )


def deaths(now: float, memory: Trends) -> Iterator[Finding]:
    """Say what died and is back: nobody has to do anything, and somebody should know."""
    for unit in DOCKER_UNITS:
        if 0 <= now - memory.unit_died(unit) < DEATH_SECONDS:
            yield Finding("unit-restarted", unit, f"{unit} died, and systemd has started it again.")
    if 0 <= now - memory.power_cut() < DEATH_SECONDS:
        yield Finding("host-restarted", "", "The host went down without a shutdown, and is back.")


def gaps(facts: Facts, names: Iterable[str]) -> Iterator[Finding]:
    """Say which of these could not be looked at."""
    for name in names:
        if name in facts.gaps:
            yield Finding("check-failed", name, f"The {name} could not be looked at{because(facts, name)}.")


def certificate(ends: float | None, now: float) -> Iterator[Finding]:
    """Judge the certificate that HAProxy serves."""
    if ends is None:
        return
    if ends <= now:
        yield Finding("certificate-ended", "", f"The certificate ended {minutes(now - ends)} ago.")
    elif ends - now < CERTIFICATE_SECONDS:
        yield Finding("certificate-ends", "", f"The certificate ends in {minutes(ends - now)}.")


def connect(facts: Facts) -> Iterator[Finding]:
    """Judge 1Password Connect and the token."""
    known = facts.connect
    if known is None:
        return
    ended = known.token_ends is not None and known.token_ends <= facts.now
    if ended or known.status in (401, 403):
        what = "A Connect token has ended." if ended else f"Connect refuses the token (HTTP {known.status})."
        yield Finding("token-refused", "", what)
    elif 400 <= known.status < 500 and known.status not in (408, 429):
        yield Finding("token-refused", "", f"Connect does not give the vault (HTTP {known.status}).")
    elif not 200 <= known.status < 300:
        what = f"HTTP {known.status}" if known.status else known.said
        age = (
            f" The vault gave the platform its secrets {minutes(facts.now - known.last_given)} ago."
            if known.last_given is not None
            else ""
        )
        yield Finding("connect-silent", "", f"1Password Connect does not answer as it should: {what}.{age}")
    if known.platform_status in (401, 403, 404) and known.platform_status != known.status:
        what = f"Connect does not give the webhook its vault (HTTP {known.platform_status})."
        yield Finding("token-refused", "webhook", what)
    if known.token_ends is not None and 0 < known.token_ends - facts.now < TOKEN_SECONDS:
        yield Finding("token-ends", "", f"A Connect token ends in {minutes(known.token_ends - facts.now)}.")
    if known.reads_platform:
        yield Finding("token-shared", "", "The Connect token of tasks reads the platform's own vault.")


def clock(facts: Facts) -> Iterator[Finding]:
    """Judge the host's clock against another host's, and against what was written before it changed."""
    offset = facts.connect.clock if facts.connect else None
    if offset is not None and abs(offset) > CLOCK_SECONDS:
        way = "behind" if offset > 0 else "ahead of"
        yield Finding("clock-wrong", "", f"The host's clock is {minutes(abs(offset))} {way} that of Connect.")
    elif facts.database and (facts.database.scheduler_age or 0) < -CLOCK_SECONDS:
        ahead = minutes(-(facts.database.scheduler_age or 0))
        yield Finding("clock-wrong", "", f"The scheduler's last heartbeat is {ahead} in the future.")
    if facts.clock_synchronised is False:
        yield Finding("clock-not-synchronised", "", "The kernel's clock is not synchronised.")


def backup(facts: Facts) -> Iterator[Finding]:
    """Judge the backups by what they say of themselves."""
    known = facts.backup
    if known is None:
        return
    last, failure = known.get("last_good"), known.get("last_failure")
    since = (last or {}).get("at", known.get("installed_at"))
    if since is None:
        yield Finding("backup-old", "", "There is no backup that is known of.")
    elif facts.now - since > BACKUP_SECONDS:
        which = "The last good backup is" if last else "There is no backup, and the platform is"
        yield Finding("backup-old", "", f"{which} {minutes(facts.now - since)} old.")
    if failure:
        what = "copy of a backup" if failure.get("copying") else "backup"
        yield Finding("backup-failed", "", f"The last {what} failed: {failure.get('reason', '')}"[:300])
    elif last and facts.backup_remote and not last.get("off_host"):
        yield Finding("backup-not-copied", "", "The last good backup has no copy at the remote.")


def clean(facts: Facts) -> Iterator[Finding]:
    """Judge the clean-ups by what the last one says; before the first one there is nothing to say."""
    known = facts.clean or {}
    if isinstance(at := known.get("at"), (int, float)) and facts.now - at > CLEAN_SECONDS:
        yield Finding("clean-old", "", f"The last clean-up was {minutes(facts.now - at)} ago.")
    if failed := known.get("failed"):
        yield Finding("clean-failed", "", f"The last clean-up left something: {failed}"[:300])


def disks(facts: Facts, memory: Trends) -> Iterator[Finding]:
    """Judge space and inodes of each disk."""
    for disk in facts.disks:
        share = disk.free / disk.size if disk.size else 1.0
        days = memory.days_until_full(disk)
        full = "" if days is None else f"; at its present growth it is full in {days:.1f} days"
        what = f"The disk of {disk.path} has {share:.0%} free ({disk.free / 2**30:.1f} GiB){full}."
        if 100 * share < facts.disk_full_percent or (days is not None and days < 1):
            yield Finding("disk-full", disk.path, what)
        elif 100 * share < facts.disk_low_percent or (days is not None and days < 7):
            yield Finding("disk-low", disk.path, what)
        if disk.inodes and disk.inodes_free / disk.inodes < 0.05:
            what = f"The disk of {disk.path} has {disk.inodes_free} of {disk.inodes} inodes free."
            yield Finding("inodes-low", disk.path, what)


def because(facts: Facts, name: str) -> str:
    """Return why something could not be looked at, as the end of a sentence."""
    return f": {facts.gaps[name]}" if facts.gaps.get(name) else ""


def moment(at: float) -> str:
    """Return a time of day with its date, in UTC.

    >>> moment(1800000000)
    '2027-01-15 08:00 UTC'
    """
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def minutes(seconds: float) -> str:
    """Return a duration in words, such as `3 minutes` or `2 days`.

    >>> minutes(200)
    '3 minutes'
    """
    for size, unit in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{max(0, int(seconds))} s"
