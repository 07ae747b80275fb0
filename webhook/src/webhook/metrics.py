"""What Prometheus is told."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from webhook import health

DISK = {"free": "_bytes", "size": "_bytes", "inodes_free": "", "inodes": "", "days_until_full": ""}
DATES = {
    "certificate_ends": "certificate_end_timestamp_seconds",
    "token_ends": "token_end_timestamp_seconds",
    "last_backup": "last_backup_timestamp_seconds",
    "last_copy": "last_copy_timestamp_seconds",
}


class Metrics:
    """The counters of one app, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "webhook_calls",
            "Calls by endpoint and HTTP status",
            ["endpoint", "status"],
            registry=self._registry,
        )
        self._syncs = Counter("webhook_syncs", "Syncs by outcome", ["outcome"], registry=self._registry)
        self._seconds = Histogram(
            "webhook_sync_seconds",
            "Duration of a sync",
            buckets=(0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300),
            registry=self._registry,
        )

    def called(self, endpoint: str, status: int) -> None:
        """Count a call of one of the endpoints `webhook`, `sync` and `relay`."""
        self._calls.labels(endpoint, str(status)).inc()

    def synced(self, outcome: str, seconds: float) -> None:
        """Count a sync."""
        self._syncs.labels(outcome).inc()
        self._seconds.observe(seconds)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for when the page is read."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def platform(self, file: Path) -> None:
        """Add what the host's checker found, which is read when the page is."""
        self._registry.register(Platform(file))

    def page(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)


class Platform(Collector):
    """What the host's checker found, as the status page has it.

    While it is silent, only the verdict and the time of its last look are told: old numbers would look new.
    """

    def __init__(self, file: Path) -> None:
        """Read nothing yet."""
        self._file = file

    def describe(self) -> Iterable[Metric]:
        """Have nothing read when it is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return what is known; what is not known has no sample."""
        found = health.read(self._file, time.time())
        generated = found["generated"]
        yield _gauge(
            "health",
            "The verdict of the host's checker: 0 ok, 1 warning, 2 critical, 3 unknown",
            health.LEVELS.get(found["overall"], health.UNKNOWN),
        )
        yield _gauge(
            "last_look_timestamp_seconds",
            "When the host's checker last looked; 0 for never",
            health.seconds(generated) if generated else 0,
        )
        if found["error"]:
            return
        states = {state: float(state == found["state"]) for state in health.STATES}
        yield _gauges("state", "1 for what the platform does", "state", states)
        figures = found["figures"]
        severities = dict.fromkeys(health.SEVERITIES, 0)
        for finding in found["findings"]:
            severities[finding["severity"]] += 1
        yield _gauges("findings", "Findings by severity", "severity", severities)
        yield _findings(found["findings"])
        up = {service["name"]: float(health.is_up(service)) for service in found["services"]}
        yield _gauges("service_up", "1 while a service runs and is healthy", "service", up)
        restarts = {service["name"]: service["restarts"] for service in found["services"]}
        yield _gauges("service_restarts", "How often Docker started a container again", "service", restarts)
        yield _info(found)
        queues = figures["queues"] or {}
        yield _gauges("queue_length", "Messages that wait for a worker", "queue", queues)
        if (ages := figures["queue_ages"]) is not None:
            ages = {**dict.fromkeys(queues, 0), **ages}
            yield _gauges("queue_age_seconds", "For how long the oldest task has been queued", "queue", ages)
        if (overdue := figures["overdue"]) is not None:
            yield _gauge("runs_overdue", "DAGs whose next run is overdue by a minute or more", len(overdue))
            what = "How long ago the next run should have been created"
            yield _gauges("run_overdue_seconds", what, "dag", overdue)
        slots = {worker["service"]: worker["slots"] for worker in figures["workers"]}
        yield _gauges("worker_slots", "How many tasks a worker runs at a time", "service", slots)
        yield from _worker_hosts(figures["worker_hosts"], health.seconds(generated))
        if unconsumed := figures["unconsumed"]:
            what = "For how long something has waited in a queue that nobody consumes"
            yield _gauges("queue_unconsumed_seconds", what, "queue", unconsumed)
        tasks = {"running": figures["tasks_running"], "queued": figures["tasks_queued"]}
        yield _gauges("tasks", "Tasks by state", "state", tasks)
        yield from _ended(figures["hours"])
        refusals = CounterMetricFamily(
            "airflow_platform_docker_refusals",
            "What DAGs were refused of Docker since the filter was started",
            labels=["field"],
        )
        for field, count in figures["refusals"].items():
            refusals.add_metric([field], count)
        yield refusals
        for each, unit in DISK.items():
            # Some file systems have no fixed number of inodes.
            known = (disk for disk in figures["disks"] if disk["inodes"] or "inodes" not in each)
            disks = {disk["path"]: disk[each] for disk in known}
            yield _gauges(f"disk_{each}{unit}", f"The disks: {each.replace('_', ' ')}", "path", disks)
        for each in ("database_bytes", "database_growth_bytes"):
            yield from _known(each, f"The metadata database: {each}", figures[each])
        what = "Processor time of the checker's last look"
        yield from _known("checker_cpu_seconds", what, figures["checker_seconds"])
        for each, name in DATES.items():
            at = figures[each]
            yield from _known(name, f"When: {each.replace('_', ' ')}", health.seconds(at) if at else None)


