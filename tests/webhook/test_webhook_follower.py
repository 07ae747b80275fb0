"""A follower has what the main host says, whatever happened before, and keeps what tasks may read."""

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st
from webhook.coordinator import PATH
from webhook.follower import (
    TRY_AGAIN_SECONDS,
    Answer,
    CoordinatorError,
    Follower,
    MainHost,
    answer_in,
    check,
    followed_file,
    main,
)
from webhook.mirror import Mirror
from webhook.settings import FollowerSettings, Settings, follower_from_environment

from tests.served import served
from tests.webhook.doubles import Remote, files_below
from tests.webhook.network import BlackHole, free_port
from webhook import trees

Start = Callable[..., subprocess.Popen[str]]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
GOOD: dict[str, Any] = {"prepare": "a" * 40, "live": None, "wait_seconds": 10}


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Host:
    """A worker host, and what the main host wants of it."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.remote = remote
        repository = remote.settings(retry_pause=0.01)
        delivery = Settings(
            environment="production",
            trees_dir=folder / "trees",
            state_dir=folder / "state",
            repository=repository,
            lock_timeout=5,
        )
        delivery.state_dir.mkdir(parents=True)
        self.settings = FollowerSettings(
            delivery=delivery,
            repository=repository,
            coordinator="http://127.0.0.1:9",
            release="2-11-2",
            queues=("default",),
            slots=8,
        )
        self.wanted: Answer | CoordinatorError = Answer(None, None, 10)
        self.reports: list[tuple[str | None, str | None]] = []
        self.clock = Clock()
        self.restart()

    def restart(self) -> None:
        self.follower = Follower(self.settings, self._report, clock=self.clock, sleep=self.clock.sleep)

    def _report(self, commit: str | None, prepared: str | None) -> Answer:
        self.reports.append((commit, prepared))
        if isinstance(self.wanted, CoordinatorError):
            raise self.wanted
        return self.wanted

    def want(self, live: str | None = None, prepare: str | None = None, steps: int = 2) -> None:
        self.wanted = Answer(prepare, live, 10)
        for _ in range(steps):
            self.follower.step()

    @property
    def current(self) -> Path:
        return self.settings.delivery.trees_dir / "current"

    @property
    def live(self) -> str | None:
        return trees.commit_of(trees.Trees(self.settings.delivery.trees_dir).live())


@pytest.fixture
def host(tmp_path: Path, remote: Remote) -> Host:
    remote.git("config", "uploadpack.allowAnySHA1InWant", "true")
    return Host(tmp_path / "worker", remote)


def test_prepares_then_switches(host: Host) -> None:
    old = host.remote.head
    host.want(live=old)
    assert host.live == old
    new = host.remote.commit({"dags/two.py": "two = 2\n"})
    host.want(live=old, prepare=new)
    assert host.live == old
    assert host.reports[-1] == (old, new)
    host.want(live=new, steps=1)
    assert files_below(host.current.resolve()) == host.remote.tree(new)
    assert os.readlink(host.current) == f"worktrees/{new}"


def test_old_tree_stays_for_the_longest_task(host: Host) -> None:
    old = host.remote.head
    host.want(live=old)
    new = host.remote.commit({"dags/two.py": "two = 2\n"})
    delivery = replace(host.settings.delivery, keep_trees_seconds=3600, keep_trees_count=0)
    host.settings = replace(host.settings, delivery=delivery)
    host.restart()
    host.want(live=new)
    host.clock.now += 400
    host.want(live=new)
    kept = delivery.trees_dir / "worktrees" / old
    assert files_below(kept) == host.remote.tree(old)
    # As if it had retired two hours ago.
    path = delivery.state_dir / "follower.json"
    content = json.loads(path.read_text())
    assert set(content["retired"]) == {old}
    content["retired"][old] -= 7200
    path.write_text(json.dumps(content))
    host.clock.now += 400
    host.want(live=new)
    assert not kept.exists()
    # Nobody knows any more when trees retired: then they stay for the whole time.
    path.write_text("{")
    host.clock.now += 400
    host.want(live=new)
    assert host.live == new


def test_damaged_live_tree_is_made_anew(host: Host) -> None:
    commit = host.remote.head
    host.want(live=commit)
    damaged = host.current.resolve()
    (damaged / "dags/one.py").write_text("one =")
    host.clock.now += 400
    host.want(live=commit)
    assert os.readlink(host.current) == f"worktrees/{commit}-2"
    assert files_below(host.current.resolve()) == host.remote.tree(commit)
    assert damaged.is_dir()  # a task may be reading it


def test_damaged_kept_tree_is_not_gone_back_to(host: Host) -> None:
    old = host.remote.head
    host.want(live=old)
    new = host.remote.commit({"dags/two.py": "two = 2\n"})
    host.want(live=new)
    (host.settings.delivery.trees_dir / "worktrees" / old / "dags/one.py").unlink()
    host.want(live=old)
    assert files_below(host.current.resolve()) == host.remote.tree(old)


@pytest.mark.parametrize("damage", ["object", "all objects", "HEAD", "mirror"])
def test_damaged_mirror_is_made_anew(host: Host, damage: str) -> None:
    host.want(live=host.remote.head)
    commit = host.remote.commit({"dags/two.py": "two = 2\n"})
    host.want(live=host.remote.head, prepare=commit, steps=1)
    mirror = host.settings.delivery.state_dir / "mirror.git"
    shutil.rmtree(host.settings.delivery.trees_dir / "worktrees" / commit)
    host.restart()
    if damage == "mirror":
        shutil.rmtree(mirror)
    elif damage == "HEAD":
        (mirror / "HEAD").write_bytes(b"")
    else:
        files = [path for path in (mirror / "objects").rglob("*") if path.is_file() and path.suffix != ".idx"]
        for path in files if damage == "all objects" else files[:1]:
            path.chmod(0o600)
            path.write_bytes(b"damaged")
    host.want(live=commit, steps=3)
    host.clock.now += 400
    host.want(live=commit, steps=3)
    assert host.live == commit
    assert files_below(host.current.resolve()) == host.remote.tree(commit)


def test_full_disk_is_reported_and_overcome(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = host.remote.head
    host.want(live=old)
    new = host.remote.commit({"dags/two.py": "two = 2\n"})
    real = shutil.disk_usage(host.current)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real._replace(free=0))
        host.want(live=old, prepare=new, steps=6)
        assert host.live == old
        assert host.reports[-1] == (old, old)
        assert "0.0% free" in caplog.text
        assert "free disk on this worker host" in caplog.text
        assert "dag-sync" not in caplog.text
        # It reports on, often enough to count as heard.
        assert max(host.clock.slept) <= 2
    host.clock.now += 61
    host.want(live=old, prepare=new)
    assert host.reports[-1] == (old, new)


def test_long_work_is_no_silence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first clone may take minutes. Each report says what there is, and none comes after the work."""
    monkeypatch.setattr("webhook.follower.REPORT_SECONDS", 0.01)
    fetch = Mirror.fetch
    reported = threading.Event()

    def report(commit: str | None, prepared: str | None) -> Answer:
        answer = Host._report(host, commit, prepared)
        if len(host.reports) == 2:
            raise CoordinatorError("away")
        if len(host.reports) > 3:
            reported.set()
        return answer

    def slow(mirror: Mirror) -> None:
        assert reported.wait(60)
        fetch(mirror)

    monkeypatch.setattr(Mirror, "fetch", slow)
    monkeypatch.setattr(host, "_report", report)
    host.restart()
    host.want(live=host.remote.head, steps=1)
    assert host.live == host.remote.head
    assert set(host.reports) == {(None, None)}
    assert not [thread for thread in threading.enumerate() if thread.name == "reporter"]


