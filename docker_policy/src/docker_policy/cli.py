"""The command `docker-policy`: `serve`; `health` and `metrics` of one that serves; `check` the settings."""

import argparse
import contextlib
import http.client
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from docker_policy import log
from docker_policy.server import Filter, ReplacedSocketError, Status
from docker_policy.settings import File, Settings, SettingsError

ANSWER_SECONDS = 5
PAGES = {"health": "/healthz", "metrics": "/metrics"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status.

    It is 0; 1 when the filter is not healthy, or has to start anew; 2 for unusable settings.
    """
    parser = argparse.ArgumentParser(prog="docker-policy", description=__doc__)
    parser.add_argument("command", choices=("serve", "check", *PAGES))
    parser.add_argument("--settings", type=Path, default=Path("/etc/docker-policy/policy.json"))
    options = parser.parse_args(arguments)
    file = File(options.settings)
    try:
        settings = file.read()
    except SettingsError as error:
        print(f"docker-policy: {error}", file=sys.stderr)
        return 2
    if options.command == "serve":
        return serve(settings, file)
    return show(settings, PAGES[options.command]) if options.command in PAGES else 0


def serve(settings: Settings, file: File) -> int:
    """Serve until SIGTERM or SIGINT, and return 0; or until Docker's socket was replaced, and return 1.

    Streams that are open then end with the process. Docker starts the container again after a 1, too.
    """
    over = threading.Event()
    with Filter(settings, file) as served, Status(settings.status_socket, served) as status:

        def stop(number: int, frame: FrameType | None) -> None:
            threading.Thread(target=served.shutdown).start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        threading.Thread(target=status.serve_forever, daemon=True).start()
        threading.Thread(target=served.orphans.watch, args=[over], daemon=True).start()
        log.write("started", images=len(settings.images), volumes=len(settings.volumes))
        try:
            served.serve_forever(poll_interval=0.5)
        except ReplacedSocketError:
            log.write("stopped", message="Docker has another socket, which is seen after a start")
            return 1
        finally:
            over.set()
            status.shutdown()
    log.write("stopped")
    return 0


def show(settings: Settings, path: str) -> int:
    """Print a page of a filter that runs; return 0 where its status is 200."""
    try:
        status, text = ask(settings, path)
    except (OSError, http.client.HTTPException) as error:
        print(f"the filter does not answer: {error}")
        return 1
    print(text, end="")
    return 0 if status == http.client.OK else 1


def ask(settings: Settings, path: str) -> tuple[int, str]:
    """Return status and text of `/healthz` or `/metrics` of a filter that runs.

    Raises:
        OSError, http.client.HTTPException: it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(settings.status_socket))
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with contextlib.closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            return response.status, response.read().decode()
