"""How git reaches the remote: only with the deploy key, only to hosts whose key is pinned, asking nobody."""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from webhook.git import Git, GitError, SilentRemoteError
from webhook.settings import RepositorySettings
from webhook.ssh import ssh_environment

from tests.webhook.doubles import wait_until
from webhook import git


def ssh_settings(repository: RepositorySettings) -> dict[str, str]:
    """Have ssh itself say what it makes of the options."""
    command = shlex.split(ssh_environment(repository)["GIT_SSH_COMMAND"])
    done = subprocess.run([*command, "-G", "git.example"], check=True, capture_output=True, text=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def repository(deploy_key: Path | None, known_hosts: Path | None) -> RepositorySettings:
    return RepositorySettings(
        url="git@git.example:team/airflow.git",
        branch="production",
        deploy_key=deploy_key,
        known_hosts=known_hosts,
        timeout=10,
    )


def test_deploy_key_and_pinned_hosts(tmp_path: Path) -> None:
    (tmp_path / "deploy key").touch()  # ssh leaves out what is not there
    found = ssh_settings(repository(tmp_path / "deploy key", tmp_path / "known_hosts"))
    assert found["identityfile"] == str(tmp_path / "deploy key")
    assert found["identitiesonly"] == "yes"
    assert found["userknownhostsfile"] == str(tmp_path / "known_hosts")
    assert found["globalknownhostsfile"] == os.devnull
    assert found["stricthostkeychecking"] in ("true", "yes")
    assert found["batchmode"] == "yes"


def test_without_known_hosts_no_host_is_known() -> None:
    found = ssh_settings(repository(None, None))
    assert found["userknownhostsfile"] == os.devnull
    assert found["stricthostkeychecking"] in ("true", "yes")


def test_configuration_of_the_user_and_variables_of_the_caller_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Somebody\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    Git(tmp_path).bytes("init", "--quiet", "--bare", "here")
    with pytest.raises(GitError):
        Git(tmp_path / "here").text("config", "user.name")
    assert Git(tmp_path / "here").text("rev-parse", "--is-bare-repository") == "true"


class RemoteDouble:
    """A git command that says on standard error what a test tells it to, while the clock is the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._orders, self._receipts = folder / "orders", folder / "receipts"
        os.mkfifo(self._orders)
        os.mkfifo(self._receipts)
        program = folder / "remote-double"
        program.write_text(
            f"#!/bin/sh\nexec 3<{self._orders} 4>{self._receipts}\n"
            'while read -r line <&3; do printf "%s\\r" "$line" >&2; echo said >&4; done\n'
        )
        program.chmod(0o755)
        self._git = Git(folder)
        self._command = ("-c", f"alias.double=!{program}", "double")
        self._now = 0.0
        monkeypatch.setattr(git, "time", SimpleNamespace(monotonic=lambda: self._now))

    def talk(self, steps: Sequence[tuple[float, str]]) -> None:
        """For each step let so many seconds pass and have the remote say something, or nothing."""
        left = iter(steps)
        with contextlib.ExitStack() as stack:
            files: list[IO[str]] = []

            def go_on() -> None:
                if not files:  # opening waits for the program
                    files.append(stack.enter_context(self._orders.open("w")))
                    files.append(stack.enter_context(self._receipts.open()))
                seconds, line = next(left, (0.0, None))
                self._now += seconds
                if line is None:
                    files[0].close()
                elif line:
                    print(line, file=files[0], flush=True)
                    files[1].readline()

            self._git.talk(*self._command, silence=120, go_on=go_on)


@pytest.fixture
def remote_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteDouble:
    return RemoteDouble(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "steps",
    [
        [(100, f"remote: Counting objects: {percent}% (1/100)") for percent in range(20)],
        [(100, f"Receiving objects: {percent}% (1/100)") for percent in range(20)],
        [(1, "Receiving objects: 100% (100/100), done.")] + [(100, "")] * 20,  # git looks at what came
    ],
    ids=["counting", "receiving", "received"],
)
def test_remote_that_gets_on_has_no_limit(
    remote_double: RemoteDouble, steps: Sequence[tuple[float, str]]
) -> None:
    remote_double.talk(steps)


@pytest.mark.parametrize("first", ["", "Receiving objects: 99% (99/100)", "remote: Receiving objects: 10"])
def test_silent_remote_is_given_up(remote_double: RemoteDouble, first: str) -> None:
    with pytest.raises(SilentRemoteError, match="the remote was silent for 120 s"):
        remote_double.talk([(1, first)] + [(50, "")] * 20)


def test_whoever_calls_can_end_it(tmp_path: Path) -> None:
    """With all that git started, which may have the connection and the lock."""
    pid = tmp_path / "pid"
    alias = f"alias.stay=!sleep 600 & echo $! >{pid}.new; mv {pid}.new {pid}; wait"

    def go_on() -> None:
        if pid.exists():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Git(tmp_path).talk("-c", alias, "stay", silence=600, go_on=go_on)
    process = Path("/proc") / pid.read_text().strip() / "stat"
    wait_until(lambda: not process.exists() or process.read_text().split()[2] == "Z")


def test_error_is_what_git_said_and_no_progress(tmp_path: Path) -> None:
    says = r"printf 'remote: Counting objects: 1%% (1/9)\rReceiving objects: 10%% (1/9)\nfatal: early EOF\n'"
    with pytest.raises(GitError, match=r"^git -c: fatal: early EOF$"):
        Git(tmp_path).talk("-c", f"alias.x=!{says} >&2; exit 1", "x", silence=60, go_on=lambda: None)
