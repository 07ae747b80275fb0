"""HAProxy's part in a switch: which webserver Airflow's port leads to, told through its runtime API."""

from __future__ import annotations

import csv
import time

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import HAPROXY

LIVE = "airflow"
STANDBY = "standby"

RELOAD_SECONDS = 30


def use(host: Host, server: str | None) -> None:
    """Let Airflow's port lead to one webserver, or to none: then it answers with the maintenance page.

    Requests that are under way are finished by the server that has them.

    Raises:
        ReleaseError: HAProxy does not run or refused.
    """
    ready = [f"set server airflow/{server} state ready"] if server else []
    _tell(
        host,
        *ready,
        *(f"set server airflow/{other} state maint" for other in sorted({LIVE, STANDBY} - {server})),
    )


def wait_until_idle(host: Host, server: str, seconds: float) -> None:
    """Wait, at most that long, until a server that gets no more requests has answered those it has."""
    deadline = time.monotonic() + seconds
    while _sessions(host, server) and time.monotonic() < deadline:
        time.sleep(0.2)  # requests end when they end; HAProxy cannot call us


def reload(host: Host) -> None:
    """Have HAProxy read its configuration again, drop no connection, and wait until that is in force.

    What its runtime API is told before would be told to the process that goes.

    Raises:
        ReleaseError: HAProxy does not run, or does not take the configuration.
    """
    before = _process(host)
    host.compose("exec", "--no-TTY", HAPROXY, "bash", "-c", "kill -HUP 1", doing="reloading HAProxy")
    deadline = time.monotonic() + RELOAD_SECONDS
    while _process(host) in (before, ""):
        if time.monotonic() > deadline:
            raise ReleaseError(f"HAProxy did not take its configuration within {RELOAD_SECONDS} s")
        time.sleep(0.2)  # a new process that starts; HAProxy cannot call us


def _process(host: Host) -> str:
    """Return the number of the process that answers, "" for a moment without one (guide, section 9.3)."""
    try:
        lines = _ask(host, "show info").splitlines()
    except ReleaseError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Pid:")), "")


def _sessions(host: Host, server: str) -> int:
    """Return a server's sessions, from HAProxy's statistics (CSV, management guide, section 9.1)."""
    text = _ask(host, "show stat").removeprefix("# ")
    rows = csv.DictReader(text.splitlines())
    return sum(int(row["scur"]) for row in rows if (row["pxname"], row["svname"]) == ("airflow", server))


def _tell(host: Host, *commands: str) -> None:
    answer = _ask(host, "; ".join(commands))
    # It is silent when all is well.
    if answer:
        raise ReleaseError(f"HAProxy refused `{'; '.join(commands)}`: {answer}")


def _ask(host: Host, command: str) -> str:
    # HAProxy's image has bash and no socat; the API listens on the container's own loopback address.
    script = f"exec 3<>/dev/tcp/127.0.0.1/9999 && printf '%s\\n' '{command}' >&3 && cat <&3"
    return host.compose(
        "exec", "--no-TTY", HAPROXY, "bash", "-c", script, doing=f"telling HAProxy `{command}`"
    ).strip()
