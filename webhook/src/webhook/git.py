"""Runs the git binary, as git-sync does: no prompt, no hooks, no background children, a time limit on each
call.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Given on every call, so that neither the host's nor the user's configuration changes what a sync does.
_CONFIG = {
    "core.hooksPath": os.devnull,
    "advice.detachedHead": "false",
    # A background gc would outlive the sync and hold its lock.
    "gc.autoDetach": "false",
    "maintenance.autoDetach": "false",
    # The mirror may belong to the container's user while root looks at it from the host.
    "safe.directory": "*",
    # A line that has gone quiet is given up by git itself.
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "20",
}


class GitError(Exception):
    """A git command failed, or took longer than its limit."""

    def __init__(self, command: Sequence[str], message: str, returncode: int | None = None) -> None:
        """`returncode` is None when the command was ended at its time limit."""
        super().__init__(f"git {command[0]}: {message}")
        self.returncode = returncode
        self.message = message


@dataclass(frozen=True)
class Git:
    """A git command line bound to one repository.

    `inherit` are file descriptors that the children keep open: the sync lock, so that it is held until the
    last git process is gone even when the sync itself was killed.
    """

    directory: Path
    timeout: float = 120
    environment: Mapping[str, str] = field(default_factory=dict)
    inherit: tuple[int, ...] = ()

    def bytes(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Run and return standard output.

        Raises:
            GitError: exit code other than 0, or the time limit was reached.
        """
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program, arguments are never a shell line
                ["git", *arguments],  # noqa: S607 - the image's git, wherever it is
                cwd=self.directory,
                env=self._environment(),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=self.timeout,
                pass_fds=self.inherit,
                umask=0o022,  # Airflow reads the worktrees as another user
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise GitError(arguments, f"no end after {self.timeout:.0f} s") from None
        if done.returncode != 0:
            message = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            raise GitError(arguments, message, done.returncode)
        return done.stdout

    def text(self, *arguments: str) -> str:
        """Run and return standard output as text without the last newline."""
        return self.bytes(*arguments).decode(errors="replace").rstrip("\n")

    def succeeds(self, *arguments: str) -> bool:
        """Run and say whether the exit code was 0."""
        try:
            self.bytes(*arguments)
        except GitError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        config: dict[str, str] = {"GIT_CONFIG_COUNT": str(len(_CONFIG))}
        for number, (key, value) in enumerate(_CONFIG.items()):
            config[f"GIT_CONFIG_KEY_{number}"] = key
            config[f"GIT_CONFIG_VALUE_{number}"] = value
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        if "GIT_SSL_CAINFO" in os.environ:
            inherited["GIT_SSL_CAINFO"] = os.environ["GIT_SSL_CAINFO"]
        return {
            **inherited,
            "LC_ALL": "C",  # messages are matched in `mirror`
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **config,
            **self.environment,
        }
