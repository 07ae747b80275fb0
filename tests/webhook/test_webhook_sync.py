"""A sync makes the branch's head live, or leaves what is live alone: never anything between."""

import itertools
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from webhook.git import Git
from webhook.settings import Settings
from webhook.state import State
from webhook.sync import Outcome, Syncer

from sandbox.git_host import create_app as git_host_app
from tests.served import served
from tests.webhook.doubles import GateDouble, Remote, files_below, wait_until
from tests.webhook.network import BlackHole
from tests.webhook.repository import SYMLINK, File, Objects, content_of
from webhook import lock, state, trees


class FaultyHost:
    """A WSGI app before another one, which answers requests with 503: the next ones, after some that pass."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app
        self.passing = 0
        self.failing = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.passing or not self.failing:
            self.passing -= bool(self.passing)
            return self.app(environ, start_response)
        self.failing -= 1
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []


def live(settings: Settings) -> str | None:
    return trees.commit_of(trees.Trees(settings.trees_dir).live())


def load(settings: Settings) -> State:
    return state.load(settings.state_dir / "state.json")


def current(settings: Settings) -> Path:
    return settings.trees_dir / "current"


def test_first_sync_makes_head_live(settings: Settings, remote: Remote) -> None:
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.SWITCHED
    assert live(settings) == remote.head
    assert os.readlink(current(settings)) == f"worktrees/{remote.head}"
    assert files_below(current(settings)) == remote.tree(remote.head)


def test_state_tells_who_and_when(settings: Settings, remote: Remote) -> None:
    commit = remote.commit({"dags/two.py": "two = 2\n"}, "Add a second DAG")
    Syncer(settings).sync("timer")
    found = load(settings)
    assert found.live is not None
    assert (found.live.id, found.live.author, found.live.subject) == (
        commit,
        "Ann Example",
        "Add a second DAG",
    )
    assert abs(found.live.committed_at - time.time()) < 60
    assert found.last_sync is not None
    assert (found.last_sync.trigger, found.last_sync.outcome) == ("timer", "switched")


def test_second_sync_changes_nothing(settings: Settings, gate: GateDouble) -> None:
    Syncer(settings).sync("test")
    before = os.lstat(current(settings))
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED
    assert os.lstat(current(settings)).st_mtime_ns == before.st_mtime_ns
    assert len(gate.checked) == 1


def test_gate_sees_new_tree_before_it_is_live(settings: Settings, remote: Remote, gate: GateDouble) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    remote.commit({"dags/two.py": "two = 2\n"})
    seen: list[tuple[str | None, bool]] = []
    gate.before_answer = lambda: seen.append((live(settings), (gate.checked[-1] / "dags/two.py").exists()))
    Syncer(settings).sync("test")
    assert seen == [(old, True)]
    assert live(settings) == remote.head


def test_refused_commit_leaves_old_one_live(settings: Settings, remote: Remote, gate: GateDouble) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    refused = remote.commit({"dags/two.py": "def broken(:\n"}, "Break it")
    problem = {"kind": "syntax", "path": "dags/two.py", "message": "line 1: invalid syntax"}
    gate.problems = lambda tree: [problem]
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.REFUSED
    assert live(settings) == old
    assert [path.name for path in (settings.trees_dir / "worktrees").iterdir()] == [old]
    (refusal,) = load(settings).refused
    assert refusal.commit.id == refused
    assert refusal.reasons == [state.Reason(**problem)]

    # Refused again it keeps its first time; mended, the refusal is gone.
    assert Syncer(settings).sync("test").outcome is Outcome.REFUSED
    assert [known.at for known in load(settings).refused] == [refusal.at]
    gate.problems = lambda tree: []
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert load(settings).refused == []


@pytest.mark.parametrize("fault", ["error", "absent"])
def test_without_verdict_nothing_goes_live(
    settings: Settings, remote: Remote, gate: GateDouble, fault: str
) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    remote.commit({"dags/two.py": "two = 2\n"})
    gate.error = "the gate is out of order"
    broken = (
        settings if fault == "error" else replace(settings, gate_socket=settings.state_dir / "nobody.sock")
    )
    result = Syncer(broken).sync("test")
    assert result.outcome is Outcome.FAILED
    assert "gate" in result.detail
    assert live(settings) == old
    gate.error = None
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == remote.head


def test_unchanged_files_keep_their_times(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    before = (current(settings) / "dags/one.py").stat().st_mtime_ns
    remote.commit({"dags/two.py": "two = 2\n", "dags/utils/common.py": "common = 2\n"})
    switched_after = time.time()
    Syncer(settings).sync("test")
    assert (current(settings) / "dags/one.py").stat().st_mtime_ns == before
    for changed in ("dags/two.py", "dags/utils/common.py"):
        assert (current(settings) / changed).stat().st_mtime >= switched_after


def test_file_that_reads_a_changed_one_looks_new(
    settings: Settings, remote: Remote, gate: GateDouble
) -> None:
    """Airflow looks at the DAG file's time only, so a change in utils would wait for its parsing interval."""
    remote.commit({"dags/two.py": "two = 2\n"})
    gate.reads = {"dags/one.py": ["dags/utils/common.py"]}
    Syncer(settings).sync("test")
    before = {name: (current(settings) / name).stat().st_mtime_ns for name in ("dags/one.py", "dags/two.py")}
    remote.commit({"dags/utils/common.py": "common = 2\n"})
    Syncer(settings).sync("test")
    after = {name: (current(settings) / name).stat().st_mtime_ns for name in before}
    assert after["dags/one.py"] > before["dags/one.py"]
    assert after["dags/two.py"] == before["dags/two.py"]


