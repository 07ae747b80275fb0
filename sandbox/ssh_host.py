"""A Git host over SSH: OpenSSH's own server, and a deploy key that may read the repositories. Needs Debian's
openssh-server. Both keys are made at the first start, below the state directory, and stay.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = "/usr/sbin/sshd"
START_SECONDS = 10
SOURCE = Path(__file__).resolve().parents[1]


class SshHostError(Exception):
    """The server cannot be started here; the message says why."""


class SshHost:
    """One server and its keys. On standard error it says whom it lets in, and by which key."""

    def __init__(self, state: Path, repositories: Path, user: str) -> None:
        """Make the keys in ``state`` that are missing. ``user`` is the account that clients name.

        Raises SshHostError when there is no OpenSSH here.
        """
        if not Path(SSHD).exists():
            raise SshHostError(f"there is no {SSHD}: install openssh-server")
        # sshd reads authorized_keys as the user.
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._state = state.absolute()
        self._repositories = repositories.absolute()
        self._user = user
        self.host_key = _public(_key(self._state / "host_key"))
        """The host's public key, as "type key"."""
        self.deploy_key = _key(self._state / "deploy_key").read_text()
        """The private key of those who may read."""

    @contextmanager
    def listening(self, address: str, port: int) -> Iterator[None]:
        """Serve for a while; a fetch that runs at the end goes on.

        Raises SshHostError when it cannot: sshd has said why on standard error.
        """
        if os.geteuid() == 0:
            # Of Debian's start-up script, which is not what starts this server.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        arguments = [SSHD, "-f", str(self._configure(address, port))]
        # From OpenSSH 9.8 on, a client that fails a few times is refused for minutes; GitHub does not do so.
        patience = ["-o", "PerSourcePenalties=no"]
        if subprocess.run([*arguments, *patience, "-t"], stderr=subprocess.DEVNULL).returncode == 0:  # noqa: S603
            arguments += patience
        with subprocess.Popen([*arguments, "-D", "-e"]) as process:  # noqa: S603 - nothing from outside
            try:
                deadline = time.monotonic() + START_SECONDS
                while not _answers("127.0.0.1" if address == "0.0.0.0" else address, port):  # noqa: S104
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SshHostError(f"sshd does not listen on {address}:{port}")
                    time.sleep(0.05)
                yield
            finally:
                process.terminate()

    def _configure(self, address: str, port: int) -> Path:
        command = shlex.join([sys.executable, "-m", "sandbox.ssh_command", str(self._repositories)])
        forced = f"cd {shlex.quote(str(SOURCE))} && exec {command}".replace('"', '\\"')
        public = _public(self._state / "deploy_key")
        (self._state / "authorized_keys").write_text(f'restrict,command="{forced}" {public} deploy key\n')
        path = self._state / "sshd_config"
        path.write_text(
            f"""\
ListenAddress {address}:{port}
HostKey {self._state}/host_key
PidFile none
AllowUsers {self._user}
AuthorizedKeysFile {self._state}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin forced-commands-only
UsePAM no
# The state may lie below a directory where anyone may write, such as /tmp.
StrictModes no
AcceptEnv GIT_PROTOCOL
LogLevel VERBOSE
"""
        )
        return path


def _key(path: Path) -> Path:
    """Return the path of a private key, made if need be; the public half is beside it."""
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sandbox", "-f", str(path)]
        subprocess.run(command, check=True)  # noqa: S603 - nothing from outside
    return path


def _public(path: Path) -> str:
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
