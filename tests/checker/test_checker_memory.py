"""What is told, how often, and what is restarted: over many runs, with a clock of the test's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from airflow_checker import judge, mend, messages
from airflow_checker import memory as memory_module
from airflow_checker.facts import Disk, Unit
from airflow_checker.judge import DAY, HOUR
from airflow_checker.lights import LIGHTS, Finding
from airflow_checker.memory import Memory
from airflow_checker.slack_message import escape
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checker.conftest import NOW, containers, database_of, well

ILL = {"containers": containers(weather={"health": "unhealthy", "failing": 5})}
SWITCH = {"operation": {"state": "switching", "kind": "upgrade", "phases": [{"started": NOW}]}}


class Platform:
    """Runs the checker's parts as `cli.check` does, once a minute; nothing leaves the test."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.now = NOW
        self.messages: list[str] = []
        self.restarted: list[tuple[float, str]] = []
        self.slack = True

    def run(self, seconds: Any = 60, **changes: Any) -> list[Finding]:
        self.now += seconds
        facts = well(**{"units": [], "backup": None, **changes, "now": self.now})
        memory = self.memory
        memory.observe(facts)
        findings = judge.judge(facts, memory)
        over = memory.see(
            findings, blind=facts.stopped or judge.switching(facts.operation) or not facts.docker
        )
        for service, asking in mend.wanted(facts, findings, memory, ("postgres",)).items():
            self.restarted.append((self.now, service))
            memory.restart(service)
            for finding in asking:
                memory.episodes[finding.key].restarts += 1
        news = messages.news(findings, over, memory)
        if news and self.slack:
            self.messages.append(messages.message(news, memory, title="production host")["text"])
            messages.note(news, memory)
        elif news:
            memory.owe(news.over)
        return findings


@pytest.fixture
def platform() -> Platform:
    return Platform()


def test_quiet_hour_is_quiet(platform: Platform) -> None:
    for _ in range(60):
        platform.run()
    assert (platform.messages, platform.restarted) == ([], [])


def test_fault_is_told_once_and_its_end_once(platform: Platform) -> None:
    down = {"containers": containers(weather={"state": "exited"})}
    platform.run(**down)
    assert platform.messages == []
    for _ in range(30):
        platform.run(**down)
    assert len(platform.messages) == 1
    assert "The container of weather is exited." in platform.messages[0]
    assert "docker compose ps --all" in platform.messages[0]
    for _ in range(10):
        platform.run()
    assert len(platform.messages) == 2
    assert "Over after 30 minutes" in platform.messages[1]


def test_fault_that_stays_is_told_again_after_a_day_and_never_more(platform: Platform) -> None:
    down = {"containers": containers(weather={"state": "exited"})}
    for _ in range(24 * 5):
        platform.run(HOUR, **down)
    assert len(platform.messages) == 2
    platform.run()
    platform.run(HOUR)
    assert len(platform.messages) == 3


def test_fault_of_one_run_is_not_told(platform: Platform) -> None:
    for index in range(40):
        platform.run(**({"containers": containers(weather={"failing": 1})} if index % 2 else {}))
    assert platform.messages == []


CHECKS_FAIL = {"health": "unhealthy", "failing": 9}
CASCADES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "Postgres was stopped": (
        {"containers": containers(postgres={"state": "exited"}), "database": None},
        {
            "containers": containers(
                postgres={"state": "exited"},
                airflow_scheduler=CHECKS_FAIL,
                airflow_triggerer=CHECKS_FAIL,
                airflow_worker=CHECKS_FAIL,
            ),
            "database": None,
        },
        "The container of postgres is exited.",
    ),
    "Redis was stopped": (
        {"containers": containers(redis={"state": "exited"}), "queues": None},
        {
            "containers": containers(redis={"state": "exited"}, airflow_worker=CHECKS_FAIL),
            "queues": None,
            "database": database_of(oldest_queued={"default": 600.0}),
        },
        "The container of redis is exited.",
    ),
    "the database answers nobody": (
        {"database": None},
        {"database": None, "containers": containers(airflow_scheduler=CHECKS_FAIL)},
        "The database does not answer.",
    ),
    "the scheduler was stopped": (
        {"containers": containers(airflow_scheduler={"state": "exited"})},
        {
            "containers": containers(airflow_scheduler={"state": "exited"}),
            "database": database_of(scheduler_age=900, parsed_age=900, overdue={"weather": 600.0}),
        },
        "The container of airflow-scheduler is exited.",
    ),
}