def test_rollback_makes_what_differs_look_new(settings: Settings, remote: Remote) -> None:
    first = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    before = (current(settings) / "dags/one.py").stat().st_mtime_ns
    same = (current(settings) / "dags/utils/common.py").stat().st_mtime_ns
    Syncer(settings).pin(first)
    assert (current(settings) / "dags/one.py").read_text() == "one = 1\n"
    assert (current(settings) / "dags/one.py").stat().st_mtime_ns > before
    assert (current(settings) / "dags/utils/common.py").stat().st_mtime_ns == same


ATTRIBUTES = {
    "text": "*.py text",
    "auto": "* text=auto",
    "to LF": "*.py text eol=lf",
    "to CRLF": "*.py text eol=crlf",
    "old name": "*.py crlf",
    "ident": "*.py ident",
    "filter": "*.py filter=lfs diff=lfs merge=lfs -text",
    "encoding": "*.py working-tree-encoding=UTF-16",
    "encoding without a value": "*.py working-tree-encoding",
    "export": "*.py export-subst\nutils export-ignore\nutils/** export-ignore",
    "macro": "[attr]dos text eol=crlf ident\n*.py dos",
    "binary and more": "*.py binary text eol=crlf",
}


@pytest.mark.parametrize(
    ("attributes", "folder"),
    list(zip(ATTRIBUTES.values(), itertools.cycle([".", "dags"]))),
    ids=list(ATTRIBUTES),
)
def test_tree_equals_blobs_whatever_attributes_say(
    settings: Settings, remote: Remote, attributes: str, folder: str
) -> None:
    """And stays what it is, with the times that Airflow goes by: it is no new tree at every sync."""
    content = b"# $Id$\r\n# $Format:%H$\nvalue = '\xc3\xa9'\r\n"
    files = {name: File(content) for name in (b"dags/one.py", b"dags/utils/common.py")}
    files[f"{folder}/.gitattributes".removeprefix("./").encode()] = File(f"{attributes}\n".encode())
    objects = Objects(remote.path)
    objects.push(objects.commit(files, [remote.head]))
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert content_of(current(settings)) == files
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED
    assert len(list((settings.trees_dir / "worktrees").iterdir())) == 1


