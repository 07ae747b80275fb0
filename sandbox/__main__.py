"""Serves every stand-in, each on its own port, until it is told to stop: ``python3 -m sandbox``.

Settings, all from the environment: OP_API_TOKEN and OP_VAULT_ID (required: the bearer token and the vault
that the Connect stand-in knows), OP_TASK_TOKEN and OP_TASK_VAULT_ID (both or none: a token that may only
read, and the vault with what tasks fetch), SANDBOX_STATE (directory, default /var/lib/sandbox), SANDBOX_SEED
(directory with the first content of the DAG repository, default /opt/seed), SANDBOX_ENVIRONMENTS (further
names of environments, separated by commas), SANDBOX_ADDRESS (to listen on, default all), SANDBOX_PORT_BASE
(default 9000; a stand-in's port is that and its number in ``stand_ins``), SANDBOX_SSH_PORT (default the base
and 8) and SANDBOX_SSH_USER (the account that Git clients name, default the one that runs this).

With _FILE behind its name, a setting is the path of a file that has the value.

SIGUSR1 resets all connections to the channel server, as something on the path to it might.
"""

from __future__ import annotations

import getpass
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flask import Flask
from waitress import create_server, wasyncore

from sandbox import connect, dag_repository, feeds, git_host, github, heartbeat, slack, smee, upstream
from sandbox.seed import GITHUB, HEARTBEAT_ITEM, StandIns
from sandbox.ssh_host import SshHost, SshHostError

LOG = logging.getLogger("sandbox")
# Each relay that listens to a channel holds one.
THREADS = 16
CHANNEL_SERVER = 4
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - in a container of their own every address is theirs


def with_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings, with the content of the file that X_FILE names as X.

    Raises ValueError if there is no such file.
    """
    settings = dict(environment)
    for name, path in environment.items():
        if name.startswith(("OP_", "SANDBOX_")) and name.endswith("_FILE"):
            try:
                settings[name.removesuffix("_FILE")] = Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ValueError(f"{name}: {error.strerror}: {path}") from error
    return settings


def ssh_host(settings: Mapping[str, str]) -> SshHost:
    """Return the Git host over SSH, which has the same repositories as the one over HTTP."""
    state = _state(settings)
    return SshHost(state / "ssh", state / "git", settings.get("SANDBOX_SSH_USER") or getpass.getuser())


def stand_ins(settings: Mapping[str, str], own: str, base: int, ssh: SshHost) -> dict[int, Flask]:
    """Return each stand-in that speaks HTTP under its distance from the port base.

    A new one gets its line here, with the next number from 10 on (8 is SSH's). Its address goes into
    inventories/local/group_vars/airflow/main.yml, its port into docs/change-the-platform.md ("Use the
    sandbox"). Raise `LAST` in tests/sandbox/test_serving.py to its number. Then load it with
    ``docker restart airflow-local-services``, if `bin/up` has made that container, and run `bin/up`.
    ``own`` is the address at which they are reached. Raises KeyError for a missing setting.
    """
    state = _state(settings)
    token = settings["OP_API_TOKEN"]
    tasks = None
    if settings.get("OP_TASK_TOKEN") or settings.get("OP_TASK_VAULT_ID"):
        tasks = connect.Reader(settings["OP_TASK_TOKEN"], settings["OP_TASK_VAULT_ID"])
    leads_to = StandIns(
        slack=f"http://{own}:{base + 3}",
        smee=f"http://{own}:{base + 4}",
        heartbeat=f"http://{own}:{base + 9}",
        secret=token,
        deploy_key=ssh.deploy_key,
    )
    apps = {
        1: connect.create_app(
            state,
            token,
            settings["OP_VAULT_ID"],
            filter(None, settings.get("SANDBOX_ENVIRONMENTS", "").replace(" ", "").split(",")),
            leads_to,
            tasks,
        ),
        2: feeds.create_app(),
        3: slack.create_app(),
        CHANNEL_SERVER: smee.create_app(),
        5: git_host.create_app(str(state / "git"), [dag_repository.NAME], dag_repository.BRANCH),
        6: github.create_app(leads_to.made_up(GITHUB), [ssh.host_key]),
        7: upstream.create_app(),
        9: heartbeat.create_app(leads_to.made_up(HEARTBEAT_ITEM)),
    }
    repository = state / "git" / f"{dag_repository.NAME}.git"
    dag_repository.seed(repository, Path(settings.get("SANDBOX_SEED", "/opt/seed")))
    return apps


def _state(settings: Mapping[str, str]) -> Path:
    return Path(settings.get("SANDBOX_STATE", "/var/lib/sandbox"))


def own_address(listening: str) -> str:
    """Return the address at which the platform reaches what listens there."""
    return socket.gethostbyname(socket.gethostname()) if listening == ALL_ADDRESSES else listening


def serve(settings: Mapping[str, str]) -> None:
    """Serve until SystemExit or KeyboardInterrupt, then stop listening and let running requests finish."""
    address = settings.get("SANDBOX_ADDRESS", ALL_ADDRESSES)
    base = int(settings.get("SANDBOX_PORT_BASE", "9000"))
    sockets: dict[int, object] = {}  # Shared, so that one loop in this thread serves all of them.
    servers = {}
    ssh = ssh_host(settings)
    apps = stand_ins(settings, own_address(address), base, ssh)
    for offset, app in apps.items():
        # With the look-ahead waitress notices a listener that went away.
        servers[offset] = create_server(
            app,
            map=sockets,
            host=address,
            port=base + offset,
            threads=THREADS,
            channel_request_lookahead=1,
        )
        LOG.info("%s listens on %s:%d", app.name, address, base + offset)
    channel_server = servers[CHANNEL_SERVER]
    reset_is_due = False

    def ask_for_reset(number: int, frame: FrameType | None) -> None:
        nonlocal reset_is_due
        reset_is_due = True
        channel_server.pull_trigger()  # wakes the loop

    signal.signal(signal.SIGUSR1, ask_for_reset)
    try:
        with ssh.listening(address, int(settings.get("SANDBOX_SSH_PORT") or base + 8)):
            while True:
                wasyncore.loop(timeout=1, use_poll=True, map=sockets, count=1)
                # Not within a turn of the loop, which would take a new connection for one closed in it.
                if reset_is_due:
                    reset_is_due = False
                    reset_connections(channel_server)
    finally:
        apps[CHANNEL_SERVER].extensions["channels"].close()
        for server in servers.values():
            server.close()
            server.task_dispatcher.shutdown()


def reset_connections(server: Any) -> None:
    """End each connection to a server of waitress with a TCP reset."""
    for channel in list(server.active_channels.values()):
        # Closed with data that may linger for 0 seconds, TCP sends a reset.
        channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        channel.handle_close()


def main() -> int:
    """Run as a service: log to standard error, stop on SIGTERM with status 0."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    try:
        serve(with_files(os.environ))
    except KeyboardInterrupt:
        return 0
    except KeyError as missing:
        LOG.error("set %s in the environment", missing.args[0])
        return 2
    except SshHostError as error:
        LOG.error("the Git host over SSH: %s", error)
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