@pytest.mark.parametrize("cascade", CASCADES)
def test_what_follows_from_a_fault_is_seen_and_not_told(platform: Platform, cascade: str) -> None:
    """A fault has its message, and one when it is over; the page has everything."""
    first, later, told = CASCADES[cascade]
    for _ in range(3):
        platform.run(**first)
    for _ in range(20):
        assert len(platform.run(**later)) > 1
    for _ in range(10):
        platform.run()
    assert len(platform.messages) == 2
    assert told in platform.messages[0]
    assert "Over after" in platform.messages[1]


def test_what_stays_when_its_cause_is_over_is_told(platform: Platform) -> None:
    worker = {"airflow_worker": {**CHECKS_FAIL, "state": "running"}}
    for _ in range(5):
        platform.run(containers=containers(redis={"state": "exited"}, **worker), queues=None)
    for _ in range(3):
        platform.run(containers=containers(**worker))
    assert "airflow-worker failed its health check" in platform.messages[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_messages_are_bounded_whatever_a_fault_does(seen: Sequence[bool]) -> None:
    """Two for each time that it was away for five minutes, and a reminder a day."""
    platform = Platform()
    for ill in seen:
        platform.run(**({"containers": containers(weather={"state": "exited"})} if ill else {}))
    assert len(platform.messages) <= 3 * (1 + len(seen) // 6)


def test_notice_is_told_to_nobody(platform: Platform) -> None:
    for _ in range(10):
        platform.run(reboot_required=True, clock_synchronised=False)
    assert platform.messages == []


def test_switch_is_quiet_from_its_beginning_to_its_end(platform: Platform) -> None:
    everything: dict[str, Any] = {"containers": {}, "database": None, "queues": None, "version": "2.6.1"}
    platform.run()
    for _ in range(60):
        platform.run(**SWITCH, **everything)
    for _ in range(10):
        platform.run()
    assert (platform.messages, platform.restarted) == ([], [])


def test_switch_ends_no_fault_of_before(platform: Platform) -> None:
    down = {"containers": containers(weather={"state": "exited"})}
    for _ in range(3):
        platform.run(**down)
    for _ in range(30):
        platform.run(**SWITCH, **down)
    assert len(platform.messages) == 1


def test_docker_that_is_away_ends_no_fault(platform: Platform) -> None:
    for _ in range(3):
        platform.run(**ILL)
    told = len(platform.messages)
    for _ in range(30):
        platform.run(docker=False, containers={}, database=None, queues=None)
    assert len(platform.messages) == told + 1
    assert "Docker does not answer" in platform.messages[-1]


def test_what_slack_did_not_take_is_told_later(platform: Platform) -> None:
    down = {"containers": containers(weather={"state": "exited"})}
    platform.slack = False
    for _ in range(3):
        platform.run(**down)
    platform.slack = True
    platform.run(**down)
    assert len(platform.messages) == 1
    platform.slack = False
    for _ in range(10):
        platform.run()
    platform.slack = True
    platform.run()
    assert len(platform.messages) == 2
    assert "Over" in platform.messages[1]


def test_unhealthy_service_is_restarted_three_times_an_hour_with_a_message(platform: Platform) -> None:
    for _ in range(59):
        platform.run(**ILL)
    assert [service for _, service in platform.restarted] == ["weather"] * mend.MOST
    assert platform.restarted[0][0] == NOW + 60
    assert all(later - before >= mend.SETTLE_SECONDS for (before, _), (later, _) in pairs(platform.restarted))
    first, second = platform.messages
    assert "Restarted once." in first
    assert "Restarted 3 times, which did not help." in second
    for _ in range(10):
        platform.run(**ILL)
    assert len(platform.restarted) > mend.MOST
    assert len(platform.messages) == 2


def test_fault_that_restarts_do_not_mend_has_three_messages(platform: Platform) -> None:
    """That it is there, that restarts are used up, and that it is over; they are no fault of their own."""
    platform.run()
    for _ in range(3):
        platform.run(containers=containers(weather={"failing": 2}))
    assert "Restarted" not in platform.messages[0]
    started = NOW
    for _ in range(20):
        if platform.restarted:
            started = platform.restarted[-1][0]
        platform.run(containers=containers(weather={"health": "unhealthy", "failing": 5, "started": started}))
    assert len(platform.restarted) == mend.MOST
    for _ in range(15):
        found = platform.run(containers=containers(weather={"started": started}))
    assert found == []
    assert len(platform.messages) == 3
    assert "Restarted 3 times, which did not help." in platform.messages[1]
    assert "restarted 3 times" in platform.messages[2]


def pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values, values[1:]))


