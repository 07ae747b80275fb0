"""Docker's answer on its way to the client: as it comes, however long it takes, until either side is gone."""

import select
import socket

from docker_policy.errors import RefusedError
from docker_policy.policy import Decision
from docker_policy.wire import (
    CHUNK,
    ClosedError,
    ResponseHead,
    read_response_head,
    write_request,
    write_response_head,
)

_PASSED = {
    "api-version",
    "content-length",
    "content-type",
    "date",
    "docker-experimental",
    "ostype",
    "server",
    "transfer-encoding",
    "x-docker-container-path-stat",
}
_TITLES = {"api-version": "Api-Version", "ostype": "Ostype"}
SWITCHING = 101
_BODILESS = (204, 304)


def exchange(client: socket.socket, engine: socket.socket, decision: Decision) -> int:
    """Send what was decided, pass Docker's answer on, and return its status; 0 if the client went before.

    Containers of DAGs have no standard input. So a stream goes one way, and no byte that a client sends after
    its request reaches Docker.

    Raises:
        RefusedError: the answer is not one to pass on; nothing of it was.
        OSError: one side is gone.
    """
    connection = ("Connection", "Upgrade" if decision.upgrade else "close")
    request = write_request(decision.method, decision.target, [connection, *decision.headers], decision.body)
    try:
        engine.sendall(request)
        if not _wait(client, engine):
            return 0
        head, rest = read_response_head(engine)
    except (OSError, ClosedError):
        raise RefusedError("Docker ended the connection without an answer", status=503) from None
    if head.status < 200 and not (head.status == SWITCHING and decision.upgrade):
        raise RefusedError(f"Docker answered {head.status}, which was not asked for", status=502)
    # At once and by itself: the Docker SDK reads what follows a 101 past its own buffer.
    client.sendall(write_response_head(head.status, head.reason, _headers(head)))
    length = _length(head, decision.method)
    if rest:
        client.sendall(rest[:length])
    left = None if length is None else length - len(rest)
    while (left is None or left > 0) and _wait(client, engine):
        data = engine.recv(CHUNK if left is None else min(left, CHUNK))
        if not data:
            break
        client.sendall(data)
        left = None if left is None else left - len(data)
    return head.status


def _headers(head: ResponseHead) -> list[tuple[str, str]]:
    passed = [
        (_TITLES.get(name, name.title()), value) for name, value in head.headers.items() if name in _PASSED
    ]
    if head.status == SWITCHING:
        return [*passed, ("Connection", "Upgrade"), ("Upgrade", "tcp")]
    return [*passed, ("Connection", "close")]


def _length(head: ResponseHead, method: str) -> int | None:
    """Return how long the answer's body is; None for one that ends with the connection."""
    if method == "HEAD" or head.status in _BODILESS:
        return 0
    length = head.headers.get("content-length", "")
    return int(length) if length.isdecimal() and head.status != SWITCHING else None


def _wait(client: socket.socket, engine: socket.socket) -> bool:
    """Wait until Docker has sent something; false when the client is gone, as the task that it served."""
    poll = select.poll()
    poll.register(engine, select.POLLIN)
    poll.register(client, 0)
    return all(descriptor != client.fileno() for descriptor, _ in poll.poll())
