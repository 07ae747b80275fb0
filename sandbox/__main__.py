"""Serves every stand-in, each on its own port, until it is told to stop: ``python3 -m sandbox``.

Settings, all from the environment: OP_API_TOKEN and OP_VAULT_ID (required: the bearer token and the vault
that the Connect stand-in knows), SANDBOX_STATE (directory, default /var/lib/sandbox), SANDBOX_ENVIRONMENTS
(further names of environments, separated by commas), SANDBOX_SLACK_WEBHOOK_URL (optional), SANDBOX_ADDRESS
(to listen on, default all) and SANDBOX_PORT_BASE (default 9000: Connect is 9001, the feeds 9002, Slack 9003).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

from flask import Flask
from waitress import create_server, wasyncore

from sandbox import connect, feeds, slack

LOG = logging.getLogger("sandbox")
THREADS = 8


def stand_ins(settings: Mapping[str, str]) -> dict[int, Flask]:
    """Return each stand-in under its distance from the port base. Raises KeyError for a missing setting."""
    return {
        1: connect.create_app(
            settings.get("SANDBOX_STATE", "/var/lib/sandbox"),
            settings["OP_API_TOKEN"],
            settings["OP_VAULT_ID"],
            filter(None, settings.get("SANDBOX_ENVIRONMENTS", "").replace(" ", "").split(",")),
            settings.get("SANDBOX_SLACK_WEBHOOK_URL", ""),
        ),
        2: feeds.create_app(),
        3: slack.create_app(),
    }


def serve(settings: Mapping[str, str]) -> None:
    """Serve until SystemExit or KeyboardInterrupt, then stop listening and let running requests finish."""
    # The stand-ins run in a container of their own, where every address is theirs.
    address = settings.get("SANDBOX_ADDRESS", "0.0.0.0")  # noqa: S104
    base = int(settings.get("SANDBOX_PORT_BASE", "9000"))
    sockets: dict[int, object] = {}  # Shared, so that one loop in this thread serves all of them.
    servers = []
    for offset, app in stand_ins(settings).items():
        servers.append(create_server(app, map=sockets, host=address, port=base + offset, threads=THREADS))
        LOG.info("%s listens on %s:%d", app.name, address, base + offset)
    try:
        wasyncore.loop(timeout=1, use_poll=True, map=sockets)
    finally:
        for server in servers:
            server.close()
            server.task_dispatcher.shutdown()


def main() -> int:
    """Run as a service: log to standard error, stop on SIGTERM with status 0."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    try:
        serve(os.environ)
    except KeyboardInterrupt:
        return 0
    except KeyError as missing:
        LOG.error("set %s in the environment", missing.args[0])
        return 2
    except ValueError as wrong:
        LOG.error("a setting is wrong: %s", wrong)
        return 2
    return 0


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    LOG.info("stopping")
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