def test_restart_that_helped_is_told(platform: Platform) -> None:
    platform.run(**ILL)
    for _ in range(10):
        platform.run()
    assert len(platform.messages) == 2
    assert "restarted once" in platform.messages[1]


@pytest.mark.parametrize(
    "excuse",
    [
        SWITCH,
        {"stopped": True},
        {"containers": containers(airflow_worker={"health": "unhealthy"}, redis={"state": "exited"})},
        {
            "containers": containers(
                airflow_worker={"health": "unhealthy"}, redis={"health": "starting", "started": NOW + 600}
            )
        },
        {"queues": None},
        {"database": None},
    ],
)
def test_worker_is_let_be_where_no_restart_helps(platform: Platform, excuse: dict[str, Any]) -> None:
    ill = {"containers": containers(airflow_worker={"health": "unhealthy"})}
    for _ in range(10):
        platform.run(**{**ill, **excuse})
    assert platform.restarted == []
    platform.run(**ill)
    assert [service for _, service in platform.restarted] == ["airflow-worker"]


@pytest.mark.parametrize(("running", "minute"), [(0, 1), (1, 12)])
def test_worker_that_may_be_stopping_has_time_for_its_tasks(
    platform: Platform, running: int, minute: int
) -> None:
    for _ in range(15):
        ill = containers(airflow_worker={"health": "unhealthy", "failing": 2})
        platform.run(containers=ill, database=database_of(running=running))
    assert platform.restarted[0] == (NOW + minute * 60, "airflow-worker")


def test_files_may_differ_while_site_yml_runs(platform: Platform) -> None:
    for _ in range(30):
        platform.run(changed_files=["/srv/airflow/.env"], version="2.6.1")
    assert platform.messages == []
    for _ in range(35):
        platform.run(changed_files=["/srv/airflow/.env"])
    assert len(platform.messages) == 1


def test_database_is_never_restarted(platform: Platform) -> None:
    """One that recovers after a crash is not healthy for a while, and would begin again."""
    for _ in range(10):
        platform.run(containers=containers(postgres={"health": "unhealthy"}))
    assert platform.restarted == []


@pytest.mark.parametrize(
    ("changes", "service"),
    [
        ({"scheduler_age": 100.0}, "airflow-scheduler"),
        ({"triggerer_age": 100.0}, "airflow-triggerer"),
        ({"parsed_age": 1000.0}, "airflow-scheduler"),
        ({"oldest_queued": {"default": 500.0}}, "airflow-worker"),
    ],
)
def test_what_docker_calls_healthy_is_restarted_in_the_second_run(
    platform: Platform, changes: dict[str, Any], service: str
) -> None:
    platform.run(database=database_of(**changes))
    assert platform.restarted == []
    platform.run(database=database_of(**changes))
    assert platform.restarted == [(NOW + 120, service)]
    assert len(platform.messages) == 1