def test_no_write_is_possible(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    old = host.remote.head
    host.want(live=old)
    new = host.remote.commit({"dags/two.py": "two = 2\n"})

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        host.want(live=new, steps=4)
    assert host.live == old
    host.clock.now += 61
    host.want(live=new, steps=2)
    assert host.live == new


def test_failed_work_waits_unless_other_work_is_wanted(host: Host) -> None:
    old = host.remote.head
    host.want(live=old)
    absent = "f" * 40
    host.want(live=old, prepare=absent, steps=1)
    attempts = host.clock.now
    host.want(live=old, prepare=absent, steps=1)
    assert host.clock.now - attempts >= min(TRY_AGAIN_SECONDS[0], 2) - 0.01
    new = host.remote.commit({"dags/two.py": "two = 2\n"})
    before = len(host.clock.slept)
    host.want(live=old, prepare=new, steps=2)
    assert host.reports[-1] == (old, new)
    assert len(host.clock.slept) == before


def test_silent_main_host_changes_nothing(host: Host) -> None:
    commit = host.remote.head
    host.want(live=commit)
    host.wanted = CoordinatorError("away")
    for _ in range(20):
        host.follower.step()
    assert host.live == commit
    # Once it is back it hears of this host before it counts as silent.
    assert max(host.clock.slept) <= 5


@given(st.fixed_dictionaries({}, optional={name: st.just(GOOD[name]) | JSON for name in GOOD}) | JSON)
def test_answer_is_understood_or_refused(content: Any) -> None:
    try:
        found = answer_in(json.dumps(content).encode())
    except CoordinatorError:
        return
    assert 0 <= found.wait_seconds <= 60
    for commit in (found.prepare, found.live):
        assert commit is None or (len(commit) == 40 and set(commit) <= set("0123456789abcdef"))


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{", b'{"live": "--exec=x", "wait_seconds": 1}', b'{"wait_seconds": Infinity}']
)
def test_other_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(CoordinatorError):
        answer_in(answer)


def test_report_has_its_form(host: Host) -> None:
    seen: list[Any] = []
    app = Flask("coordinator")

    @app.post(PATH)
    def take() -> dict[str, Any]:
        seen.append(request.get_json())
        return GOOD

    with served(app) as url:
        found = MainHost(replace(host.settings, coordinator=url)).report("b" * 40, None)
    assert found == Answer("a" * 40, None, 10)
    about = {"release": "2-11-2", "queues": ["default"], "slots": 8}
    assert seen == [{"commit": "b" * 40, "prepared": None, **about}]


def test_main_host_that_does_not_answer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.follower.SLACK_SECONDS", 0.3)
    for url in (f"http://127.0.0.1:{free_port()}", "mute"):
        with BlackHole() as hole:
            address = hole.url.rpartition("/team")[0] if url == "mute" else url
            main_host = MainHost(replace(host.settings, coordinator=address))
            main_host._wait = 0.1
            with pytest.raises(CoordinatorError):
                main_host.report(None, None)


def test_check_says_whether_the_live_commit_is_followed(host: Host) -> None:
    now = time.time()
    assert "no commit" in (check(host.settings, now) or "")
    host.want(live=host.remote.head)
    assert check(host.settings, now) is None
    os.utime(followed_file(host.settings), (now - 100, now - 100))
    assert "100 s ago" in (check(host.settings, now) or "")


def variables(host: Host) -> dict[str, str]:
    return {
        "DAG_TREES_DIR": str(host.settings.delivery.trees_dir),
        "DAG_STATE_DIR": str(host.settings.delivery.state_dir),
        "DAG_MIRROR": str(host.remote.path),
        "DAG_LOCK_TIMEOUT_SECONDS": "0",
        "FOLLOW_URL": f"http://127.0.0.1:{free_port()}",
        "WORKER_RELEASE": "2-11-2",
        "WORKER_QUEUES": "default, large",
        "WORKER_SLOTS": "8",
    }


def test_settings_are_read(host: Host) -> None:
    found = follower_from_environment(variables(host))
    assert (found.queues, found.slots, found.repository.url) == (
        ("default", "large"),
        8,
        str(host.remote.path),
    )


@pytest.mark.parametrize("name", ["DAG_MIRROR", "FOLLOW_URL", "WORKER_RELEASE", "WORKER_QUEUES"])
def test_missing_setting_is_named(
    host: Host, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in {**variables(host), name: ""}.items():
        monkeypatch.setenv(key, value)
    assert main([]) == 2
    assert name in capsys.readouterr().err


def test_second_follower_and_a_stop(host: Host, start: Start) -> None:
    first = start("webhook.follower", **variables(host))
    assert first.stdout is not None
    assert "follows" in first.stdout.readline()
    second = start("webhook.follower", **variables(host))
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "another follower runs" in output
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0


def test_killed_before_each_step_it_converges(host: Host, start: Start) -> None:
    """What it did up to then is whole, and the next one goes on."""
    old = host.remote.head
    host.want(live=old)
    given = variables(host)
    killed = 0
    for number in range(1, 200):
        commit = host.remote.commit({"dags/two.py": f"two = {number}\n"})
        before = host.live
        process = start("tests.webhook.killed_follower", str(number), "-", commit, **given)
        output, _ = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
        killed += 1
        assert host.live in (before, commit)
        assert files_below(host.current.resolve()) == host.remote.tree(host.live or "")
        host.restart()
        host.clock.now += 400
        host.want(live=commit)
        assert host.live == commit
        assert files_below(host.current.resolve()) == host.remote.tree(commit)
    else:
        raise AssertionError("it never came to its end")
    assert killed > 10
