"""A sync's side of a commit that goes live on several hosts: first all are ready, then all switch.

The coordinator runs in the webhook's process, a sync in that one or in another. So they talk over a Unix
socket, and the connection is the second phase: it is open until the link is switched, or the sync is dead.
"""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator

from webhook.gateway import Gateway, GatewayAbsentError, GatewayError
from webhook.settings import Settings

log = logging.getLogger(__name__)

_PAUSE = 0.05  # seconds between tries to reach a coordinator that is being restarted
_FENCING_SECONDS = 30  # that the coordinator may need beyond the wait for workers


@contextlib.contextmanager
def all_ready(settings: Settings, commit: str) -> Iterator[None]:
    """Enter once each worker host has prepared the commit or is fenced; inside, switch. Without workers, do
    nothing.

    Raises:
        GatewayError: a worker that has not prepared the commit could not be fenced.
    """
    if not settings.workers:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_prepared(settings, commit))
        except (OSError, ValueError) as error:
            log.warning("the coordinator does not answer (%s): every worker is fenced until it does", error)
            _fence_all(settings)
        yield


@contextlib.contextmanager
def _prepared(settings: Settings, commit: str) -> Iterator[None]:
    """Have the coordinator prepare the workers, and keep the connection open."""
    with _connected(settings) as connection:
        connection.settimeout(settings.worker_prepare_seconds + _FENCING_SECONDS)
        connection.sendall(json.dumps({"prepare": commit}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline())
        if answer.get("error"):
            raise GatewayError(answer["error"])
        if fenced := answer.get("fenced"):
            log.warning("not ready for %s, and fenced: %s", commit[:12], ", ".join(fenced))
        yield


def _connected(settings: Settings) -> socket.socket:
    deadline = time.monotonic() + settings.worker_prepare_seconds
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(settings.worker_socket))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE)  # there is nothing to wait on


def _fence_all(settings: Settings) -> None:
    if settings.worker_gateway_socket is None:
        raise GatewayError("WORKER_GATEWAY_SOCKET is not set: nobody can fence the workers")
    try:
        Gateway(settings.worker_gateway_socket).fence(settings.workers)
    except GatewayAbsentError as error:
        log.warning("%s: no worker is connected", error)
