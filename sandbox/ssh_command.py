"""What a deploy key may do on the Git host, as sshd's forced command: read a repository, and nothing else.

``python3 -m sandbox.ssh_command DIRECTORY`` with the client's own command in SSH_ORIGINAL_COMMAND; answers to
the client are on standard error, in GitHub's words.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from sandbox.git_environment import git_environment

READ, WRITE = "git-upload-pack", "git-receive-pack"


def main(directory: str, command: str) -> NoReturn:
    """Become git, serving the repository of ``command`` below ``directory``, or end with status 1."""
    try:
        program, name = shlex.split(command)
    except ValueError:
        sys.exit("You've successfully authenticated, but this host does not provide shell access.")
    if program == WRITE:
        sys.exit("ERROR: The key you are authenticating with has been marked as read only.")
    root = Path(directory).resolve()
    # Both forms of an address: git@host:team/name.git and ssh://git@host/team/name.git.
    repository = (root / name.lstrip("/")).resolve()
    if program != READ or root not in repository.parents or not repository.is_dir():
        sys.exit("ERROR: Repository not found.")
    arguments = ["git", "upload-pack", str(repository)]
    version = {name: os.environ[name] for name in ("GIT_PROTOCOL",) if name in os.environ}
    os.execvpe("git", arguments, {**git_environment(), **version})  # noqa: S606, S607 - Debian's git


if __name__ == "__main__":
    main(sys.argv[1], os.environ.get("SSH_ORIGINAL_COMMAND", ""))
