"""Who may take tasks, and what a report is: whatever comes, a worker with another commit takes none."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook.coordinator import (
    HEARD_SECONDS,
    POLL_SECONDS,
    SWITCH_SECONDS,
    Coordinator,
    MalformedReportError,
    Report,
    Situation,
    Worker,
    report_in,
)
from webhook.gateway import Gateway, GatewayAbsentError, GatewayError, states_in
from webhook.settings import Settings, SettingsError, from_environment, workers_from_environment
from webhook.sync import Outcome, Syncer
from webhook.two_phases import all_ready
from webhook.worker import REQUEST_SECONDS

from tests.webhook.doubles import GateDouble, Remote, wait_until
from webhook import coordinator, trees

OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40
COMMITS = st.sampled_from([None, OLD, NEW, OTHER])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
GOOD: dict[str, Any] = {
    "commit": OLD,
    "prepared": None,
    "release": "2-11-2",
    "queues": ["default", "large"],
    "slots": 8,
}


def report(commit: str | None, prepared: str | None = None) -> Report:
    return Report(commit, prepared, "2-11-2", ("default",), 8)


class GatewayDouble(Gateway):
    """Remembers who is fenced, as HAProxy does, and what was done."""

    def __init__(self, *names: str) -> None:
        self.states = dict.fromkeys(names, False)
        self.error: GatewayError | None = None
        self.done: list[tuple[str, str]] = []

    def fenced(self) -> dict[str, bool]:
        if self.error is not None:
            raise self.error
        return dict(self.states)

    def _do(self, command: str) -> None:
        word, name = command.split()[0], command.split()[-1].removeprefix("redis_").removesuffix("/main")
        self.done.append((word, name))
        if word in ("disable", "enable"):
            self.states[name] = word == "disable"


@pytest.fixture
def gateway() -> GatewayDouble:
    return GatewayDouble("one", "two")


@pytest.fixture
def working(settings: Settings, gateway: GatewayDouble) -> Iterator[tuple[Settings, Coordinator]]:
    """A coordinator that works, and settings of a sync that finds it."""
    settings = replace(
        settings,
        workers=("one", "two"),
        worker_gateway_socket=settings.state_dir / "nobody.sock",
        worker_prepare_seconds=1,
    )
    found = Coordinator(settings, gateway)
    found.start()
    yield settings, found
    found.close()


def make_live(settings: Settings, commit: str) -> None:
    folder = trees.Trees(settings.trees_dir)
    (folder.worktrees / commit).mkdir(exist_ok=True)
    folder.switch(folder.worktrees / commit)


@given(st.fixed_dictionaries({}, optional={name: st.just(GOOD[name]) | JSON for name in GOOD}) | JSON)
def test_report_is_understood_or_refused(content: Any) -> None:
    try:
        found = report_in(json.dumps(content).encode())
    except MalformedReportError:
        return
    assert (found.commit, found.prepared) == (content.get("commit"), content.get("prepared"))
    for commit in (found.commit, found.prepared):
        assert commit is None or (len(commit) == 40 and set(commit) <= set("0123456789abcdef"))
    assert all(name.isprintable() for name in (found.release, *found.queues))
    assert 0 <= found.slots <= 10_000


@given(st.binary(max_size=200))
def test_bytes_are_no_report(body: bytes) -> None:
    with pytest.raises(MalformedReportError):
        report_in(body)


BAD: dict[str, list[Any]] = {
    "commit": ["A" * 40, "a" * 39, OLD + "\n", "../" + "a" * 37, 1, []],
    "prepared": ["HEAD", "--upload-pack=x", {}],
    "queues": [None, "default", [1], ["a\nb"], ["x" * 201], ["x"] * 101],
    "slots": [None, -1, True, 1.5, "8", 10_001],
    "release": [None, "\x00", "x" * 201, 3],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_each_part_of_a_report_has_a_form(name: str, value: Any) -> None:
    assert report_in(json.dumps(GOOD).encode()) == Report(OLD, None, "2-11-2", ("default", "large"), 8)
    with pytest.raises(MalformedReportError):
        report_in(json.dumps({**GOOD, name: value}).encode())


@given(COMMITS, COMMITS, COMMITS, COMMITS, st.floats(0, 100), st.booleans())
def test_only_who_runs_what_is_live_is_let_in(
    live: str | None,
    prepare: str | None,
    commit: str | None,
    prepared: str | None,
    ago: float,
    is_left: bool,
) -> None:
    left = frozenset(["one"] if is_left else [])
    situation = Situation(live, 1000 - ago, prepare, left)
    worker = Worker("one", report(commit, prepared), 1000)
    allowed = situation.may_take_tasks(worker, 1000, 0)
    if allowed is True:
        assert commit == live is not None
        assert not is_left
    if allowed is None:  # it stays as it is for a second at most, unless nothing is live at all
        assert live is None or (prepared == live and ago < SWITCH_SECONDS)
    if is_left or (live is not None and commit != live and ago >= SWITCH_SECONDS):
        assert allowed is False


def test_who_was_not_heard_yet_is_left_alone_for_a_while() -> None:
    """The webhook was restarted, which must not cut off workers that are well."""
    situation = Situation(OLD)
    assert situation.may_take_tasks(Worker("one"), 1000 + HEARD_SECONDS - 1, 1000) is None
    assert situation.may_take_tasks(Worker("one"), 1000 + HEARD_SECONDS, 1000) is False


def test_report_waits_for_news_and_no_longer(
    working: tuple[Settings, Coordinator], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, found = working
    monkeypatch.setattr(coordinator, "POLL_SECONDS", 0.5)
    make_live(settings, OLD)
    wait_until(lambda: found.report("one", report(None))["live"] == OLD)
    began = time.monotonic()
    assert found.report("one", report(OLD)) == {"prepare": None, "live": OLD, "wait_seconds": 0.5}
    assert time.monotonic() - began >= 0.4
    monkeypatch.setattr(coordinator, "POLL_SECONDS", 30)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(found.report, "one", report(OLD))
        wait_until(lambda: found._workers["one"].polls >= 3)
        # A worker that comes anew, since its connection broke, does not keep two threads.
        second = pool.submit(found.report, "one", report(OLD))
        first.result(5)
        assert not second.done()
        make_live(settings, NEW)  # by whatever: nobody told the coordinator
        assert second.result(5)["live"] == NEW


def test_gunicorn_ends_no_report_that_waits() -> None:
    assert POLL_SECONDS + 5 <= REQUEST_SECONDS
    assert POLL_SECONDS < HEARD_SECONDS


def follow(found: Coordinator, name: str, stop: threading.Event, live: str | None = None) -> None:
    """Do as a good follower, without files."""
    prepared: str | None = None
    while not stop.is_set():
        answer = found.report(name, report(live, prepared))
        prepared = answer["prepare"] or prepared
        live = answer["live"]


@pytest.fixture
def followers(working: tuple[Settings, Coordinator]) -> Iterator[Callable[[str], threading.Event]]:
    stops: list[threading.Event] = []

    def start(name: str) -> threading.Event:
        stop = threading.Event()
        stops.append(stop)
        threading.Thread(target=follow, args=(working[1], name, stop), daemon=True).start()
        return stop

    yield start
    for stop in stops:
        stop.set()
    working[1].end()


def states(found: Coordinator) -> dict[str, str]:
    return {worker["name"]: worker["state"] for worker in found.workers()}


def test_sync_switches_once_all_are_ready(
    working: tuple[Settings, Coordinator],
    followers: Callable[[str], threading.Event],
    gateway: GatewayDouble,
    remote: Remote,
) -> None:
    settings, found = working
    for name in settings.workers:
        followers(name)
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    wait_until(lambda: states(found) == {"one": "live", "two": "live"}, 10)
    gateway.done.clear()
    began = time.monotonic()
    commit = remote.commit({"dags/two.py": "two = 2\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert time.monotonic() - began < settings.worker_prepare_seconds + 5
    wait_until(lambda: {worker["commit"] for worker in found.workers()} == {commit}, 10)
    assert gateway.done == []


def test_silent_worker_is_fenced_and_not_waited_for(
    working: tuple[Settings, Coordinator],
    followers: Callable[[str], threading.Event],
    gateway: GatewayDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, found = working
    settings = replace(settings, worker_prepare_seconds=30)
    found._settings = settings
    make_live(settings, OLD)
    followers("one")
    wait_until(lambda: found.workers()[0]["commit"] == OLD, 10)
    began = time.monotonic()
    with all_ready(settings, NEW):
        assert time.monotonic() - began < 10
        assert gateway.states == {"one": False, "two": True}
        assert ("shutdown", "two") in gateway.done
        assert states(found)["two"] == "silent"


def test_slow_worker_is_waited_for_so_long(
    working: tuple[Settings, Coordinator], gateway: GatewayDouble
) -> None:
    settings, found = working
    make_live(settings, OLD)
    # Both were heard just now, on the live commit, and prepare nothing.
    with ThreadPoolExecutor(2) as pool:
        for name in settings.workers:
            pool.submit(found.report, name, report(OLD))
        wait_until(lambda: all(worker["commit"] == OLD for worker in found.workers()), 10)
        began = time.monotonic()
        with all_ready(settings, NEW):
            assert settings.worker_prepare_seconds <= time.monotonic() - began < 10
            assert gateway.states == {"one": True, "two": True}
        # The sync ended without a switch: they have what is live, so they may go on.
        wait_until(lambda: gateway.states == {"one": False, "two": False}, 10)


@pytest.mark.parametrize("absent", [True, False])
def test_gateway_that_cannot_fence_keeps_the_old_commit(
    working: tuple[Settings, Coordinator], gateway: GatewayDouble, absent: bool, remote: Remote
) -> None:
    """A gateway that does not run connects nobody. One that does not answer may."""
    settings, _ = working
    gateway.error = GatewayAbsentError("it does not run") if absent else GatewayError("it hangs")
    result = Syncer(settings).sync("test")
    if absent:
        assert result.outcome is Outcome.SWITCHED
    else:
        assert result.outcome is Outcome.FAILED
        assert "it hangs" in result.detail
        assert not (settings.trees_dir / "current").exists()
        gateway.error = None
        assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED


def test_gateway_that_forgot_is_told_again(
    working: tuple[Settings, Coordinator], gateway: GatewayDouble
) -> None:
    settings, found = working
    make_live(settings, NEW)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(found.report, "one", report(OLD))
        wait_until(lambda: gateway.states["one"], 10)
        gateway.states["one"] = False
        wait_until(lambda: gateway.states["one"], 10)


def test_states_of_workers(working: tuple[Settings, Coordinator], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, found = working
    assert states(found) == {"one": "silent", "two": "silent"}
    assert found.workers()[0] == {
        "name": "one",
        "release": None,
        "commit": None,
        "queues": [],
        "slots": None,
        "state": "silent",
        "heard_seconds_ago": None,
    }
    make_live(settings, NEW)
    found._look()
    monkeypatch.setattr(coordinator, "POLL_SECONDS", 0)
    found.report("one", report(NEW))
    found.report("two", report(OLD))
    wait_until(lambda: states(found) == {"one": "live", "two": "fenced"}, 10)
    found.announce(OTHER)
    assert states(found)["one"] == "preparing"
    monkeypatch.setattr(coordinator, "HEARD_SECONDS", 0)
    wait_until(lambda: states(found)["one"] == "silent", 10)


def test_late_end_of_a_sync_does_not_end_the_next_one(working: tuple[Settings, Coordinator]) -> None:
    _, found = working
    first = found.announce(OLD)
    second = found.announce(NEW)
    found.switched(first)
    assert found._situation.prepare == NEW
    found.switched(second)
    assert found._situation.prepare is None


def test_states_of_the_gateway() -> None:
    header = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight"
    answer = f"""1
{header}
3 redis_one 1 main 127.0.0.1 2 0 1
4 redis_two 1 main 127.0.0.1 0 1 1
5 redis_three 1 main 127.0.0.1 0 5 1
6 redis_four 1 main 127.0.0.1 0 32 1
7 postgres_one 1 main 127.0.0.1 2 0 1
8 redis_five 1 other 127.0.0.1 2 0 1
"""
    assert states_in(answer) == {"one": False, "two": True, "three": True, "four": False}


@pytest.mark.parametrize("answer", ["", "Permission denied\n", "1\n# be_name srv_name\nredis_one main\n"])
def test_gateway_that_says_something_else(answer: str) -> None:
    with pytest.raises(GatewayError):
        states_in(answer)


@given(st.text(max_size=300))
def test_any_text_of_the_gateway(text: str) -> None:
    header = "# be_name srv_name srv_admin_state\n"
    try:
        found = states_in(header + text)
    except GatewayError:
        return
    assert all(isinstance(state, bool) for state in found.values())


def test_nobody_listens_on_the_gateway(tmp_path: Path) -> None:
    with pytest.raises(GatewayAbsentError):
        Gateway(tmp_path / "nobody.sock").fenced()


def test_settings_of_workers(environment: dict[str, str]) -> None:
    assert from_environment(environment).workers == ()
    assert workers_from_environment({"WORKERS": " atd-worker01, atd-worker02 ,"}) == (
        "atd-worker01",
        "atd-worker02",
    )
    for name in ("a b", "a;shutdown", "a/b", "-a", "a\nb"):
        with pytest.raises(SettingsError, match="WORKERS"):
            workers_from_environment({"WORKERS": name})
    with pytest.raises(SettingsError, match="WORKER_GATEWAY_SOCKET"):
        from_environment({**environment, "WORKERS": "one"})
    both = {"WORKERS": "one", "WORKER_GATEWAY_SOCKET": "/run/gateway/admin.sock"}
    found = from_environment({**environment, **both})
    assert (found.workers, found.worker_prepare_seconds) == (("one",), 10)


def test_without_workers_a_sync_asks_nobody(settings: Settings, gate: GateDouble) -> None:
    with all_ready(settings, NEW):
        pass
    assert not settings.worker_socket.exists()
