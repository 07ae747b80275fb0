"""health.json as the host's checker writes it: what is in it when all is well, and on a bad day."""

import time
from typing import Any

from airflow_checker import report
from airflow_checker.facts import OUTCOME_HOURS
from airflow_checker.lights import Finding

SERVICES = (
    *("airflow-scheduler", "airflow-triggerer", "airflow-webserver", "airflow-worker", "docker-socket-proxy"),
    *("flower", "gate", "haproxy", "postgres", "redis", "weather", "webhook"),
)
DAY = 86_400
INODES = {"inodes": 1_000_000, "inodes_free": 730_000}


def document(age: float = 0, **changes: Any) -> dict[str, Any]:
    """Return a document that is so many seconds old, of a platform that is well but for the changes."""
    now = time.time() - age
    return {
        "schema": report.SCHEMA,
        "generated": report.iso(now),
        "environment": "production",
        "host": "atd-data03",
        "airflow_version": "2.11.2",
        "overall": "ok",
        "state": "running",
        "doing": "",
        "findings": [],
        "services": [service(name) for name in SERVICES],
        "figures": figures(now),
        **changes,
    }


def service(name: str, **changes: Any) -> dict[str, Any]:
    """Return a service that is well, but for the changes."""
    since = report.iso(time.time() - 3 * DAY)
    return {"name": name, "state": "running", "health": "healthy", "since": since, "restarts": 0, **changes}


def finding(light: str, subject: str, what: str) -> dict[str, Any]:
    """Return a finding as the checker writes it."""
    return Finding(light, subject, what).document(report.iso(time.time() - 720) or "")


def figures(now: float, **changes: Any) -> dict[str, Any]:
    """Return the figures of a platform that is well, but for the changes."""
    hour = now // 3600 * 3600
    starts = [hour - 3600 * ago for ago in reversed(range(OUTCOME_HOURS))]
    return {
        "disks": [{"path": "/", "size": 80 * 2**30, "free": 47 * 2**30, **INODES, "days_until_full": None}],
        "database_bytes": 412 * 2**20,
        "database_growth_bytes": 3 * 2**20,
        "tasks_running": 3,
        "tasks_queued": 1,
        "hours": [
            {
                **{"from": report.iso(start), "succeeded": 40 + 7 * (index % 5), "failed": 0},
                **{"seconds": 610.0, "longest": 95.5},
            }
            for index, start in enumerate(starts)
        ],
        "queues": {"default": 1},
        "queue_ages": {"default": 12.5},
        "overdue": {},
        "workers": [{"service": "airflow-worker", "queues": ["default"], "slots": 16}],
        "worker_hosts": [],
        "unconsumed": {},
        "refusals": {},
        "dag_commit": "0123456789" * 4,
        "certificate_ends": report.iso(now + 58.5 * DAY),
        "token_ends": report.iso(now + 200.5 * DAY),
        "last_backup": report.iso(now - 0.25 * DAY),
        "last_copy": report.iso(now - 1.25 * DAY),
        "checker_seconds": 0.12,
        **changes,
    }


def worker_host(**changes: Any) -> dict[str, Any]:
    """Return a worker host that is well, but for the changes."""
    return {
        "name": "atd-worker01",
        "state": "live",
        "release": "2-11-2-d444c6765d29",
        "commit": "0123456789" * 4,
        "queues": ["default", "atd-worker01"],
        "slots": 8,
        "heard_seconds_ago": 4.0,
        **changes,
    }


def bad_day(
    *,
    service_name: str = "airflow-triggerer",
    queue: str = "reports",
    file: str = "/srv/airflow/.env",
    disk: str = "/var/backups/airflow",
) -> dict[str, Any]:
    """Return the changes of a platform with faults of all kinds; the names may be as long as they like."""
    now = time.time()
    hours = figures(now)["hours"]
    for index, failed in ((3, 1), (17, 60), (18, 300), (23, 12)):
        hours[index]["failed"] = failed
    hours[9].update(succeeded=0)
    ill: dict[str, dict[str, Any]] = {
        "weather": {"state": "exited", "health": "", "restarts": 2},
        "airflow-worker": {"health": "unhealthy", "restarts": 103},
        service_name: {"health": "starting"},
    }
    return {
        "overall": "critical",
        "findings": [
            finding("service-down", "weather", "The container of weather is <exited>."),
            finding("disk-full", "/", "The disk of / has 3% free (2.4 GiB); it is full in 0.7 days."),
            finding("queue-without-worker", queue, f"Tasks wait in the queue {queue}."),
            finding("files-differ", file, f"{file} is not as it was rendered."),
            finding("reboot-pending", "", "An update asks for a reboot."),
        ],
        "services": [service(name, **ill.get(name, {})) for name in sorted({*SERVICES, *ill})],
        "figures": figures(
            now,
            disks=[
                {"path": "/", "size": 80 * 2**30, "free": 2 * 2**30, **INODES, "days_until_full": 0.7},
                {
                    "path": disk,
                    "size": 2**40,
                    "free": 2**39,
                    "inodes": 0,
                    "inodes_free": 0,
                    "days_until_full": 91.0,
                },
            ],
            hours=hours,
            queues={"default": 12_345, queue: 7},
            queue_ages={queue: 640.0},
            overdue={"reports": 90.0},
            worker_hosts=[worker_host(), worker_host(name="atd-worker02", state="silent", slots=4)],
            unconsumed={queue: 640.0},
            refusals={"HostConfig.Privileged": 3},
        ),
    }
