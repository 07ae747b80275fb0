"""Twelve faults, one by one: each is told within three minutes, what can be mended is mended within five.

By default the next look has to see what needs no restart, a few seconds each. With UPGRADE_TESTS=all each
is told and mended, about half an hour: REDIS_KILLS says how often Redis is killed for 15 s (3), and
QUIET_SECONDS how long the quiet period is (150); the full measure is 20 and 3600. Docker or containerd killed
and the host's power cut are in test_docker_faults.py, Redis killed with Airflow 2.5.3 is in molecule/upgrade.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow_api import AirflowApi, wait_for
from checker_on_host import BACKUPS, Checker
from expected import DIRECTORY
from faulty_host import AWAY_SECONDS, CONSUMES_SECONDS, Platform, killed_redis, with_dag
from long_tests import when_asked
from testinfra.host import Host

from tests.certificates import certificate

REDIS_KILLS = int(os.environ.get("REDIS_KILLS") or 3)
QUIET_SECONDS = int(os.environ.get("QUIET_SECONDS") or 150)

TOLD_SECONDS = 180
MENDED_SECONDS = 300
LOOK_SECONDS = 120
"""The checker looks every 30 s; on a busy machine a look may take long."""
CALM_SECONDS = 900
"""A fault is over when it has been away for five minutes; one of an earlier test may just have ended."""
MOST_MESSAGES = 3

ONEPASSWORD = f"{DIRECTORY}/env/onepassword.env"
CERTIFICATE = f"{DIRECTORY}/haproxy/certificate.pem"
TIMER = "airflow-clean.timer"

OTHER_CLOCK_PORT = 9911
OTHER_CLOCK = f"""
import http.server, time


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def date_time_string(self, timestamp=None):
        return super().date_time_string(time.time() + 3630)


