"""HAProxy's part in a switch: which webserver the Airflow door leads to, told through its runtime API."""

from __future__ import annotations

import csv
import time

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host

LIVE = "airflow"
STANDBY = "standby"


def use(host: Host, server: str | None) -> None:
    """Let the Airflow door lead to one webserver, or to none: then it answers with the maintenance page.

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
    """Wait, at most that long, until a server that is out of the door has answered what it was asked."""
    deadline = time.monotonic() + seconds
    while _sessions(host, server) and time.monotonic() < deadline:
        time.sleep(0.2)  # requests end when they end; HAProxy cannot call us


def reload(host: Host) -> None:
    """Have HAProxy read its configuration again without dropping a connection."""
    host.compose("exec", "--no-TTY", "haproxy", "bash", "-c", "kill -HUP 1", doing="reloading HAProxy")


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
        "exec", "--no-TTY", "haproxy", "bash", "-c", script, doing=f"telling HAProxy `{command}`"
    ).strip()
