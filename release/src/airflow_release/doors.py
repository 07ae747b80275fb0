"""HAProxy's part in a switch: which webserver the Airflow door leads to, told through its runtime API."""

from __future__ import annotations

from airflow_release.host import Host, ReleaseError

LIVE = "airflow"
STANDBY = "standby"


def use(host: Host, server: str | None) -> None:
    """Let the Airflow door lead to one webserver, or to none: then it answers with the maintenance page.

    Requests that are under way are finished by the server that has them.

    Raises:
        ReleaseError: HAProxy does not run or refused.
    """
    if server is not None:
        _tell(host, f"set server airflow/{server} state ready")
    for other in {LIVE, STANDBY} - {server}:
        _tell(host, f"set server airflow/{other} state maint")


def reload(host: Host) -> None:
    """Have HAProxy read its configuration again without dropping a connection."""
    host.compose("exec", "--no-TTY", "haproxy", "bash", "-c", "kill -HUP 1", doing="reloading HAProxy")


def _tell(host: Host, command: str) -> None:
    # HAProxy's image has bash and no socat; the API listens on the container's own loopback address.
    script = f"exec 3<>/dev/tcp/127.0.0.1/9999 && printf '%s\\n' '{command}' >&3 && cat <&3"
    answer = host.compose(
        "exec", "--no-TTY", "haproxy", "bash", "-c", script, doing=f"telling HAProxy `{command}`"
    )
    # It is silent when all is well.
    if answer.strip():
        raise ReleaseError(f"HAProxy refused `{command}`: {answer.strip()}")
