"""From observed facts to findings: each kind of fault is said, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from airflow_checker import judge
from airflow_checker.facts import Connect, Disk, Facts, Told, Unit, WorkerHost
from airflow_checker.judge import DAY, HOUR, Trends
from airflow_checker.lights import LIGHTS, OF_THE_WEBHOOK, Finding
from airflow_release.switch import journal

from tests.checker.conftest import NOW, container, containers, database_of, wanted, well


def found(facts: Facts, trends: Trends | None = None) -> set[str]:
    """The keys of all findings."""
    return {finding.key for finding in judge.judge(facts, trends or Trends())}


def connect(**changes: Any) -> Connect:
    known = well().connect
    assert known is not None
    return dataclasses.replace(known, **changes)


def disk(free: float, inodes_free: int = 5) -> list[Disk]:
    return [Disk("/", 1000, int(free * 1000), 10, inodes_free)]


def backup(**last: Any) -> dict[str, Any]:
    return {"last_good": {"at": NOW - HOUR, "off_host": True, **last}}


def worker_host(**changes: Any) -> WorkerHost:
    """A worker host that is well, but for the changes."""
    values: dict[str, Any] = {
        **{"name": "atd-worker01", "release": RELEASE, "commit": "0123456789" * 4, "slots": 8},
        **{"queues": ("default", "atd-worker01"), "heard_seconds_ago": 4.2},
    }
    return WorkerHost(**{**values, **changes})


RELEASE = "2-11-2-d444c6765d29"
OF_THE_HOST = {"queues": {"default": 0, "atd-worker01": 2}}
"""Messages wait in a queue that a worker host alone consumes."""
UNTOLD = {"atd-worker01": frozenset({"default", "atd-worker01"})}
"""What the inventory says of a worker host of which the webhook does not tell."""
TIMER = Unit("airflow-backup.timer", sub="waiting", next=NOW + 60)
SYNC = Unit("dag-sync.timer", sub="waiting", next=NOW + 60, last=NOW - 240)

FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "Docker is gone": ({"docker": False, "containers": {}, "database": None}, {"docker-down"}),
    "containers end with Docker": ({"live_restore": False}, {"live-restore-off"}),
    "containers outlive Docker": ({"live_restore": True}, set()),
    "a container exited": (
        {"containers": containers(weather={"state": "exited"})},
        {"service-down weather"},
    ),
    "a container is missing": (
        {"containers": {name: one for name, one in containers().items() if name != "weather"}},
        {"service-down weather"},
    ),
    "a container restarts": (
        {"containers": containers(weather={"state": "restarting"})},
        {"service-down weather"},
    ),
    "a container is paused": (
        {"containers": containers(weather={"state": "paused"})},
        {"service-down weather"},
    ),
    "a container is unhealthy": (
        {"containers": containers(weather={"health": "unhealthy", "failing": 5})},
        {"service-unhealthy weather"},
    ),
    "a check failed once": (
        {"containers": containers(weather={"failing": 1})},
        {"service-unhealthy weather"},
    ),
    "a container starts": (
        {"containers": containers(weather={"health": "starting", "started": NOW - 60})},
        set(),
    ),
    "a container starts for ever": (
        {"containers": containers(weather={"health": "starting", "started": NOW - HOUR})},
        {"service-unhealthy weather"},
    ),
    "containers outlive a Docker that starts again": (
        {
            "containers": containers(weather={"health": "starting", "started": NOW - HOUR}),
            "units": [Unit("docker.service", started=NOW - 20)],
        },
        set(),
    ),
    "a container starts for ever after Docker": (
        {
            "containers": containers(weather={"health": "starting", "started": NOW - 24 * HOUR}),
            "units": [Unit("docker.service", started=NOW - HOUR)],
        },
        {"service-unhealthy weather"},
    ),
    "a service ran out of memory": (
        {"out_of_memory": {"weather": NOW - HOUR + 1}},
        {"service-out-of-memory weather"},
    ),
    "a service ran out of memory long ago": ({"out_of_memory": {"weather": NOW - HOUR}}, set()),
    "a service that is no longer there ran out of memory": ({"out_of_memory": {"gone": NOW}}, set()),
    "another image": ({"containers": containers(weather={"image": "nginx:0"})}, {"image-differs weather"}),
    "another version": ({"version": "2.6.1"}, {"version-differs"}),
    "the inventory asks for another version": ({"asked_version": "2.6.1"}, {"pin-differs"}),
    "the inventory asks for what runs": ({"asked_version": "2.11.2"}, set()),
    "no release was recorded": ({"recorded_version": ""}, set()),
    "a file was edited": ({"changed_files": ["/srv/airflow/.env"]}, {"files-differ /srv/airflow/.env"}),
    "the database is silent": ({"database": None}, {"database-silent"}),
    "Redis is silent": ({"queues": None}, {"queue-silent"}),
    "the scheduler is stopped": ({"database": database_of(scheduler_age=46)}, {"scheduler-silent"}),
    "there was never a scheduler": ({"database": database_of(scheduler_age=None)}, {"scheduler-silent"}),
    "the triggerer is stopped": ({"database": database_of(triggerer_age=400)}, {"triggerer-silent"}),
    "nothing is parsed": ({"database": database_of(parsed_age=301)}, {"dags-not-parsed"}),
    "there is no DAG": ({"database": database_of(parsed_age=None)}, set()),
    "tasks wait": ({"database": database_of(oldest_queued={"default": 181.0})}, {"tasks-wait default"}),
    "tasks wait for a moment": ({"database": database_of(oldest_queued={"default": 170.0})}, set()),
    "tasks wait and all slots are taken": (
        {"database": database_of(oldest_queued={"default": 999.0}, running=4)},
        set(),
    ),
    "tasks wait for nobody": (
        {"database": database_of(oldest_queued={"gpu": 61.0})},
        {"queue-without-worker gpu"},
    ),
    "messages wait for nobody": ({"queues": {"default": 3, "gpu": 1}}, {"queue-without-worker gpu"}),
    "tasks begin to wait for nobody": (
        {"database": database_of(oldest_queued={"gpu": 0.5}, oldest_tasks={"gpu": ["train", "fit"]})},
        {"queue-without-worker gpu"},
    ),
    "messages wait and nobody ever worked": (
        {
            "queues": {"default": 3},
            "containers": {name: one for name, one in containers().items() if name != "airflow-worker"},
            "services": {
                name: one for name, one in (well().services or {}).items() if name != "airflow-worker"
            },
        },
        {"queue-without-worker default"},
    ),
    "messages wait while the worker is away": (
        {
            "queues": {"default": 3},
            "containers": {name: one for name, one in containers().items() if name != "airflow-worker"},
        },
        {"service-down airflow-worker"},
    ),
    "a worker host is well": ({"worker_hosts": [worker_host()], "release": RELEASE, **OF_THE_HOST}, set()),
    "a worker host prepares": ({"worker_hosts": [worker_host(state="preparing")], **OF_THE_HOST}, set()),
    "a worker host was not heard for a moment": (
        {"worker_hosts": [worker_host(state="silent", heard_seconds_ago=59.0)]},
        set(),
    ),
    "a worker host is silent": (
        {"worker_hosts": [worker_host(state="silent", heard_seconds_ago=61.0)]},
        {"worker-host-silent atd-worker01"},
    ),
    "a worker host is silent and tasks wait for it": (
        {"worker_hosts": [worker_host(state="silent", heard_seconds_ago=61.0)], **OF_THE_HOST},
        {"worker-host-silent atd-worker01", "queue-without-worker atd-worker01"},
    ),
    "a worker host is fenced": (
        {"worker_hosts": [worker_host(state="fenced")]},
        {"worker-host-fenced atd-worker01"},
    ),
    "a worker host is fenced and tasks wait for it": (
        {"worker_hosts": [worker_host(state="fenced")], **OF_THE_HOST},
        {"worker-host-fenced atd-worker01", "queue-without-worker atd-worker01"},
    ),
    "another worker host consumes the queue of one that is fenced": (
        {
            "worker_hosts": [worker_host(state="fenced"), worker_host(name="atd-worker02")],
            **OF_THE_HOST,
        },
        {"worker-host-fenced atd-worker01"},
    ),
    "a worker host has another release": (
        {"worker_hosts": [worker_host(release="2-6-1-0123456789ab")], "release": RELEASE},
        {"worker-host-differs atd-worker01"},
    ),
    "a worker host has not said its release": (
        {"worker_hosts": [worker_host(release="")], "release": RELEASE},
        set(),
    ),
    "the webhook has just begun to hear worker hosts": (
        {
            "worker_hosts": [worker_host(state="silent", heard_seconds_ago=None)],
            "containers": {**containers(), "webhook": container("webhook", started=NOW - 59)},
        },
        set(),
    ),
    "a worker host was never heard": (
        {
            "worker_hosts": [worker_host(state="silent", heard_seconds_ago=None)],
            "containers": {**containers(), "webhook": container("webhook", started=NOW - 61)},
        },
        {"worker-host-silent atd-worker01"},
    ),
    "a worker host has free slots and tasks wait": (
        {
            "worker_hosts": [worker_host()],
            "database": database_of(
                oldest_queued={"atd-worker01": 181.0}, running=11, running_on={"atd-worker01": 7, "c0ffee": 4}
            ),
        },
        {"tasks-wait atd-worker01"},
    ),
    "tasks wait here while only a worker host of other queues has free slots": (
        {
            "worker_hosts": [worker_host(queues=("atd-worker01",))],
            "database": database_of(oldest_queued={"default": 181.0}, running=4, running_on={"c0ffee": 4}),
        },
        set(),
    ),
    "tasks wait here while a worker host is busy": (
        {
            "worker_hosts": [worker_host(queues=("atd-worker01",))],
            "database": database_of(
                oldest_queued={"default": 181.0}, running=8, running_on={"atd-worker01": 8}
            ),
        },
        {"tasks-wait default"},
    ),
    "a worker host that the webhook does not tell of consumes the queue": (
        {"worker_hosts": [], "worker_queues": UNTOLD, **OF_THE_HOST},
        set(),
    ),
    "the webhook is away, and tells of no worker host": (
        {"worker_hosts": None, "worker_queues": UNTOLD, **OF_THE_HOST},
        set(),
    ),
    "messages wait for nobody beside a worker host that the webhook does not tell of": (
        {"worker_queues": UNTOLD, "queues": {"gpu": 1, "atd-worker01": 1}},
        {"queue-without-worker gpu"},
    ),
    "tasks wait here while a worker host that the webhook does not tell of is busy": (
        {
            "worker_queues": UNTOLD,
            "database": database_of(
                oldest_queued={"default": 181.0}, running=8, running_on={"atd-worker01": 8}
            ),
        },
        {"tasks-wait default"},
    ),
    "a queue of earlier is empty": ({"queues": {"default": 0, "gpu": 0}}, set()),
    "a run is overdue": ({"database": database_of(overdue={"weather": 301.0})}, {"run-overdue weather"}),
    "a run is nearly overdue": ({"database": database_of(overdue={"weather": 299.0})}, set()),
    "a unit failed": (
        {"units": [Unit("smee-relay.service", active="failed", result="exit-code")]},
        {"unit-failed smee-relay.service"},
    ),
    "a unit did its work": ({"units": [Unit("dag-sync.service", active="inactive", sub="dead")]}, set()),
    "a timer is masked": (
        {"units": [dataclasses.replace(TIMER, load="masked", active="inactive")]},
        {"timer-off airflow-backup.timer"},
    ),
    "a timer was stopped": (
        {"units": [dataclasses.replace(TIMER, active="inactive", sub="dead")]},
        {"timer-off airflow-backup.timer"},
    ),
    "a timer was stopped and disabled": (
        {"units": [dataclasses.replace(TIMER, active="inactive", sub="dead", enabled="disabled")]},
        {"timer-off airflow-backup.timer"},
    ),
    "a timer is not enabled, as without a repository": (
        {"units": [dataclasses.replace(SYNC, active="inactive", sub="dead", enabled="disabled")]},
        set(),
    ),
    "a sync takes a while": (
        {"units": [dataclasses.replace(SYNC, sub="running", next=0, last=NOW - 20 * 60)]},
        set(),
    ),
    "a sync hangs": (
        {"units": [dataclasses.replace(SYNC, sub="running", next=0, last=NOW - 31 * 60)]},
        {"unit-failed dag-sync.service"},
    ),
    "a backup takes long": (
        {"units": [dataclasses.replace(TIMER, sub="running", next=NOW + DAY, last=NOW - 5 * HOUR)]},
        set(),
    ),
    "the platform would not come back": (
        {"units": [Unit("airflow.service", sub="exited", enabled="disabled")]},
        {"boot-off airflow.service"},
    ),
    "the platform comes back": ({"units": [Unit("airflow.service", sub="exited")]}, set()),
    "a timer has no next time": (
        {"units": [dataclasses.replace(TIMER, sub="elapsed")]},
        {"timer-off airflow-backup.timer"},
    ),
    "a timer is late": (
        {"units": [dataclasses.replace(TIMER, next=NOW - HOUR)]},
        {"timer-off airflow-backup.timer"},
    ),
    "a timer's work is under way": (
        {"units": [dataclasses.replace(TIMER, sub="running", next=NOW - HOUR)]},
        set(),
    ),
    "the disk is low": ({"disks": disk(0.09)}, {"disk-low /"}),
    "the disk is at 95 %": ({"disks": disk(0.049)}, {"disk-full /"}),
    "no inodes": ({"disks": disk(0.5, 0)}, {"inodes-low /"}),
    "a file system without a number of inodes": ({"disks": [Disk("/", 100, 50)]}, set()),
    "the certificate ends soon": ({"certificate_ends": NOW + 20 * DAY}, {"certificate-ends"}),
    "the certificate ended": ({"certificate_ends": NOW - 1}, {"certificate-ended"}),
    "the certificate for worker hosts ends soon": (
        {"worker_certificate_ends": NOW + 20 * DAY},
        {"worker-certificate-ends"},
    ),
    "a dropped certificate is refused": (
        {
            "certificate_refused": "browsers would refuse it",
            "units": [Unit("airflow-certificate.service", active="failed", result="exit-code")],
        },
        {"certificate-refused"},
    ),
    "the certificate is damaged": ({"gaps": {"certificate": "damaged"}}, {"certificate-ended"}),
    "there is no certificate": ({"certificate_ends": None}, set()),
    "the token ends soon": ({"connect": connect(token_ends=NOW + 13 * DAY)}, {"token-ends"}),
    "the token ended": ({"connect": connect(token_ends=NOW - 1, status=401)}, {"token-refused"}),
    "the token was revoked": ({"connect": connect(status=401)}, {"token-refused"}),
    "the token has no end": ({"connect": connect(token_ends=None)}, set()),
    "the token of tasks reads all": ({"connect": connect(reads_platform=True)}, {"token-shared"}),
    "the webhook's token was revoked": ({"connect": connect(platform_status=401)}, {"token-refused webhook"}),
    "both tokens were revoked": ({"connect": connect(status=401, platform_status=401)}, {"token-refused"}),
    "Connect is away": ({"connect": connect(status=0, clock=None)}, {"connect-silent"}),
    "Connect is ill": ({"connect": connect(status=503)}, {"connect-silent"}),
    "Connect is asked too often": ({"connect": connect(status=429)}, {"connect-silent"}),
    "Connect is elsewhere": ({"connect": connect(status=301)}, {"connect-silent"}),
    "Connect knows no such vault": ({"connect": connect(status=404)}, {"token-refused"}),
    "the vault's name is no name": ({"connect": connect(status=400)}, {"token-refused"}),
    "the clock is an hour ahead": ({"connect": connect(clock=-3600.0)}, {"clock-wrong"}),
    "the clock is an hour behind": ({"connect": connect(clock=3600.0)}, {"clock-wrong"}),
    "the clock went back": ({"database": database_of(scheduler_age=-3600.0)}, {"clock-wrong"}),
    "the clock is not synchronised": ({"clock_synchronised": False}, {"clock-not-synchronised"}),
    "the backup is old": ({"backup": backup(at=NOW - 3 * DAY)}, {"backup-old"}),
    "there is no backup yet": ({"backup": {"installed_at": NOW - HOUR}}, set()),
    "there never was a backup": ({"backup": {"installed_at": NOW - 3 * DAY}}, {"backup-old"}),
    "nothing is known of backups": ({"backup": {}}, {"backup-old"}),
    "the backup failed": (
        {"backup": {**backup(), "last_failure": {"reason": "no space"}}},
        {"backup-failed"},
    ),
    "the backup has no copy": (
        {"backup": backup(off_host=False), "backup_remote": True},
        {"backup-not-copied"},
    ),
    "there is no remote": ({"backup": backup(off_host=False)}, set()),
    "the backup failed, and so its unit": (
        {
            "backup": {**backup(), "last_failure": {"reason": "no space"}},
            "units": [Unit("airflow-backup.service", active="failed", result="exit-code")],
        },
        {"backup-failed"},
    ),
    "there was no clean-up yet": ({"clean": {}}, set()),
    "the clean-up was done": ({"clean": {"at": NOW - DAY, "failed": ""}}, set()),
    "the clean-up did not run": ({"clean": {"at": NOW - 3 * DAY, "failed": ""}}, {"clean-old"}),
    "the clean-up could not keep a limit, and its unit failed": (
        {
            "clean": {"at": NOW - HOUR, "failed": "logs: logs of tasks take 30 %"},
            "units": [Unit("airflow-clean.service", active="failed", result="exit-code")],
        },
        {"clean-failed"},
    ),
    "the clean-up was killed": (
        {
            "clean": {"at": NOW - HOUR, "failed": ""},
            "units": [Unit("airflow-clean.service", active="failed", result="timeout")],
        },
        {"unit-failed airflow-clean.service"},
    ),
    "a reboot is pending": ({"reboot_required": True}, {"reboot-pending"}),
    "updates are pending": ({"security_updates": 2}, {"security-updates"}),
    "units could not be seen": ({"gaps": {"units": "no bus"}}, {"check-failed units"}),
    "the project could not be read": (
        {"services": None, "gaps": {"Compose project": "invalid"}},
        {"check-failed Compose project"},
    ),
    "Docker's events could not be read": (
        {"gaps": {"Docker events": "HTTP 500"}},
        {"check-failed Docker events"},
    ),
    "the outcomes of tasks could not be counted": (
        {"gaps": {"task outcomes": "statement timeout"}},
        {"check-failed task outcomes"},
    ),
}


FAULTS.update(
    {f"the webhook tells {light}": ({"webhook": [Told(light, "It.")]}, {light}) for light in OF_THE_WEBHOOK}
)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_said_and_nothing_else(fault: str) -> None:
    changes, expected = FAULTS[fault]
    assert found(well(**changes)) == expected


@pytest.mark.parametrize(
    ("last_given", "words"),
    [
        (NOW - 5 * HOUR, "as it should: HTTP 503. The vault gave the platform its secrets 5 hours ago."),
        (None, "as it should: HTTP 503."),
    ],
)
def test_silent_connect_says_how_old_the_secrets_are(last_given: float | None, words: str) -> None:
    facts = well(connect=connect(status=503, last_given=last_given))
    [finding] = judge.judge(facts, Trends())
    assert finding.what.partition(" does not answer ")[2] == words


@pytest.mark.parametrize(("memory", "words"), [(2**30, "its limit is 1024 MiB"), (0, "it has no limit")])
def test_service_that_ran_out_of_memory_says_its_limit_and_its_setting(memory: int, words: str) -> None:
    facts = well(out_of_memory={"weather": NOW}, containers=containers(weather={"memory": memory}))
    [finding] = judge.judge(facts, Trends())
    assert finding.what == f"The kernel ended a process of weather for want of memory; {words}."
    assert "raise its `service_limits`" in finding.advice


NOBODY = "Nobody consumes the queue gpu: "
TASK = database_of(oldest_queued={"gpu": 600.0}, oldest_tasks={"gpu": ["train", "fit"]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"database": TASK, "queues": {"gpu": 1}},
            "the task fit of the DAG train has waited since 2027-01-15 07:50 UTC."
            " The workers consume default.",
        ),
        ({"queues": {"gpu": 1}}, "1 message waits. The workers consume default."),
        ({"queues": {"gpu": 3}, "database": None}, "3 messages wait. The workers consume default."),
        (
            {"queues": {"gpu": 3}, "worker_hosts": [worker_host(queues=("cpu",))]},
            "3 messages wait. The workers consume cpu, default.",
        ),
        (
            {"queues": {"gpu": 3}, "worker_hosts": [worker_host(queues=("gpu",), state="fenced")]},
            "3 messages wait. It is a queue of atd-worker01, which takes no tasks.",
        ),
    ],
)
def test_queue_that_nobody_consumes_says_who_waits(changes: dict[str, Any], words: str) -> None:
    [what] = [
        one.what for one in judge.judge(well(**changes), Trends()) if one.light == "queue-without-worker"
    ]
    assert what == NOBODY + words


@pytest.mark.parametrize(
    ("queues", "service"),
    [(("default", "gpu"), ""), (("gpu",), "airflow-worker")],
    ids=["of a worker host", "of both"],
)
def test_no_worker_is_restarted_for_the_free_slots_of_a_worker_host(
    queues: tuple[str, ...], service: str
) -> None:
    """The worker here has no free slot, or has some while the other one is full."""
    busy = {"c0ffee": 4} if not service else {"atd-worker01": 8}
    tables = database_of(oldest_queued={"default": 181.0}, running=sum(busy.values()), running_on=busy)
    facts = well(worker_hosts=[worker_host(queues=queues)], database=tables)
    [finding] = judge.judge(facts, Trends())
    assert (finding.key, finding.mends) == ("tasks-wait default", service)


class Earlier(Trends):
    """What was known before the webhook fell silent."""

    def queues_elsewhere(self) -> set[str]:
        return {"atd-worker01"}


@pytest.mark.parametrize(("hosts", "expected"), [(None, set()), ([], {"queue-without-worker atd-worker01"})])
def test_queue_of_a_worker_host_is_not_forgotten_while_the_webhook_is_silent(
    hosts: list[WorkerHost] | None, expected: set[str]
) -> None:
    assert found(well(worker_hosts=hosts, **OF_THE_HOST), Earlier()) == expected


@pytest.mark.parametrize("light", [name for name, light in LIGHTS.items() if light.where != "worker"])
def test_light_is_tried(light: str) -> None:
    """What no test lights may never be lit; those of worker hosts are in test_checker_worker_host.py."""
    with_trends = {
        "service-restarts",
        "database-grows",
        "operation-stands",
        "unit-restarted",
        "host-restarted",
    }
    lit = {key.split()[0] for _, expected in FAULTS.values() for key in expected}
    assert light in lit | with_trends


class Growth(Trends):
    """A host on which everything grows."""

    def __init__(self, days: float = 100, growth: tuple[int, float] = (0, 0.0), starts: int = 0) -> None:
        self.days, self.growth, self.count = days, growth, starts

    def starts(self, service: str) -> int:
        return self.count if service == "weather" else 0

    def days_until_full(self, disk: Disk) -> float | None:
        return self.days

    def database_growth(self) -> tuple[int, float] | None:
        return self.growth


@pytest.mark.parametrize(
    ("trends", "expected"),
    [
        (Growth(), set()),
        (Growth(days=6.9), {"disk-low /"}),
        (Growth(days=0.9), {"disk-full /"}),
        (Growth(growth=(2**31, 0.2)), {"database-grows"}),
        (Growth(growth=(2**31, 0.05)), set()),
        (Growth(growth=(2**20, 0.9)), set()),
        (Growth(starts=2), set()),
        (Growth(starts=3), {"service-restarts weather"}),
    ],
)
def test_trend_is_said(trends: Growth, expected: set[str]) -> None:
    assert found(well(), trends) == expected


ILL = {
    "containers": containers(weather={"state": "exited"}, airflow_worker={"health": "unhealthy"}),
    "database": None,
    "queues": None,
    "changed_files": ["/srv/airflow/.env"],
    "version": "2.6.1",
    "gaps": {"Compose project": "half a file"},
}


@pytest.mark.parametrize("state", [*journal.ACTIVE, *journal.ENDED])
def test_what_a_switch_does_on_purpose_is_no_finding(state: str) -> None:
    """Nothing that runs has changed in `prepared`, and what is over excuses nothing."""
    operation = {"state": state, "kind": "upgrade", "phases": [{"started": NOW - 60}]}
    excused = state in journal.ACTIVE and state != "prepared"
    assert (found(well(**ILL, operation=operation)) == set()) == excused


@pytest.mark.parametrize(
    ("free", "expected"), [(0.31, set()), (0.29, {"disk-low /"}), (0.19, {"disk-full /"})]
)
def test_operator_says_which_disk_is_low_and_which_is_full(free: float, expected: set[str]) -> None:
    facts = well(disks=disk(free), disk_low_percent=30, disk_full_percent=20)
    assert found(facts) == expected


def test_switch_hides_nothing_of_the_host() -> None:
    facts = well(operation={"state": "switching", "phases": [{"started": NOW}]}, disks=disk(0.04))
    assert found(facts) == {"disk-full /"}


@pytest.mark.parametrize("state", journal.ACTIVE)
def test_operation_that_stands_is_said(state: str) -> None:
    operation = {"state": state, "kind": "upgrade", "phases": [{"started": NOW - 7 * HOUR}]}
    assert "operation-stands" in found(well(operation=operation))


def test_platform_that_was_stopped_on_purpose_is_not_ill() -> None:
    assert found(well(**ILL, stopped=True)) == set()


@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        ((), {}, ["default"]),
        ((), {"AIRFLOW__OPERATORS__DEFAULT_QUEUE": "main"}, ["main"]),
        (("-q", "a,b"), {}, ["a", "b"]),
        (("--queues", "a, b"), {}, ["a", "b"]),
        (("--queues=a",), {}, ["a"]),
        (("-q",), {}, []),
    ],
)
def test_queues_of_a_worker(
    command: tuple[str, ...], environment: dict[str, str], expected: list[str]
) -> None:
    worker = container(
        "airflow-worker", command=("airflow", "celery", "worker", *command), environment=environment
    )
    assert judge.queues_of(worker) == expected


@pytest.mark.parametrize(
    ("fault", "service"),
    [
        ("a container is unhealthy", "weather"),
        ("a check failed once", ""),
        ("a container exited", ""),
        ("the scheduler is stopped", "airflow-scheduler"),
        ("the triggerer is stopped", "airflow-triggerer"),
        ("nothing is parsed", "airflow-scheduler"),
        ("tasks wait", "airflow-worker"),
        ("the database is silent", ""),
    ],
)
def test_restart_that_may_help_is_named(fault: str, service: str) -> None:
    [finding] = judge.judge(well(**FAULTS[fault][0]), Trends())
    assert finding.mends == service


def test_every_service_is_judged() -> None:
    """The project says which; no list of this package does."""
    facts = well(services={**(well().services or {}), "new": wanted("new", "new:1")})
    assert found(facts) == {"service-down new"}


@pytest.mark.parametrize(
    ("light", "subject", "command"),
    [
        ("service-down", "weather", "`docker compose logs weather`"),
        ("unit-failed", "airflow-backup.service", "`systemctl restart airflow-backup.service`"),
        ("timer-off", "dag-sync.timer", "`systemctl unmask dag-sync.timer`"),
        ("service-down", r"\1", r"`docker compose logs \1`"),
    ],
)
def test_commands_of_an_advice_can_be_copied(light: str, subject: str, command: str) -> None:
    assert command in Finding(light, subject, "").advice


def test_no_advice_makes_another_fault() -> None:
    """A command is in a file that is rendered: whoever edits it gets `files-differ`."""
    assert not [name for name, light in LIGHTS.items() if "worker's command" in light.advice]
