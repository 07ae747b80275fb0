"""Runs the git binary: no prompt, no hooks, no background children, nobody's configuration.

What grows with the repository has no limit in time. A remote that has been silent for too long is given up.
"""

import builtins
import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

# Given on every call, so that neither the host's nor the user's configuration changes what a sync does.
_CONFIG = {
    "core.hooksPath": os.devnull,
    "advice.detachedHead": "false",
    # A background gc would outlive the sync and hold its lock.
    "gc.autoDetach": "false",
    "maintenance.autoDetach": "false",
    # The mirror may belong to the container's user while root looks at it from the host.
    "safe.directory": "*",
    # By default git reads a file in the user's home for each of these.
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    # Names that only Windows and macOS forbid.
    "core.protectNTFS": "false",
    "core.protectHFS": "false",
}

# What git reports on its way (progress.c), from here or from the remote. It is no part of an error message.
_PROGRESS = re.compile(r"(?:remote: )?(?:[A-Z][a-z ]+: +\d+(?:%|,|$)|Total \d+ )")
# After that only local work is left, which is silent and grows with the data.
_ARRIVED = re.compile(rb"(?:Receiving|Unpacking) objects: 100%")
_LOOK_SECONDS = 0.1  # how often the caller of a remote command is asked whether to go on


class GitError(Exception):
    """A git command failed."""

    def __init__(self, command: Sequence[str], message: str) -> None:
        """`message` is what git said."""
        super().__init__(f"git {command[0]}: {message}")
        self.message = message


class SilentRemoteError(GitError):
    """The remote said nothing for too long, and was given up."""


@dataclass(frozen=True)
class Git:
    """A git command line bound to one repository.

    `inherit` are file descriptors that the children keep open: the sync lock, so that it is held until the
    last git process is gone even when the sync itself was killed.
    """

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    inherit: tuple[int, ...] = ()

    def bytes(self, *arguments: str) -> bytes:
        """Run and return standard output.

        Raises:
            GitError: exit code other than 0.
        """
        with self._started(arguments, stdout=subprocess.PIPE) as process:
            output, errors = process.communicate()
        _check(arguments, process.returncode, errors)
        return output

    def text(self, *arguments: str) -> str:
        """Run and return standard output as text without the last newline."""
        return self.bytes(*arguments).decode(errors="replace").rstrip("\n")

    def succeeds(self, *arguments: str) -> bool:
        """Run and say whether the exit code was 0. The output, which may be large, is dropped."""
        with self._started(arguments, stdout=subprocess.DEVNULL) as process:
            process.communicate()
        return process.returncode == 0

    def talk(self, *arguments: str, silence: float, go_on: Callable[[], None]) -> None:
        """Run a command that talks to a remote, for as long as it takes, and drop its standard output.

        The command has to report its progress (`--progress`): a remote that reports none for `silence`
        seconds is given up. `go_on` is called several times a second, and may raise to end the command.

        Raises:
            SilentRemoteError: no progress for `silence` seconds.
            GitError: exit code other than 0.
        """
        errors = b""
        with (
            self._started(arguments, stdout=subprocess.DEVNULL) as process,
            selectors.DefaultSelector() as selector,
        ):
            stderr = cast("IO[bytes]", process.stderr)  # a pipe
            selector.register(stderr, selectors.EVENT_READ)
            heard = time.monotonic()
            while True:
                go_on()
                if selector.select(_LOOK_SECONDS):
                    said = os.read(stderr.fileno(), 2**16)
                    if not said:
                        break
                    errors += said
                    heard = time.monotonic()
                elif time.monotonic() - heard >= silence and not _ARRIVED.search(errors):
                    raise SilentRemoteError(arguments, f"the remote was silent for {silence:.0f} s")
            process.wait()
        _check(arguments, process.returncode, errors)

    @contextlib.contextmanager
    def _started(self, arguments: Sequence[str], stdout: int) -> Iterator[subprocess.Popen["builtins.bytes"]]:
        """Start git; when the caller leaves before its end, end it and all that it started."""
        process = subprocess.Popen(  # noqa: S603 - a fixed program, arguments are never a shell line
            ["git", *arguments],  # noqa: S607 - the image's git, wherever it is
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=self.inherit,
            umask=0o022,  # Airflow reads the worktrees as another user
            start_new_session=True,
        )
        with process:
            try:
                yield process
            except BaseException:
                # The helper that has the connection does not notice that git is gone.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

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
            "GIT_ATTR_NOSYSTEM": "1",
            **config,
            **self.environment,
        }


def _check(arguments: Sequence[str], returncode: int, errors: bytes) -> None:
    """Raise GitError unless the exit code is 0."""
    if returncode != 0:
        lines = re.split(r"[\r\n]+", errors.decode(errors="replace"))
        message = "\n".join(line for line in lines if line.strip() and not _PROGRESS.match(line))
        raise GitError(arguments, message.strip() or f"exit code {returncode}")