@pytest.mark.parametrize("state", ["exited", "paused", "created"])
def test_service_that_was_stopped_by_hand_stays_stopped(platform: Platform, state: str) -> None:
    """Its heartbeat asks for a restart, which would start it again."""
    for _ in range(10):
        stopped = containers(airflow_triggerer={"state": state})
        platform.run(containers=stopped, database=database_of(triggerer_age=900.0))
    assert platform.restarted == []
    assert platform.messages


def test_restarts_of_a_container_are_counted(platform: Platform) -> None:
    for index in range(4):
        found = platform.run(containers=containers(weather={"started": NOW + index}))
    assert [finding.key for finding in found] == ["service-restarts weather"]
    assert platform.run(2 * HOUR, containers=containers(weather={"started": NOW + 3})) == []


@pytest.mark.parametrize("on_purpose", [SWITCH, {"stopped": True}])
def test_starts_that_are_meant_are_no_restarts(platform: Platform, on_purpose: dict[str, Any]) -> None:
    """Those of an operation and of stop.yml, also when the container had started just before."""
    for index in range(2):
        platform.run(containers=containers(weather={"started": NOW + index}))
    for index in range(2, 6):
        platform.run(**on_purpose, containers=containers(weather={"started": NOW + index}))
    assert platform.run(containers=containers(weather={"started": NOW + 5})) == []


def docker(restarts: int) -> dict[str, Any]:
    return {"units": [Unit("docker.service", restarts=restarts), Unit("containerd.service")]}


def test_docker_that_died_is_told_once(platform: Platform) -> None:
    """It is back, so that nobody has to do anything, and its end is no news."""
    platform.run(**docker(0))
    found = platform.run(**docker(1))
    assert [finding.key for finding in found] == ["unit-restarted docker.service"]
    assert {finding.severity for finding in found} == {"notice"}
    for count in (2, 2, *[3] * 8):
        assert platform.run(**docker(count)) != []
    for _ in range(10):
        platform.run(**docker(3))
    assert platform.run(**docker(3)) == []
    [message] = platform.messages
    assert "docker.service died" in message
    assert "`journalctl -u docker.service`" in message
    platform.run(**docker(4))
    assert len(platform.messages) == 2


@pytest.mark.parametrize("counts", [(0, 0), (2, 2), (3, 0, 0)])
def test_docker_that_somebody_restarted_is_not_told(platform: Platform, counts: tuple[int, ...]) -> None:
    """systemd then counts from nought; and what was before the first look is nobody's news."""
    for count in counts:
        assert platform.run(**docker(count)) == []
    assert platform.messages == []


KEPT = {"units": [Unit("airflow.service", sub="exited")]}
STOPPED = {"units": [Unit("airflow.service", active="inactive", sub="dead", enabled="disabled")]}
STARTING = {"units": [Unit("airflow.service", active="activating")]}


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([("a", 5, KEPT), ("b", 5, STARTING), ("b", 5, KEPT)], True),
        ([("a", 0, KEPT), ("b", 0, KEPT)], True),
        # systemctl restart airflow, and later the power cut.
        ([("a", 5, KEPT), ("a", 7, KEPT), ("b", 7, KEPT)], True),
        # A shutdown; then one of a platform that was stopped before.
        ([("a", 5, KEPT), ("b", 7, KEPT)], False),
        ([("a", 5, KEPT), ("a", 7, STOPPED), ("b", 7, STOPPED)], False),
        ([("b", 5, KEPT)], False),
        ([("a", 5, KEPT), ("", 5, KEPT), ("a", 5, KEPT)], False),
    ],
)
def test_power_cut_is_told_once_and_a_reboot_is_not(
    platform: Platform, looks: list[tuple[str, float, dict[str, Any]]], told: bool
) -> None:
    for boot, told_to_stop, units in looks:
        platform.run(**units, boot=boot, told_to_stop=told_to_stop)
    boot, told_to_stop, units = looks[-1]
    for _ in range(20):
        found = platform.run(**units, boot=boot, told_to_stop=told_to_stop)
    assert found == []
    assert len(platform.messages) == told
    assert all("went down without a shutdown" in message for message in platform.messages)


def disk(used: int) -> dict[str, Any]:
    return {"disks": [Disk("/", 1000, 1000 - used)]}


