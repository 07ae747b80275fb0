"""The worker gateway's admin socket: which workers may take tasks.

A worker takes tasks from the main host's Redis, through the gateway's backend of its name. Fenced, it gets no
connection there any more, and those that it had are cut. HAProxy forgets that when it is restarted.
See HAProxy's management guide, chapter 9.3, for the commands.
"""

import re
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

SECONDS = 5
"""For which HAProxy may be silent."""
_BACKEND = "redis_"
_SERVER = "main"
_FORCED_MAINTENANCE = (
    0x01  # a bit of `srv_admin_state`, set by `disable server` and by `disabled` in the file
)


class GatewayError(Exception):
    """HAProxy did not do what it was asked, or nobody knows whether it did."""


class GatewayAbsentError(GatewayError):
    """Nobody listens on the socket. Then nobody carries a worker's connections either."""


class Gateway:
    """Speaks to HAProxy, one command on a connection."""

    def __init__(self, path: Path) -> None:
        """Connect to nothing yet."""
        self._path = path

    def fenced(self) -> dict[str, bool]:
        """Return for each worker that the gateway knows whether it is fenced.

        Raises:
            GatewayError
        """
        return states_in(self._ask("show servers state"))

    def fence(self, names: Collection[str]) -> None:
        """Let workers take no more tasks; one that the gateway does not know cannot anyway.

        Raises:
            GatewayError: some of them may still take tasks.
        """
        for name in self._known(names):
            # In this order, so that no connection comes between.
            self._do(f"disable server {_BACKEND}{name}/{_SERVER}")
            self._do(f"shutdown sessions server {_BACKEND}{name}/{_SERVER}")

    def admit(self, names: Collection[str]) -> None:
        """Let workers take tasks.

        Raises:
            GatewayError
        """
        for name in self._known(names):
            self._do(f"enable server {_BACKEND}{name}/{_SERVER}")

    def _known(self, names: Collection[str]) -> Iterable[str]:
        return sorted(set(names) & set(self.fenced())) if names else ()

    def _do(self, command: str) -> None:
        """Give a command that answers nothing when it was done."""
        if answer := self._ask(command).strip():
            raise GatewayError(f"the worker gateway refuses `{command}`: {answer}")

    def _ask(self, command: str) -> str:
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(SECONDS)
                client.connect(str(self._path))
                client.sendall(command.encode() + b"\n")
                while part := client.recv(2**16):
                    answer += part
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise GatewayAbsentError(f"the worker gateway does not run ({self._path}: {error})") from None
        except OSError as error:
            raise GatewayError(f"the worker gateway does not answer on {self._path}: {error}") from None
        return answer.decode(errors="replace")


def states_in(answer: str) -> dict[str, bool]:
    """Read what `show servers state` answers: for each worker whether its Redis is forced into maintenance.

    Raises:
        GatewayError: it has another form.
    """
    lines = [line for line in answer.splitlines() if line.strip()]
    header = next((line for line in lines if line.startswith("# ")), "")
    columns = header.removeprefix("# ").split()
    wanted = ("be_name", "srv_name", "srv_admin_state")
    if not set(wanted) <= set(columns):
        raise GatewayError(f"the worker gateway does not list its servers: {answer[:200]!r}")
    found = {}
    for line in lines[lines.index(header) + 1 :]:
        values = dict(zip(columns, line.split(), strict=False))
        backend, server, state = (values.get(name, "") for name in wanted)
        if backend.startswith(_BACKEND) and server == _SERVER:
            if not re.fullmatch(r"[0-9]+", state):
                raise GatewayError(f"the worker gateway tells no state of {backend}/{server}: {line!r}")
            found[backend.removeprefix(_BACKEND)] = bool(int(state) & _FORCED_MAINTENANCE)
    return found
