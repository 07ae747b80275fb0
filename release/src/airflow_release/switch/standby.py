"""The standby webserver: serves the next release's database while the webserver that stays is replaced."""

from __future__ import annotations

from airflow_release.core.host import Host
from airflow_release.core.services import HAPROXY, STANDBY
from airflow_release.switch import haproxy, stack


def start(host: Host, seconds: int) -> None:
    """Start the next release's, and leave what it depends on as it is."""
    stack.start(host, STANDBY, seconds=seconds, project=host.next, dependencies=False)


def remove(host: Host) -> None:
    """Remove it, after it has answered what it was asked; there may be none."""
    running = host.running()
    if STANDBY in running:
        if HAPROXY in running:
            haproxy.wait_until_idle(host, haproxy.STANDBY, seconds=30)
        stack.stop(host, STANDBY, seconds=0)
    command = ("--profile=switch", "rm", "--stop", "--force", STANDBY)
    host.compose(*command, doing="removing the standby webserver")