def test_days_until_full_are_reckoned_after_a_day(platform: Platform) -> None:
    for hour in range(20):
        assert platform.run(HOUR, **disk(100 + 10 * hour)) == []
    for hour in range(20, 30):
        found = platform.run(HOUR, **disk(100 + 10 * hour))
    assert platform.memory.days_until_full(Disk("/", 1000, 610)) == pytest.approx(610 / 240, rel=0.01)
    assert [finding.light for finding in found] == ["disk-low"]


def test_disk_that_does_not_grow_is_never_full(platform: Platform) -> None:
    for _ in range(50):
        assert platform.run(HOUR, **disk(500)) == []
    assert platform.memory.days_until_full(Disk("/", 1000, 500)) is None


def test_growth_of_the_database(platform: Platform) -> None:
    for hour in range(30):
        found = platform.run(HOUR, database=database_of(size=10**10 + hour * 10**8))
    assert [finding.light for finding in found] == ["database-grows"]


def test_memory_has_a_bound(platform: Platform, tmp_path: Path) -> None:
    for minute in range(60 * 24 * 8 // 10):
        name = f"queue{minute}"
        platform.run(600, queues={name: 1}, containers=containers(weather={"started": NOW + minute}))
    platform.memory.save(tmp_path / "memory.json", tmp_path / "spare.json")
    assert (tmp_path / "memory.json").stat().st_size < 200_000
    assert len(platform.memory.episodes) <= memory_module.MOST_EPISODES


def test_memory_is_kept(platform: Platform, tmp_path: Path) -> None:
    for _ in range(3):
        platform.run(**ILL)
    file, spare = tmp_path / "state/memory.json", tmp_path / "run/memory.json"
    spare.parent.mkdir()
    spare.write_text("{}")
    platform.memory.save(file, spare)
    assert not spare.exists()
    assert file.stat().st_mode & 0o777 == 0o600
    kept = memory_module.load(file, spare)
    assert dataclasses.replace(kept, now=platform.memory.now) == platform.memory


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"episodes": 3}', '{"episodes": {"a": {"b": 1}}}', '{"x": 1}']
)
def test_damaged_memory_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    assert memory_module.load(tmp_path / "memory.json", tmp_path / "spare.json") == Memory()


def test_clock_that_goes_back_breaks_nothing(platform: Platform) -> None:
    for seconds in (60, -DAY, 60, 3 * DAY, -HOUR, 60):
        platform.run(seconds, **ILL)
    assert platform.memory.days_until_full(Disk("/", 1000, 500)) is None


def test_message_is_short_and_escaped() -> None:
    platform = Platform()
    many = {f"<!channel> {index}": 600.0 for index in range(40)}
    platform.run(database=database_of(overdue=many))
    platform.run(database=database_of(overdue=many))
    [message] = platform.messages
    assert "<" not in message
    assert "&lt;!channel&gt; 0" in message
    assert f"… and {40 - messages.LINES} more" in message


@pytest.mark.parametrize("light", LIGHTS)
def test_message_says_what_is_wrong_what_to_do_and_where_that_is_written(light: str) -> None:
    """In the one line that Slack shows of a fault, also where it stood for days and led to restarts."""
    memory = Memory(now=NOW)
    finding = Finding(light, "airflow-triggerer", "x" * 300)
    memory.episodes[finding.key] = memory_module.Episode(since=NOW - 2 * DAY, last=NOW, restarts=3)
    text = messages.message(messages.News(stands=[finding]), memory, title="production host")["text"]
    words = escape(f"{finding.advice} docs/when-something-is-wrong.md#light-{light}")
    assert text.endswith(words)
    assert text.count("x") > 30


def test_long_words_of_others_leave_room_for_what_to_do(platform: Platform) -> None:
    ill = {"containers": containers(weather={"health": "unhealthy", "failing": 5, "said": "x" * 200})}
    for _ in range(2):
        platform.run(**ill)
    assert LIGHTS["service-unhealthy"].advice.replace("<service>", "weather") in platform.messages[0]
