"""The host reads the repository over SSH, as in production: with a deploy key, from a host that is pinned."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, SERVICES, Delivery, dag_source, docker, new_name

FOLDER = "/srv/airflow/webhook"
DEPLOY_KEY = f"{FOLDER}/deploy_key"
KNOWN_HOSTS = f"{FOLDER}/known_hosts"


def push(delivery: Delivery) -> str:
    """Push a DAG without telling anybody."""
    dag = new_name("over_ssh")
    return delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})


def test_fetch_is_over_ssh_with_the_deploy_key(delivery: Delivery, execute: Any) -> None:
    """By what the Git host's own log says: the key's fingerprint, and which account."""
    fingerprint = execute("webhook", "ssh-keygen -l -f /etc/webhook/deploy_key")
    assert fingerprint.rc == 0, fingerprint.stderr
    began = str(int(time.time()))
    commit = push(delivery)
    delivery.announce(commit)
    delivery.wait_until_live(commit)
    log = docker("logs", "--since", began, SERVICES)
    accepted = [line for line in log.splitlines() if "Accepted publickey for git from " in line]
    assert accepted
    assert fingerprint.stdout.split()[1] in accepted[-1]
    # Nobody fetched by the other way in; pushes ask for git-receive-pack.
    assert "/git-upload-pack" not in log


def test_deploy_key_is_the_vaults(delivery: Delivery) -> None:
    """With all its lines, the last one ended, for the webhook alone."""
    file = delivery.host.file(DEPLOY_KEY)
    lines = file.content_string.split("\n")
    assert lines[0] == "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert lines[-2:] == ["-----END OPENSSH PRIVATE KEY-----", ""]
    assert (file.mode, file.uid) == (0o400, 50001)
    assert "PRIVATE KEY" not in delivery.host.check_output("cat /srv/airflow/env/*.env")


@pytest.fixture
def replace(delivery: Delivery) -> Iterator[Callable[[str, str | None], None]]:
    """Return a function that writes another text into a file of the webhook's, or takes the file away."""
    replaced: list[str] = []

    def replace(path: str, text: str | None) -> None:
        # Renamed and copied with owner and mode, within the folder that the container sees.
        delivery.host.check_output(f"mv {path} {path}.real")
        replaced.append(path)
        if text is not None:
            delivery.host.check_output(f"cp --preserve {path}.real {path} && printf '%%s' %s > {path}", text)

    yield replace
    for path in replaced:
        delivery.host.check_output(f"mv {path}.real {path}")
    again = delivery.sync("once")
    assert again.rc == 0, again.stdout + again.stderr


@pytest.fixture
def other_key(tmp_path: Path) -> tuple[str, str]:
    """Return both halves of a key that nobody knows: private and public."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.read_text(), path.with_suffix(".pub").read_text()


def check_push_stays_out(delivery: Delivery, words: str) -> None:
    """Push, and sync in vain: on the command line, on the page and on the host nothing else is to be seen.

    The way to the Git host must be closed already: the webhook may be about to try again after a failure.
    """
    before, commit = delivery.live(), push(delivery)
    once = delivery.sync("once")
    assert once.rc == 1, once.stdout + once.stderr
    assert words in once.stdout
    assert words in delivery.sync("status").stdout
    assert any("the last sync failed" in line and words in line for line in delivery.page()["attention"])
    # And so it is when the webhook itself was told.
    delivery.announce(commit)

    def told() -> bool:
        last = delivery.page()["delivery"]["last_sync"]
        return bool(last["trigger"] in ("webhook", "retry") and words in last["detail"])

    wait_for("the webhook's own sync", told, PATIENCE, pause=0.25)
    assert delivery.live() == before


def test_host_with_another_key_is_refused(
    delivery: Delivery, replace: Callable[[str, str | None], None], other_key: tuple[str, str]
) -> None:
    """Somebody may have put himself in between; the push waits until a person has looked."""
    replace(KNOWN_HOSTS, f"{delivery.outside} {other_key[1]}")
    check_push_stays_out(delivery, "shows another key than the pinned one")


def test_other_deploy_key_is_refused(
    delivery: Delivery, replace: Callable[[str, str | None], None], other_key: tuple[str, str]
) -> None:
    """As after the repository's keys were changed without a word to this side."""
    replace(DEPLOY_KEY, other_key[0])
    check_push_stays_out(delivery, "does not accept the deploy key")


def test_missing_deploy_key_is_named(delivery: Delivery, replace: Callable[[str, str | None], None]) -> None:
    """The message says where it belongs."""
    replace(DEPLOY_KEY, None)
    check_push_stays_out(delivery, "asks for a deploy key, and there is none")