@pytest.mark.parametrize("place", [".config/git/attributes", ".config/git/config", ".gitconfig"])
def test_tree_equals_blobs_whatever_the_user_has(
    settings: Settings, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    home = tmp_path / "home"
    (home / place).parent.mkdir(parents=True, exist_ok=True)
    is_config = place.endswith("config")
    (home / place).write_text("[core]\n\tautocrlf = true\n" if is_config else "*.py text eol=crlf\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    Syncer(settings).sync("test")
    assert files_below(current(settings)) == remote.tree(remote.head)
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED


def test_trees_of_a_mirror_that_obeyed_attributes_are_made_anew(settings: Settings, remote: Remote) -> None:
    """As after an update of the webhook: what is live may differ from its blobs, and git would not see it."""
    remote.commit({".gitattributes": "*.py text eol=crlf\n"})
    Syncer(settings).sync("test")
    mirror = settings.state_dir / "mirror.git"
    (mirror / "info/attributes").unlink()
    file = current(settings) / "dags/one.py"
    file.write_bytes(b"one = 1\r\n")
    subprocess.run(["git", "-C", str(current(settings).resolve()), "status"], check=True, capture_output=True)
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert files_below(current(settings)) == remote.tree(remote.head)
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED


def test_running_task_keeps_its_tree(settings: Settings, remote: Remote) -> None:
    """A task resolved `current` when it began, and reads on in its tree while `current` moves."""
    Syncer(settings).sync("test")
    tree = current(settings).resolve()
    mixed: list[tuple[str, str]] = []
    done = threading.Event()

    def task() -> None:
        while not done.is_set():
            read = ((tree / "dags/one.py").read_text(), (tree / "dags/utils/common.py").read_text())
            if read != ("one = 1\n", "common = 1\n"):
                mixed.append(read)

    thread = threading.Thread(target=task)
    thread.start()
    for number in range(2, 6):
        remote.commit({"dags/one.py": f"one = {number}\n", "dags/utils/common.py": f"common = {number}\n"})
        assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    done.set()
    thread.join()
    assert mixed == []


def test_reader_of_current_sees_no_gap(settings: Settings, remote: Remote) -> None:
    """Whoever opens `current` at any time finds a whole tree there."""
    Syncer(settings).sync("test")
    failures: list[str] = []
    done = threading.Event()

    def reader() -> None:
        while not done.is_set():
            tree = current(settings).resolve()
            if (tree / "dags/one.py").read_text()[-2:] != (tree / "dags/utils/common.py").read_text()[-2:]:
                failures.append(str(tree))

    thread = threading.Thread(target=reader)
    thread.start()
    for number in range(2, 6):
        remote.commit({"dags/one.py": f"one = {number}\n", "dags/utils/common.py": f"common = {number}\n"})
        Syncer(settings).sync("test")
    done.set()
    thread.join()
    assert failures == []


def test_old_trees_are_kept_by_age_and_count(settings: Settings, remote: Remote) -> None:
    def names() -> set[str]:
        return {path.name for path in (settings.trees_dir / "worktrees").iterdir()}

    commits = [remote.head]
    Syncer(settings).sync("test")
    for number in range(2, 6):
        commits.append(remote.commit({"dags/one.py": f"one = {number}\n"}))
        Syncer(settings).sync("test")
    assert names() == set(commits)  # a day has not passed
    Syncer(replace(settings, keep_trees_seconds=0, keep_trees_count=2)).sync("test")
    assert names() == set(commits[-3:])
    Syncer(replace(settings, keep_trees_seconds=0, keep_trees_count=0)).sync("test")
    assert names() == {commits[-1]}
    assert load(settings).retired == {}


def free(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let the disk have this share free."""
    monkeypatch.setattr(trees.Trees, "free_percent", lambda self, taken=0: 100 * share)


def test_full_disk_makes_no_tree_and_says_so(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres stops when the disk is full, and a commit can wait."""
    Syncer(settings).sync("test")
    before = live(settings)
    commit = remote.commit({"dags/one.py": "one = 2\n"})
    free(monkeypatch, 0.049)
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.FAILED
    assert f"would have 4.9% free with {commit[:12]}, which is less than 5%" in result.detail
    assert result.detail.endswith("`systemctl start airflow-clean`, then run `dag-sync once`")
    assert live(settings) == before
    assert [path.name for path in (settings.trees_dir / "worktrees").iterdir()] == [before]
    found = load(settings).last_sync
    assert found is not None
    assert found.detail == result.detail
    free(monkeypatch, 0.05)
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == commit


def test_operator_says_which_disk_is_full(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    free(monkeypatch, 0.07)
    result = Syncer(replace(settings, disk_full_percent=8)).sync("test")
    assert result.outcome is Outcome.FAILED
    assert "which is less than 8%" in result.detail
    assert Syncer(replace(settings, disk_full_percent=7)).sync("test").outcome is Outcome.SWITCHED
    kept = replace(settings, keep_trees_seconds=0, keep_trees_count=2)
    Syncer(replace(kept, disk_low_percent=7)).sync("test")
    assert len(list((settings.trees_dir / "worktrees").iterdir())) == 2
    Syncer(replace(kept, disk_low_percent=8)).sync("test")
    assert len(list((settings.trees_dir / "worktrees").iterdir())) == 1


def test_commit_that_would_fill_the_disk_makes_no_tree(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what would be free with it."""
    Syncer(settings).sync("test")
    before = live(settings)
    usage = shutil.disk_usage(settings.trees_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=10 * 2**20, free=2**20))
    remote.commit({"dags/data.bin": bytes(600 * 2**10)})
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.FAILED
    assert "free disk" in result.detail
    assert live(settings) == before
    remote.commit({"dags/data.bin": bytes(100 * 2**10)})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED


def test_full_disk_keeps_nobody_from_a_tree_that_is_there(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the day in which tasks may be reading it; that is what a rollback needs first."""
    before = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    free(monkeypatch, 0.01)
    assert Syncer(settings).pin(before).outcome is Outcome.SWITCHED
    assert live(settings) == before


def test_nearly_full_disk_keeps_only_trees_that_tasks_may_read(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        return {path.name for path in (settings.trees_dir / "worktrees").iterdir()}

    settings = replace(settings, keep_trees_count=3)
    commits = [remote.head]
    Syncer(settings).sync("test")
    commits.append(remote.commit({"dags/one.py": "one = 2\n"}))
    Syncer(settings).sync("test")
    free(monkeypatch, 0.09)
    Syncer(settings).sync("test")
    assert names() == set(commits)
    Syncer(replace(settings, keep_trees_seconds=0)).sync("test")
    assert names() == {commits[-1]}


def test_nearly_full_disk_keeps_no_damaged_trees(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the live tree is damaged. A task that began in one finds the same files where it was."""

    def made() -> list[Path]:
        folder = settings.trees_dir / "worktrees"
        return [path for path in folder.iterdir() if not path.is_symlink()]

    first, content = remote.head, remote.tree(remote.head)
    Syncer(settings).sync("test")
    begun_in = []
    for _ in range(2):
        begun_in.append(current(settings).resolve())
        (current(settings) / "dags/one.py").unlink()
        assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert len(made()) == 3
    free(monkeypatch, 0.09)
    Syncer(settings).sync("test")
    assert made() == [current(settings).resolve()]
    assert [files_below(path) for path in begun_in] == [content] * 2
    remote.commit({"dags/one.py": "one = 2\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert [files_below(path) for path in begun_in] == [content] * 2
    assert Syncer(settings).pin(first).outcome is Outcome.SWITCHED
    assert not (settings.trees_dir / os.readlink(current(settings))).is_symlink()
    Syncer(replace(settings, keep_trees_seconds=0)).sync("test")
    assert [*(settings.trees_dir / "worktrees").iterdir()] == made() == [current(settings).resolve()]


def test_rule_counts_from_when_a_tree_stopped_being_current() -> None:
    rule = trees.kept_by_age_and_count(seconds=100, count=1)
    retired = {"a": 0.0, "b": 950.0, "c": 980.0}
    assert [rule(name, retired, 1_000) for name in "abc"] == [False, True, True]
    assert [rule(name, retired, 10_000) for name in "abc"] == [False, False, True]


def test_force_push_is_followed_and_recorded(settings: Settings, remote: Remote) -> None:
    remote.commit({"dags/two.py": "two = 2\n"})
    before = remote.head
    Syncer(settings).sync("test")
    after = remote.commit({"dags/two.py": "two = 3\n"}, amend=True)
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == after
    forced = load(settings).forced_push
    assert forced is not None
    assert (forced.before, forced.after) == (before, after)


def test_ordinary_push_is_not_recorded_as_forced(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    remote.commit({"dags/two.py": "two = 2\n"})
    Syncer(settings).sync("test")
    assert load(settings).forced_push is None


def test_deleted_branch_keeps_what_is_live(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    remote.git("checkout", "--quiet", "-b", "other")
    remote.git("branch", "--quiet", "-D", "production")
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.FAILED
    assert "no longer exists" in result.detail
    assert live(settings) == old


def test_unreachable_remote_keeps_what_is_live(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    remote.path.rename(remote.path.with_name("away"))
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.FAILED
    assert live(settings) == old
    found = load(settings)
    assert found.last_sync is not None
    assert found.last_success is not None
    assert found.last_sync.at > found.last_success
    remote.path.with_name("away").rename(remote.path)
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED


def test_submodule_is_refused(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    remote.git("update-index", "--add", "--cacheinfo", f"160000,{old},dags/vendored")
    remote.git("commit", "--quiet", "--message", "Add a submodule")
    result = Syncer(settings).sync("test")
    assert [(reason.kind, reason.path) for reason in result.reasons] == [("submodule", "dags/vendored")]
    assert live(settings) == old


@pytest.mark.parametrize(
    "links",
    [
        {"dags/link": "/etc"},
        {"dags/link": "../../../outside"},
        {"dags/link": "../../current/dags/one.py"},
        {"dags/up": "..", "dags/link": "up/.."},  # each step harmless by its text, together they lead out
        {"dags/link": "link"},
        {"dags/link": "link", "dags/other": "missing/../link"},
    ],
    ids=["absolute", "parent", "live tree", "through another", "loop", "loop behind what is missing"],
)
def test_symlink_that_leaves_the_tree_is_refused(
    settings: Settings, remote: Remote, links: dict[str, str]
) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    for name, target in links.items():
        (remote.path / name).symlink_to(target)
    remote.commit_all()
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.REFUSED
    assert "dags/link" in [reason.path for reason in result.reasons]
    assert {reason.kind for reason in result.reasons} == {"symlink"}
    assert live(settings) == old


def test_symlink_within_the_tree_is_fine(settings: Settings, remote: Remote) -> None:
    (remote.path / "dags/link.py").symlink_to("utils/common.py")
    (remote.path / "dags/dangling").symlink_to("not/there")
    remote.commit_all()
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert (current(settings) / "dags/link.py").read_text() == "common = 1\n"


def test_huge_file_is_refused_before_it_is_checked_out(
    settings: Settings, remote: Remote, gate: GateDouble
) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    with (remote.path / "dags/data.bin").open("wb") as file:
        file.truncate(200 * 2**20)
    remote.commit_all()
    checked = len(gate.checked)
    result = Syncer(settings).sync("test")
    (reason,) = result.reasons
    assert (reason.kind, reason.path) == ("size", "dags/data.bin")
    assert "200 MiB" in reason.message
    assert (live(settings), len(gate.checked)) == (old, checked)


LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.mark.parametrize(
    ("path", "file", "kind", "told"),
    [
        (b"dags/model.bin", File(LFS_POINTER), "lfs", "dags/model.bin"),
        (b"docs/a.png", File(LFS_POINTER.replace(b"\n", b"\r\n")), "lfs", "docs/a.png"),
        (
            b"dags/old.bin",
            File(LFS_POINTER.replace(b"oid", b"ext-0-foo sha256:00\noid").replace(b"git-lfs", b"hawser")),
            "lfs",
            "dags/old.bin",
        ),
        (b"dags/caf\xe9.py", File(b"x"), "name", "dags/caf\\xe9.py"),
        (b"dags/caf\xe9/x.py", File(b"x"), "name", "dags/caf\\xe9/x.py"),
        (b"dags/.git/config", File(b"x"), "name", "dags/.git/config"),
        (b".GIT", File(b"x"), "name", ".GIT"),
        (b"dags/../../x", File(b"x"), "name", "dags/../../x"),
        (b"dags/" + b"n" * 256, File(b"x"), "name", "dags/" + "n" * 256),
        ((b"n" * 200 + b"/") * 5 + b"x", File(b"x"), "name", ("n" * 200 + "/") * 5 + "x"),
        (b"n/" * 101 + b"x", File(b"x"), "name", "n/" * 101 + "x"),
        (b"dags/one.py/x", File(b"x"), "name", "dags/one.py"),
        (b".gitmodules", File(b"dags/one.py", SYMLINK), "name", ".gitmodules"),
        (b"dags/link", File(b"", SYMLINK), "symlink", "dags/link"),
        (b"dags/link", File(b"x" * 4096, SYMLINK), "symlink", "dags/link"),
        (b"dags/link", File(b"one.py\0/..", SYMLINK), "checkout", "dags/link"),
    ],
)
def test_what_cannot_be_live_is_refused_with_its_path(
    settings: Settings, remote: Remote, path: bytes, file: File, kind: str, told: str
) -> None:
    """And the next commit goes live."""
    Syncer(settings).sync("test")
    old = remote.head
    objects = Objects(remote.path)
    good = {b"dags/one.py": File(b"one = 2\n")}
    bad = objects.push(objects.commit({**good, path: file}, [old]))
    result = Syncer(settings).sync("test")
    assert [(reason.kind, reason.path) for reason in result.reasons] == [(kind, told)], result.detail
    assert live(settings) == old
    objects.push(objects.commit(good, [bad]))
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert content_of(current(settings)) == good


@pytest.mark.parametrize(
    "path",
    [
        b"caf\xe9.txt",
        b"dags/caf\xc3\xa9.py",
        b"dags/git~1",
        b"dags/a\\b",
        b"dags/a\nb",
        b"-rf",
        b"dags/.g\xe2\x80\x8cit",
    ],
)
def test_odd_names_go_live(settings: Settings, remote: Remote, path: bytes) -> None:
    objects = Objects(remote.path)
    files = {b"dags/one.py": File(b"one = 2\n"), path: File(b"x")}
    objects.push(objects.commit(files))
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.SWITCHED, result.detail
    assert content_of(current(settings)) == files
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"# a note on\n" + LFS_POINTER]
)
def test_text_about_git_lfs_is_fine(settings: Settings, remote: Remote, content: bytes) -> None:
    remote.commit({"dags/note.txt": content})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED


@pytest.mark.parametrize(
    "author",
    [
        b"Ann Example<ann@example.org> 1800000000 +0000",
        b"Ann",
        b"Ann <> 99999999999999999999 +0000",
        b"\xe9 <> x",
    ],
)
def test_malformed_commit_goes_live(settings: Settings, remote: Remote, author: bytes) -> None:
    objects = Objects(remote.path)
    files = {b"dags/one.py": File(b"one = 2\n")}
    commit = objects.push(objects.commit(files, author=author, message=b"\xe9" * 10_000))
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.SWITCHED, result.detail
    found = load(settings).live
    assert found is not None
    assert found.id == commit
    assert 0 <= found.committed_at < 253_402_300_800  # the year 10000
    assert len(found.subject) <= 300


def test_defect_is_recorded_as_a_failed_sync(
    settings: Settings, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("of all things")

    Syncer(settings).sync("test")
    before = live(settings)
    remote.commit({"dags/one.py": "one = 2\n"})
    with monkeypatch.context() as patched:
        patched.setattr(trees, "carry_times", broken)
        assert Syncer(settings).sync("test").outcome is Outcome.FAILED
    found = load(settings).last_sync
    assert found is not None
    assert found.detail == "ZeroDivisionError: of all things"
    assert live(settings) == before
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED


def test_tree_without_dags_is_refused(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    remote.git("mv", "dags", "elsewhere")
    remote.commit_all()
    result = Syncer(settings).sync("test")
    assert [reason.kind for reason in result.reasons] == ["layout"]
    assert live(settings) == old


@pytest.mark.parametrize(
    "lock_file",
    ["HEAD.lock", "config.lock", "packed-refs.lock", "refs/branches/production.lock", "shallow.lock"],
)
def test_stale_lock_is_removed(settings: Settings, remote: Remote, lock_file: str) -> None:
    Syncer(settings).sync("test")
    path = settings.state_dir / "mirror.git" / lock_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    remote.commit({"dags/two.py": "two = 2\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == remote.head


@pytest.mark.parametrize("leftover", ["objects/pack/tmp_pack_x1Y2z3", "objects/17/tmp_obj_x1Y2z3"])
def test_what_a_killed_fetch_left_is_removed(settings: Settings, leftover: str) -> None:
    """It can be as large as the repository, and git keeps it for two weeks."""
    Syncer(settings).sync("test")
    path = settings.state_dir / "mirror.git" / leftover
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED
    assert not path.exists()


def empty(mirror: Path) -> None:
    shutil.rmtree(mirror)
    mirror.mkdir()


def cut_short(mirror: Path) -> None:
    for path in (mirror / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            os.truncate(path, path.stat().st_size // 2)


def without_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def with_zeroed_ref(mirror: Path) -> None:
    (mirror / "packed-refs").unlink(missing_ok=True)
    (mirror / "refs/branches/production").write_bytes(b"\0" * 41)


def with_blob_lost(mirror: Path) -> None:
    """A damage that a fetch does not notice, since it does not look at old files."""
    for pack in list((mirror / "objects/pack").glob("*.pack")):
        moved = pack.rename(mirror / pack.name)
        pack.with_suffix(".idx").unlink()
        with moved.open("rb") as file:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=mirror, stdin=file, check=True)
        moved.unlink()
    blob = subprocess.run(
        ["git", "rev-parse", "refs/branches/production:dags/one.py"],
        cwd=mirror,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (mirror / "objects" / blob[:2] / blob[2:]).unlink()


@pytest.mark.parametrize("damage", [empty, cut_short, without_head, with_zeroed_ref, with_blob_lost])
def test_broken_mirror_repairs_itself(
    settings: Settings, remote: Remote, damage: Callable[[Path], None]
) -> None:
    Syncer(settings).sync("test")
    damage(settings.state_dir / "mirror.git")
    remote.commit({"dags/two.py": "two = 2\n"})
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.SWITCHED, result.detail
    assert files_below(current(settings)) == remote.tree(remote.head)
    remote.commit({"dags/three.py": "three = 3\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert not list(settings.state_dir.glob("mirror.git.*"))


def test_branch_renamed_below_its_former_name(settings: Settings, remote: Remote) -> None:
    assert settings.repository is not None
    Syncer(settings).sync("test")
    remote.git("branch", "--quiet", "--move", "production/live")
    renamed = replace(settings, repository=replace(settings.repository, branch="production/live"))
    assert Syncer(renamed).sync("test").outcome is Outcome.UNCHANGED
    remote.git("commit", "--quiet", "--allow-empty", "--message", "on")
    assert Syncer(renamed).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == remote.git("rev-parse", "HEAD")
    assert load(settings).forced_push is None
    remote.git("branch", "--quiet", "--move", "other")
    remote.git("branch", "--quiet", "production")
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED


@pytest.fixture
def git_host(remote: Remote) -> FaultyHost:
    """The repository over HTTP, after a commit that git itself finds malformed."""
    objects = Objects(remote.path)
    malformed = objects.commit({b"dags/one.py": File(b"")}, author=b"Ann<ann@example.org> 1800000000 +0000")
    objects.push(objects.commit({b"dags/one.py": File(b"one = 2\n")}, [malformed]))
    remote.path.rename(remote.path.parent / "remote.git")
    return FaultyHost(git_host_app(str(remote.path.parent), []))


@pytest.mark.parametrize("failing", [1, 3, 6])
def test_answer_of_503_leaves_the_mirror_alone(
    settings: Settings, git_host: FaultyHost, failing: int
) -> None:
    """Once, for a whole fetch, and for two: the mirror still has a commit that is no longer on the remote."""
    assert settings.repository is not None
    with served(git_host) as url:
        settings = replace(settings, repository=replace(settings.repository, url=f"{url}/remote.git"))
        Syncer(settings).sync("test")
        mirror = (settings.state_dir / "mirror.git").stat().st_ino
        tree = current(settings).resolve()
        git_host.failing = failing
        for _ in range(3):
            result = Syncer(settings).sync("test")
        assert result.outcome is Outcome.UNCHANGED, result.detail
    assert git_host.failing == 0
    assert (settings.state_dir / "mirror.git").stat().st_ino == mirror
    assert current(settings).resolve() == tree


DEPTH_1 = 3  # requests of git for the newest commit: what the host can, which branches it has, the objects


@pytest.fixture
def half_cloned(
    settings: Settings, remote: Remote, git_host: FaultyHost, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A host whose first clone was interrupted after the newest of six commits."""
    assert settings.repository is not None
    monkeypatch.setattr("webhook.mirror._FIRST_DEEPENING", 1)
    remote.path = remote.path.with_name("remote.git")
    for number in range(4):
        remote.git("commit", "--quiet", "--allow-empty", "--message", str(number))
    with served(git_host) as url:
        settings = replace(settings, repository=replace(settings.repository, url=f"{url}/remote.git"))
        git_host.passing, git_host.failing = DEPTH_1, 10**6
        assert Syncer(settings).sync("test").outcome is Outcome.FAILED
        git_host.failing = 0
        yield settings


def objects_of(mirror: Path) -> set[Path]:
    return {path.relative_to(mirror) for path in (mirror / "objects").rglob("*") if path.is_file()}


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_first_clone_goes_on_where_it_was(
    half_cloned: Settings, remote: Remote, git_host: FaultyHost, again: bool
) -> None:
    """Each part that arrived stays, and what a killed git left beside it goes."""
    new, whole = (half_cloned.state_dir / f"mirror.git{end}" for end in (".new", ""))
    inode, arrived = new.stat().st_ino, objects_of(new)
    assert arrived
    for leftover in ("shallow.lock", "objects/pack/tmp_pack_x1Y2z3"):
        (new / leftover).touch()
    if again:
        git_host.passing, git_host.failing = 1, 10**6
        assert Syncer(half_cloned).sync("test").outcome is Outcome.FAILED
        git_host.failing = 0
    result = Syncer(half_cloned).sync("test")
    assert result.outcome is Outcome.SWITCHED, result.detail
    assert whole.stat().st_ino == inode
    assert arrived <= objects_of(whole)
    assert not list(whole.rglob("tmp_*"))
    history = Git(whole).text("rev-list", live(half_cloned) or "")
    assert history == remote.git("rev-list", "production")
    assert len(history.splitlines()) == 6


@pytest.mark.parametrize("damage", [empty, cut_short, without_head, with_zeroed_ref, with_blob_lost])
def test_half_a_clone_that_is_damaged_is_made_anew(
    half_cloned: Settings, damage: Callable[[Path], None]
) -> None:
    damage(half_cloned.state_dir / "mirror.git.new")
    result = Syncer(half_cloned).sync("test")
    assert result.outcome is Outcome.SWITCHED, result.detail
    assert not list(half_cloned.state_dir.glob("mirror.git.*"))


@pytest.mark.parametrize("change", ["push", "other history", "other branch"])
def test_half_a_clone_follows_what_changed_meanwhile(
    half_cloned: Settings, remote: Remote, change: str
) -> None:
    assert half_cloned.repository is not None
    if change == "push":
        remote.git("commit", "--quiet", "--allow-empty", "--message", "on")
    elif change == "other history":
        tree = remote.git("rev-parse", "HEAD^{tree}")
        commit = remote.git("commit-tree", "-m", "anew", tree)
        commit = remote.git("commit-tree", "-m", "anew", "-p", commit, tree)
        remote.git("update-ref", "refs/heads/production", commit)
    else:
        remote.git("branch", "--quiet", "--move", "production/live")
        half_cloned = replace(
            half_cloned, repository=replace(half_cloned.repository, branch="production/live")
        )
    assert Syncer(half_cloned).sync("test").outcome is Outcome.SWITCHED
    assert live(half_cloned) == remote.git("rev-parse", "HEAD")


def test_repository_without_its_older_commits_can_be_followed(settings: Settings, remote: Remote) -> None:
    """Its host may have a shallow clone; then nothing older can be waited for."""
    remote.commit({"dags/one.py": "one = 2\n"})
    (remote.path / ".git/shallow").write_text(f"{remote.head}\n")
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    remote.commit({"dags/one.py": "one = 3\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == remote.head


def test_message_of_a_failed_fetch_has_no_progress_in_it(settings: Settings, remote: Remote) -> None:
    remote.path.rename(remote.path.with_name("away"))
    detail = Syncer(settings).sync("test").detail
    assert "does not appear to be a git repository" in detail
    assert "%" not in detail


def test_broken_mirror_and_remote_away_keeps_what_is_live(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    old = remote.head
    without_head(settings.state_dir / "mirror.git")
    remote.path.rename(remote.path.with_name("away"))
    assert Syncer(settings).sync("test").outcome is Outcome.FAILED
    assert live(settings) == old
    remote.path.with_name("away").rename(remote.path)
    remote.commit({"dags/two.py": "two = 2\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED


@pytest.mark.parametrize("damage", ["edited", "lost"])
def test_damaged_live_tree_is_replaced(settings: Settings, remote: Remote, damage: str) -> None:
    """As after a power cut, or an edit by hand on the host."""
    Syncer(settings).sync("test")
    path = current(settings) / "dags/one.py"
    path.write_text("") if damage == "edited" else path.unlink()
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert live(settings) == remote.head
    assert files_below(current(settings)) == remote.tree(remote.head)


def test_lost_tree_is_replaced(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    shutil.rmtree(current(settings).resolve())
    assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
    assert files_below(current(settings)) == remote.tree(remote.head)


def test_pin_stays_while_the_branch_moves(settings: Settings, remote: Remote) -> None:
    first = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    kept = current(settings).resolve().stat().st_ino
    Syncer(settings).sync("test")
    result = Syncer(settings).pin(first[:8])
    assert (result.outcome, live(settings)) == (Outcome.SWITCHED, first)
    assert current(settings).resolve().stat().st_ino == kept  # the tree that tasks may still be reading
    third = remote.commit({"dags/one.py": "one = 3\n"})
    assert Syncer(settings).sync("test").outcome is Outcome.UNCHANGED
    assert live(settings) == first
    found = load(settings)
    assert found.pin == first
    assert found.head is not None
    assert found.head.id == third
    assert Syncer(settings).unpin().outcome is Outcome.SWITCHED
    assert live(settings) == third
    assert load(settings).pin is None


def test_pin_works_without_the_remote(settings: Settings, remote: Remote) -> None:
    first = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    remote.path.rename(remote.path.with_name("away"))
    assert Syncer(settings).pin(first).outcome is Outcome.SWITCHED
    assert live(settings) == first


@pytest.fixture
def black_hole(settings: Settings) -> Iterator[BlackHole]:
    with BlackHole() as hole:
        yield hole


def lost_in(black_hole: BlackHole, settings: Settings) -> Settings:
    """The same host after its Git host became a black hole, which is given up after ten minutes."""
    assert settings.repository is not None
    return replace(settings, repository=replace(settings.repository, url=black_hole.url, timeout=600))


def test_pin_to_what_is_there_asks_no_remote(
    settings: Settings, remote: Remote, black_hole: BlackHole
) -> None:
    first = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    assert Syncer(lost_in(black_hole, settings)).pin(first[:12]).outcome is Outcome.SWITCHED
    assert (live(settings), load(settings).pin) == (first, first)
    assert black_hole.callers() == 0


@pytest.mark.parametrize("broken", [False, True], ids=["fetch", "new mirror"])
def test_pin_overtakes_a_fetch(
    settings: Settings, remote: Remote, black_hole: BlackHole, broken: bool
) -> None:
    """The sync that was fetching begins again after the pin."""
    first = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    lost = lost_in(black_hole, settings)
    ended: list[tuple[str, Outcome]] = []

    def fetch() -> None:
        ended.append(("sync", Syncer(lost).sync("test").outcome))

    thread = threading.Thread(target=fetch)
    thread.start()
    wait_until(lambda: black_hole.callers() == 1)
    ended.append(("pin", Syncer(lost).pin(first).outcome))
    assert live(settings) == first
    wait_until(lambda: black_hole.callers() > 1)
    black_hole.close()
    thread.join()
    assert ended == [("pin", Outcome.SWITCHED), ("sync", Outcome.FAILED)]
    assert (live(settings), load(settings).pin) == (first, first)


def test_pin_without_the_gate_overtakes_a_check(settings: Settings, remote: Remote, gate: GateDouble) -> None:
    """A gate that never answers is what it is for. The sync that was waiting begins again after the pin."""
    first = remote.head
    Syncer(settings).sync("test")
    second = remote.commit({"dags/one.py": "one = 2\n"}, amend=True)
    answers = threading.Event()
    gate.before_answer = answers.wait
    thread = threading.Thread(target=Syncer(settings).sync, args=["test"])
    try:
        thread.start()
        wait_until(lambda: len(gate.checked) == 2)
        assert Syncer(settings).pin(first, with_gate=False).outcome is Outcome.UNCHANGED
        assert load(settings).pin == first
    finally:
        answers.set()
        thread.join()
    found = load(settings)
    assert (live(settings), found.last_sync and found.last_sync.trigger) == (first, "test")
    assert found.forced_push is not None
    assert found.forced_push.after == second


def test_pin_to_what_is_not_there_fetches_it(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    commit = remote.commit({"dags/one.py": "one = 2\n"})
    assert Syncer(settings).pin(commit[:12]).outcome is Outcome.SWITCHED
    assert live(settings) == commit
    remote.path.rename(remote.path.with_name("away"))
    result = Syncer(settings).pin("0123456789")
    assert result.outcome is Outcome.FAILED
    assert "begins with 0123456789" in result.detail
    assert "could not be fetched" in result.detail


def test_commit_that_was_fetched_goes_live_without_the_remote(
    settings: Settings, remote: Remote, gate: GateDouble
) -> None:
    """As when the gate was out of order, and now the Git host is away."""
    Syncer(settings).sync("test")
    commit = remote.commit({"dags/one.py": "one = 2\n"})
    gate.error = "out of order"
    Syncer(settings).sync("test")
    gate.error = None
    remote.path.rename(remote.path.with_name("away"))
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.FAILED
    assert "is live, but" in result.detail
    assert live(settings) == commit


@pytest.mark.parametrize("digits", ["0" * 40, "deadbeef", "HEAD", "--all", "production", ""])
def test_pin_to_nothing_changes_nothing(settings: Settings, remote: Remote, digits: str) -> None:
    Syncer(settings).sync("test")
    assert Syncer(settings).pin(digits).outcome is Outcome.FAILED
    assert live(settings) == remote.head
    assert load(settings).pin is None


def test_refused_pin_is_no_pin_unless_the_gate_is_left_out(
    settings: Settings, remote: Remote, gate: GateDouble
) -> None:
    first = remote.head
    Syncer(settings).sync("test")
    second = remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    gate.problems = lambda tree: [{"kind": "import", "path": "dags/one.py", "message": "no"}]
    assert Syncer(settings).pin(first).outcome is Outcome.REFUSED
    assert (live(settings), load(settings).pin) == (second, None)
    gate.error = "broken"
    assert Syncer(settings).pin(first, with_gate=False).outcome is Outcome.SWITCHED
    assert (live(settings), load(settings).pin) == (first, first)


def test_infrastructure_changes_since_the_last_converge(
    settings: Settings, remote: Remote, tmp_path: Path
) -> None:
    converged = tmp_path / "converged"
    settings = replace(settings, converged_commit_file=converged)
    converged.write_text(remote.head + "\n")
    remote.commit({"dags/one.py": "one = 2\n"})
    Syncer(settings).sync("test")
    assert load(settings).infrastructure_changed == []
    remote.commit({"dags/one.py": "one = 3\n", "site.yml": "--- # new\n", "roles/x/tasks/main.yml": "---\n"})
    Syncer(settings).sync("test")
    assert load(settings).infrastructure_changed == ["roles/x/tasks/main.yml", "site.yml"]
    converged.write_text(remote.head)
    Syncer(settings).sync("test")
    assert load(settings).infrastructure_changed == []


def test_unreadable_state_is_said_and_not_thrown_away(settings: Settings, remote: Remote) -> None:
    Syncer(settings).sync("test")
    (settings.state_dir / "state.json").write_text('{"pin": ')
    result = Syncer(settings).sync("test")
    assert result.outcome is Outcome.FAILED
    assert "state.json" in result.detail
    assert live(settings) == remote.head


def test_trees_are_readable_for_airflow(settings: Settings) -> None:
    before = os.umask(0o077)
    try:
        Syncer(settings).sync("test")
    finally:
        os.umask(before)
    assert (current(settings) / "dags/one.py").stat().st_mode & 0o777 == 0o644
    assert current(settings).resolve().stat().st_mode & 0o777 == 0o755


def test_second_sync_waits_for_the_first(
    settings: Settings, gate: GateDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, release = threading.Event(), threading.Event()
    gate.before_answer = release.wait
    outcomes: dict[str, Outcome] = {}

    def sync(trigger: str) -> None:
        outcomes[trigger] = Syncer(settings).sync(trigger).outcome

    def sleep(seconds: float) -> None:
        waits.set()
        time.sleep(seconds)

    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    first, second = (threading.Thread(target=sync, args=[trigger]) for trigger in ("first", "second"))
    try:
        first.start()
        wait_until(lambda: gate.checked)
        second.start()
        assert waits.wait(60)
    finally:
        release.set()
    first.join()
    second.join()
    assert outcomes == {"first": Outcome.SWITCHED, "second": Outcome.UNCHANGED}
    assert len(gate.checked) == 1


def test_lock_is_waited_for_while_its_holder_gets_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first clone takes as long as it takes; whoever waits gives up only when it does not get on."""
    path = tmp_path / "lock"
    now, looks = 0.0, 0

    def sleep(seconds: float) -> None:
        nonlocal now, looks
        now, looks = now + 0.3, looks + 1
        if looks <= 10:
            time.sleep(0.02)  # the kernel's clock of files ticks every few milliseconds
            lock.show_progress(descriptor)

    with lock.exclusive(path, 1) as descriptor:
        monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
        with pytest.raises(lock.LockTimeoutError), lock.exclusive(path, timeout=0.5):
            pass
    assert looks == 12  # the last progress was seen at 3.0 s, so the wait ends with the look at 3.6 s


def test_looking_at_a_lock_takes_it_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not lock.is_held(path)
    with lock.exclusive(path, 0):
        assert lock.is_held(path)
    assert not lock.is_held(path)


def test_lock_is_held_until_the_last_child_ends(tmp_path: Path) -> None:
    """A killed sync leaves its git behind for a moment; two gits must not meet in one mirror."""
    path = tmp_path / "lock"
    with lock.exclusive(path, 1) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    with pytest.raises(lock.LockTimeoutError), lock.exclusive(path, 0.1):
        pass
    child.kill()
    child.wait()
    with lock.exclusive(path, 1):
        pass


def test_worktree_that_git_left_locked_is_no_obstacle(settings: Settings, remote: Remote) -> None:
    """Git locks a worktree while it makes it; killed in that moment, it leaves the lock behind."""
    first = remote.head
    Syncer(settings).sync("test")
    remote.commit({"dags/two.py": "two = 2\n"})
    Syncer(settings).sync("test")
    folder = settings.trees_dir / "worktrees"
    shutil.rmtree(folder / first)
    mirror = settings.state_dir / "mirror.git"
    add = ["worktree", "add", "--quiet", "--lock", "--detach", str(folder / f".new-{first}"), first]
    subprocess.run(["git", "-C", str(mirror), *add], check=True)
    assert Syncer(settings).pin(first).outcome is Outcome.SWITCHED
    assert files_below(current(settings)) == remote.tree(first)


def test_killed_at_any_moment_leaves_old_or_new(
    settings: Settings, remote: Remote, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """kill -9 at random moments; each time a whole commit is live, and the next sync gets through."""
    Syncer(settings).sync("test")
    started = time.monotonic()
    assert start("webhook.cli", "once").wait() == 0
    moment = time.monotonic() - started
    chance = random.Random(20260101)
    known = {remote.head}
    seen = set()
    for number in range(20):
        files: dict[str, str | bytes | None] = {f"dags/d{n}.py": f"n = {number}\n" for n in range(20)}
        known.add(remote.commit(files))
        process = start("webhook.cli", "once")
        time.sleep(chance.uniform(0.5, 1.5) * moment)
        process.kill()
        process.wait()
        commit = live(settings)
        assert commit in known
        assert files_below(current(settings)) == remote.tree(commit)
        switched = commit == remote.head
        seen.add(switched)
        moment *= 0.8 if switched else 1.25  # stays near the switch, however fast the machine is by now
    assert Syncer(settings).sync("test").outcome in (Outcome.SWITCHED, Outcome.UNCHANGED)
    assert live(settings) == remote.head
    assert files_below(current(settings)) == remote.tree(remote.head)
    found = load(settings)
    assert found.live is not None
    assert found.live.id == remote.head
    assert seen == {True, False}, "the moments did not fall on both sides of the switch"
