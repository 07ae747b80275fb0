"""The mirror over SSH, against OpenSSH's own server: it wants a deploy key, we a pinned host."""

import getpass
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from webhook.settings import RepositorySettings, Settings
from webhook.state import load
from webhook.sync import Outcome, Result, Syncer

from sandbox.ssh_host import SshHost
from tests.webhook.doubles import Remote
from tests.webhook.network import free_port


@dataclass
class Host:
    """A host that follows the remote over SSH, and what it was given for that."""

    settings: Settings
    remote: Remote
    deploy_key: Path
    known_hosts: Path
    other_key: Path

    def sync(self, **changes: object) -> Result:
        """Sync, with changes to the settings of the repository."""
        assert self.settings.repository
        repository: RepositorySettings = replace(self.settings.repository, **changes)  # type: ignore[arg-type]
        return Syncer(replace(self.settings, repository=repository)).sync("test")

    def live(self) -> str:
        return (self.settings.trees_dir / "current").resolve().name


@pytest.fixture
def host(settings: Settings, remote: Remote, tmp_path: Path) -> Iterator[Host]:
    """One on which the first commit is live."""
    assert settings.repository
    port = free_port()
    ssh = SshHost(tmp_path / "ssh", tmp_path, getpass.getuser())
    deploy_key, known_hosts, other_key = (tmp_path / name for name in ("key", "known_hosts", "other"))
    deploy_key.touch(mode=0o600)
    deploy_key.write_text(ssh.deploy_key)
    known_hosts.write_text(f"[127.0.0.1]:{port} {ssh.host_key}\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other_key)], check=True)
    repository = replace(
        settings.repository,
        url=f"ssh://{getpass.getuser()}@127.0.0.1:{port}/{remote.path.name}",
        deploy_key=deploy_key,
        known_hosts=known_hosts,
    )
    host = Host(replace(settings, repository=repository), remote, deploy_key, known_hosts, other_key)
    with ssh.listening("127.0.0.1", port):
        assert host.sync().outcome is Outcome.SWITCHED
        yield host


def test_push_is_fetched(host: Host) -> None:
    commit = host.remote.commit({"dags/two.py": "two = 2\n"})
    assert host.sync().outcome is Outcome.SWITCHED
    assert host.live() == commit


def check_refusal(host: Host, words: str, **changes: object) -> None:
    """Sync in vain: what is live stays, and the message says what to do; then all is put right."""
    before = host.live()
    commit = host.remote.commit({"dags/two.py": "two = 2\n"})
    result = host.sync(**changes)
    assert result.outcome is Outcome.FAILED
    assert words in result.detail
    assert "\n" not in result.detail
    assert host.live() == before
    last = load(host.settings.state_dir / "state.json").last_sync
    assert last
    assert last.detail == result.detail
    assert host.live() != commit


def test_host_with_another_key_is_refused(host: Host) -> None:
    other = host.other_key.with_suffix(".pub").read_text()
    address = host.known_hosts.read_text().split()[0]
    host.known_hosts.write_text(f"{address} {other}")
    check_refusal(host, "shows another key than the pinned one")


def test_host_that_is_not_pinned_is_refused(host: Host) -> None:
    check_refusal(host, "put it into dag_repository_known_hosts", known_hosts=None)


def test_other_deploy_key_is_refused(host: Host) -> None:
    check_refusal(host, "does not accept the deploy key", deploy_key=host.other_key)


@pytest.mark.parametrize("path", [None, Path("/nonexistent/key")])
def test_missing_deploy_key_is_named(host: Host, path: Path | None) -> None:
    check_refusal(host, "asks for a deploy key, and there is none", deploy_key=path)


def test_damaged_deploy_key_is_named(host: Host) -> None:
    """As from a field that takes one line only."""
    text = host.deploy_key.read_text()
    host.deploy_key.write_text(text.replace("\n", " "))
    check_refusal(host, "the deploy key cannot be read")
    host.deploy_key.write_text(text)
    assert host.sync().outcome is Outcome.SWITCHED
