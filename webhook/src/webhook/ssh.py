"""How git reaches a repository over SSH: with the deploy key, and only a host whose key is pinned. Also says,
for the person on call, why it did not.
"""

import os
import shlex

from webhook.settings import RepositorySettings

# OpenSSH's words (sshconnect.c, sshconnect2.c, authfile.c), and what to do about them; the first that fits.
_ADVICE = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the Git host shows another key than the pinned one: somebody is in between, or it has a new key;"
        " compare dag_repository_known_hosts with what its operator publishes",
    ),
    (
        "Host key verification failed",
        "the Git host's key is not pinned: put it into dag_repository_known_hosts",
    ),
    (
        "Load key",
        "the deploy key cannot be read: item DAG repository, field deploy key, has to hold the private key,"
        " with its line breaks and without a passphrase",
    ),
    (
        "Permission denied",
        "the Git host does not accept the deploy key: the repository needs the public half of the one in item"
        " DAG repository, field deploy key",
    ),
)
_NO_KEY = "the Git host asks for a deploy key, and there is none: item DAG repository, field deploy key"


def ssh_environment(repository: RepositorySettings) -> dict[str, str]:
    """Return the variables that make git use the deploy key, and only hosts whose key is pinned.

    Without a file of known hosts every SSH host is refused: checking is never switched off.
    """
    options = [
        "ssh",
        "-F", os.devnull,
        "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=yes",
        "-o", f"UserKnownHostsFile={repository.known_hosts or os.devnull}",
        "-o", f"GlobalKnownHostsFile={os.devnull}",
        "-o", "ConnectTimeout=10",
        "-o", "ServerAliveInterval=5",
        "-o", "ServerAliveCountMax=3",
        "-o", "ControlMaster=no",
    ]  # fmt: skip
    if repository.deploy_key is not None:
        options += ["-o", "IdentitiesOnly=yes", "-i", str(repository.deploy_key)]
    return {"GIT_SSH_COMMAND": shlex.join(options)}


def explain(message: str, repository: RepositorySettings) -> str | None:
    """Say in one line why SSH did not let git through and what to do, None when it was not for SSH."""
    advice = next((advice for words, advice in _ADVICE if words in message), None)
    # ssh only remarks on a key that is not there, and goes on to be refused for having none.
    has_key = repository.deploy_key is not None and repository.deploy_key.is_file()
    return _NO_KEY if advice == _ADVICE[-1][1] and not has_key else advice
