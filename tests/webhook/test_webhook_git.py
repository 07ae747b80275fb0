"""How git reaches the remote: only with the deploy key, only to hosts whose key is pinned, asking nobody."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from webhook.git import Git, GitError
from webhook.settings import RepositorySettings
from webhook.ssh import ssh_environment


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
    git = Git(tmp_path)
    git.bytes("init", "--quiet", "--bare", "here")
    with pytest.raises(GitError):
        Git(tmp_path / "here").text("config", "user.name")
    assert Git(tmp_path / "here").text("rev-parse", "--is-bare-repository") == "true"


def test_time_limit_is_said(tmp_path: Path) -> None:
    with pytest.raises(GitError, match=r"git cat-file: no end after 0 s"):
        Git(tmp_path, timeout=0.0).bytes("cat-file", "--batch")