http.server.HTTPServer(("127.0.0.1", {OTHER_CLOCK_PORT}), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def platform(host: Host, airflow: AirflowApi) -> Iterator[Platform]:
    """The platform with a DAG."""
    with with_dag(host, airflow) as platform:
        yield platform


@contextmanager
def edited(platform: Platform, file: str, edit: str) -> Iterator[None]:
    """Have a file edited by a sed script, and then again as it was."""
    copy = f"/root/{os.path.basename(file)}.before"
    platform.check(f"cp --preserve=all {file} {copy} && sed --in-place %s {file}", edit)
    try:
        yield
    finally:
        platform.check(f"cp --preserve=all {copy} {file} && rm {copy}")


@contextmanager
def stopped_scheduler(platform: Platform) -> Iterator[None]:
    """Have its process stopped where it stands; its container runs."""
    container = "$(docker compose ps --quiet airflow-scheduler)"
    process = platform.check(f"docker inspect --format %s {container}", "{{.State.Pid}}")
    platform.check(f"pkill --signal STOP --parent {process}")
    yield


@contextmanager
def consuming_nothing(platform: Platform) -> Iterator[None]:
    """Have a worker that answers a ping, and takes no task."""
    cancel = 'celery --broker "$AIRFLOW__CELERY__BROKER_URL" control cancel_consumer default'
    platform.check("docker compose exec --no-TTY airflow-worker sh -c %s", cancel)
    yield


def disk(options: str, fill: str) -> Callable[[Platform], AbstractContextManager[None]]:
    """Return what has a small disk where backups go, and fills it; what is there is back afterwards."""

    @contextmanager
    def injected(platform: Platform) -> Iterator[None]:
        platform.check(f"mount -t tmpfs -o {options},mode=0700 tmpfs {BACKUPS}")
        try:
            platform.check(f"cd {BACKUPS} && {fill}")
            yield
        finally:
            platform.check(f"umount {BACKUPS}")

    return injected


@contextmanager
def clock_off(platform: Platform) -> Iterator[None]:
    """Have a Connect whose clock is an hour ahead; the host's own is this machine's, and is not touched."""
    unit = "clock-of-another-host"
    platform.check(f"systemd-run --quiet --collect --unit={unit} python3 -c %s", OTHER_CLOCK)
    try:
        listening = f"ss --no-header --listening --tcp --numeric 'sport = :{OTHER_CLOCK_PORT}'"
        wait_for("the other clock", lambda: platform.check(listening), 20)
        with edited(
            platform, ONEPASSWORD, f"s|^OP_CONNECT=.*|OP_CONNECT='http://127.0.0.1:{OTHER_CLOCK_PORT}'|"
        ):
            yield
    finally:
        platform.check(f"systemctl stop {unit}")


@contextmanager
def expired_certificate(platform: Platform) -> Iterator[None]:
    """Have one where that of HAProxy would be, which has none here and does not look again."""
    pem = certificate(["example.org"], timedelta(minutes=-1))
    platform.check(f"test ! -e {CERTIFICATE} && printf %s %s > {CERTIFICATE}", "%s", pem)
    try:
        yield
    finally:
        platform.check(f"rm {CERTIFICATE}")


@contextmanager
def revoked_token(platform: Platform) -> Iterator[None]:
    """Have a token that Connect does not accept."""
    with edited(platform, ONEPASSWORD, "s|^OP_API_TOKEN=.*|OP_API_TOKEN='revoked'|"):
        yield


@contextmanager
def masked_timer(platform: Platform) -> Iterator[None]:
    """Have a timer masked, as by somebody who wants quiet; a unit of /etc goes out of the way for that."""
    unit = f"/etc/systemd/system/{TIMER}"
    platform.check(f"mv {unit} /root/{TIMER} && systemctl mask --now {TIMER}")
    try:
        yield
    finally:
        platform.check(f"systemctl unmask {TIMER} && mv /root/{TIMER} {unit}")
        platform.check(f"systemctl daemon-reload && systemctl enable --now {TIMER}")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and what the checker says and does."""

    injected: Callable[[Platform], AbstractContextManager[None]]
    light: str
    subject: str
    words: str
    """What its message says."""
    restarts: str = ""
    """The service whose restart mends it."""


FAULTS = {
    "stopped scheduler": Fault(
        stopped_scheduler, "scheduler-silent", "", "airflow-scheduler was last alive", "airflow-scheduler"
    ),
    "worker that consumes nothing": Fault(
        consuming_nothing,
        "service-unhealthy",
        "airflow-worker",
        "airflow-worker failed its health check",
        "airflow-worker",
    ),
    "Redis killed": Fault(
        lambda platform: killed_redis(platform.check),
        "service-down",
        "redis",
        "The container of redis is exited",
    ),
    "disk at 95 %": Fault(
        disk("size=16m", f"head --bytes={16 * 2**20 * 96 // 100} /dev/zero > full"),
        "disk-full",
        BACKUPS,
        f"The disk of {BACKUPS} has ",
    ),
    "no inodes": Fault(
        disk("size=16m,nr_inodes=64", "i=0; while touch $i 2>/dev/null; do i=$((i + 1)); done"),
        "inodes-low",
        BACKUPS,
        " of 64 inodes free",
    ),
    "clock off by an hour": Fault(clock_off, "clock-wrong", "", "The host's clock is 1 hour behind"),
    "expired certificate": Fault(expired_certificate, "certificate-ended", "", "The certificate ended "),
    "revoked token": Fault(revoked_token, "token-refused", "", "Connect refuses the token (HTTP 401)"),
    "masked timer": Fault(masked_timer, "timer-off", TIMER, f"{TIMER} is masked"),
}

SEEN_AT_ONCE = (
    *("disk at 95 %", "no inodes", "clock off by an hour", "expired certificate", "revoked token"),
    "masked timer",
)
"""Faults that change nothing which the platform uses at the moment."""

began: dict[str, datetime] = {}
"""When each fault of this session was injected."""


@pytest.mark.parametrize("fault", SEEN_AT_ONCE)
def test_next_look_sees_the_fault(host: Host, airflow: AirflowApi, checker: Checker, fault: str) -> None:
    """Whether it is told, once and then that it is over, a test below shows when it is asked."""
    known = FAULTS[fault]
    with known.injected(Platform(host, airflow)):
        checker.look()
        # A look that was under way has not seen it.
        if (known.light, known.subject) not in checker.found():
            checker.look()
        assert (known.light, known.subject) in checker.found()


@when_asked
def test_quiet_period_is_quiet(checker: Checker) -> None:
    """No message, and no restart; first of all, since what a fault leaves behind takes an hour."""
    wait_for("the end of what earlier tests did", lambda: not checker.open_faults(), CALM_SECONDS)
    since, restarted = datetime.now(UTC), checker.memory["restarted"]
    end = (since + timedelta(seconds=QUIET_SECONDS)).strftime("%Y-%m-%dT%H:%M:%SZ")
    last_look = "the last look of a quiet period"
    wait_for(last_look, lambda: checker.health["generated"] > end, QUIET_SECONDS + LOOK_SECONDS, pause=5)
    assert checker.messages(since) == []
    assert checker.memory["restarted"] == restarted


@when_asked
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told_and_mended(platform: Platform, checker: Checker, fault: str) -> None:
    """In the file of which the page is made, and by one message; about two minutes, three with a restart."""
    known = FAULTS[fault]
    started = platform.starts().get(known.restarts)
    began[fault] = since = datetime.now(UTC)
    start = time.monotonic()

    def wait(what: str, condition: Callable[[], Any], seconds: float) -> None:
        """Wait for so long since the fault began."""
        wait_for(what, condition, start + seconds - time.monotonic())

    def is_lit() -> bool:
        return (known.light, known.subject) in checker.found()

    def is_another() -> bool:
        # While it is being restarted, there is none.
        return platform.starts().get(known.restarts, started) != started

    with known.injected(platform):
        wait("the light", is_lit, TOLD_SECONDS)
        wait("the message", lambda: checker.messages(since, known.words), TOLD_SECONDS)
        if known.restarts:
            wait(f"another {known.restarts}", is_another, MENDED_SECONDS)
            wait("its health", lambda: known.restarts in platform.services("health=healthy"), MENDED_SECONDS)
            platform.run_task(start + MENDED_SECONDS - time.monotonic())
    wait_for("the end of the light", lambda: not is_lit(), LOOK_SECONDS)
    assert len(checker.messages(since, known.words)) == 1
    platform.run_task(CONSUMES_SECONDS)


@when_asked
@pytest.mark.parametrize("number", range(1, REDIS_KILLS + 1))
def test_worker_consumes_after_redis_was_away(platform: Platform, number: int) -> None:
    """By itself or by a restart, within two minutes after Redis is back."""
    with killed_redis(platform.check):
        time.sleep(AWAY_SECONDS)  # the fault itself: it is away for so long
    back = time.monotonic()
    platform.run_task(CONSUMES_SECONDS)
    print(f"kill {number}: a task had run {time.monotonic() - back:.0f} s after Redis was back")


@when_asked
def test_no_fault_has_more_than_three_messages(checker: Checker) -> None:
    """That it is there and that it is over, which is told when it has been away for five minutes."""
    if not began:
        pytest.skip("no fault was injected in this session")
    wait_for("the end of every fault", lambda: not checker.open_faults(), CALM_SECONDS, pause=5)
    everything = checker.messages(min(began.values()))
    # Those that killed Redis again and again are one.
    assert len(everything) <= MOST_MESSAGES * (len(began) + 1), everything
    over = [line for text in everything for line in text.splitlines() if "Over after" in line]
    assert [fault for fault in began if not any(FAULTS[fault].words in line for line in over)] == []