def _findings(findings: Iterable[Mapping[str, str]]) -> GaugeMetricFamily:
    """Return a sample for each; what is the same twice is one."""
    labels = ("light", "subject", "severity")
    gauge = GaugeMetricFamily("airflow_platform_finding", "1 for each finding", labels=labels)
    for light, subject, severity in {(one["id"], one["subject"], one["severity"]): None for one in findings}:
        gauge.add_metric([light, subject, severity], 1)
    return gauge


def _info(found: Mapping[str, Any]) -> GaugeMetricFamily:
    """Return 1, with what runs and where as labels."""
    labels = {name: found[name] for name in ("environment", "host", "airflow_version")}
    labels["dag_commit"] = found["figures"]["dag_commit"]
    gauge = GaugeMetricFamily("airflow_platform_info", "1, with what runs as labels", labels=list(labels))
    gauge.add_metric(list(labels.values()), 1)
    return gauge


def _worker_hosts(hosts: Sequence[Mapping[str, Any]], at: float) -> Iterator[GaugeMetricFamily]:
    """Yield what is known of worker hosts at a time; nothing for a platform that has none."""
    if not hosts:
        return
    ages = {host["name"]: host["heard_seconds_ago"] for host in hosts}
    heard = {name: None if age is None else at - age for name, age in ages.items()}
    what = "When a worker host was last heard"
    yield _gauges("worker_host_heard_timestamp_seconds", what, "worker", heard)
    slots = {host["name"]: host["slots"] for host in hosts}
    yield _gauges("worker_host_slots", "How many tasks a worker host runs at a time", "worker", slots)
    takes = {host["name"]: float(health.takes_tasks(host)) for host in hosts}
    what = "1 while a worker host is heard and not cut off from the broker"
    yield _gauges("worker_host_takes_tasks", what, "worker", takes)


def _ended(hours: Sequence[Mapping[str, Any]] | None) -> Iterator[GaugeMetricFamily]:
    """Yield what became of tasks; gauges, because an hour's numbers may fall when a task is run again."""
    if not hours:
        return
    for name, words, counted in (
        ("tasks_ended_last_day", "Tasks that ended in the last 24 hours", hours),
        ("tasks_ended_last_hour", "Tasks that ended in the last whole hour", hours[-2:-1]),
    ):
        ended = {state: sum(hour[state] for hour in counted) for state in ("succeeded", "failed")}
        yield _gauges(name, words, "state", ended)
    for last in hours[-2:-1]:
        count = last["succeeded"] + last["failed"]
        if count and last["seconds"] is not None:
            what = "How long the tasks of the last whole hour ran on average"
            yield _gauge("task_duration_mean_seconds", what, last["seconds"] / count)
        if count:
            what = "How long the longest task of the last whole hour ran"
            yield from _known("task_duration_longest_seconds", what, last["longest"])


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"airflow_platform_{name}", description, value=value)


def _known(name: str, description: str, value: float | None) -> Iterator[GaugeMetricFamily]:
    """Yield a gauge where its value is known."""
    if value is not None:
        yield _gauge(name, description, value)


def _gauges(name: str, description: str, label: str, values: Mapping[str, float | None]) -> GaugeMetricFamily:
    """Return a gauge with a sample for each value that is known."""
    gauge = GaugeMetricFamily(f"airflow_platform_{name}", description, labels=[label])
    for key, value in values.items():
        if value is not None:
            gauge.add_metric([key], value)
    return gauge
