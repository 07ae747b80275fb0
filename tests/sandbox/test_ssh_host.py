"""The Git host over SSH: a deploy key reads, and that is all; OpenSSH's own client is the judge."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import git_host
from sandbox.ssh_host import SshHost, SshHostError
from tests.served import served
from tests.webhook.network import free_port

USER = getpass.getuser()


class Client:
    """Somebody with a key, who knows the host's."""

    def __init__(self, folder: Path, host: SshHost, port: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.key = folder / "key"
        self.key.touch(mode=0o600)
        self.key.write_text(host.deploy_key)
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host.host_key}\n")
        self.address = f"{USER}@127.0.0.1"
        self.port = str(port)
        self.ssh = [
            *(
                "ssh",
                "-F",
                os.devnull,
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-i",
                str(self.key),
            ),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={folder / 'known_hosts'}"),
        ]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "GIT_SSH_COMMAND": " ".join(self.ssh), "GIT_CONFIG_GLOBAL": os.devnull}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )

    def url(self, path: str) -> str:
        return f"ssh://{self.address}:{self.port}/{path}"

    def command(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.ssh, "-p", self.port, self.address, *command)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of a host with a repository that has one commit."""
    repositories = tmp_path / "git"
    with served(git_host.create_app(str(repositories), ["team/airflow"])) as url:
        port = free_port()
        host = SshHost(tmp_path / "ssh", repositories, USER)
        client = Client(tmp_path / "client", host, port)
        working_copy = tmp_path / "working-copy"
        identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
        for command in (
            ("clone", "--quiet", f"{url}/team/airflow.git", str(working_copy)),
            ("-C", str(working_copy), *identity, "commit", "--quiet", "--allow-empty", "--message", "first"),
            ("-C", str(working_copy), "push", "--quiet", "origin", "HEAD:production"),
        ):
            assert client.run("git", *command).returncode == 0
        with host.listening("127.0.0.1", port):
            yield client


def test_key_reads_what_was_pushed(client: Client) -> None:
    done = client.run("git", "ls-remote", client.url("team/airflow.git"), "refs/heads/production")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()[0]) == 40


def test_key_writes_nothing(client: Client) -> None:
    client.run("git", "clone", "--quiet", client.url("team/airflow.git"), "clone")
    done = client.run("git", "-C", "clone", "push", "origin", "HEAD:refs/heads/another")
    assert done.returncode != 0
    assert "marked as read only" in done.stderr


@pytest.mark.parametrize("path", ["team/other.git", "../etc", "team/../../git", "%2e%2e/ssh"])
def test_other_repository_is_not_found(client: Client, path: str) -> None:
    done = client.run("git", "ls-remote", client.url(path))
    assert done.returncode != 0
    assert "Repository not found" in done.stderr


@pytest.mark.parametrize("command", [[], ["id"], ["git-upload-pack"], ["git-upload-pack", "'", ";", "id"]])
def test_key_opens_no_shell(client: Client, command: list[str]) -> None:
    done = client.command(*command)
    assert done.returncode == 1
    assert "does not provide shell access" in done.stderr
    assert "uid=" not in done.stdout + done.stderr


def test_other_key_is_refused(client: Client) -> None:
    client.key.unlink()
    client.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(client.key))
    done = client.run("git", "ls-remote", client.url("team/airflow.git"))
    assert done.returncode != 0
    assert "Permission denied (publickey)" in done.stderr


def test_keys_outlive_a_restart_and_only_public_ones_are_readable(tmp_path: Path) -> None:
    first, second = (SshHost(tmp_path / "ssh", tmp_path, USER) for _ in range(2))
    assert (first.host_key, first.deploy_key) == (second.host_key, second.deploy_key)
    assert first.host_key.startswith("ssh-ed25519 AAAA")
    for name in ("host_key", "deploy_key"):
        assert (tmp_path / "ssh" / name).stat().st_mode & 0o077 == 0


def test_says_that_it_cannot_listen(tmp_path: Path) -> None:
    nowhere = SshHost(tmp_path / "ssh", tmp_path, USER).listening("192.0.2.1", free_port())
    with pytest.raises(SshHostError, match="does not listen"):
        nowhere.__enter__()
