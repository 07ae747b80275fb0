"""What the host lets in: the endpoints' ports, all of them HAProxy's."""

from __future__ import annotations

from typing import Any

import pytest
from expected import ENDPOINTS, SERVICES
from testinfra.host import Host

Containers = dict[str, dict[str, Any]]
LOOPBACK = ("127.", "[::1]", "::1")


def published(container: dict[str, Any]) -> set[int]:
    """Return the host's ports that lead into a container."""
    ports = container["NetworkSettings"]["Ports"] or {}
    return {int(binding["HostPort"]) for bindings in ports.values() for binding in bindings or []}


def listening(host: Host, protocol: str) -> set[int]:
    """Return the ports on which something on the host can be reached from elsewhere."""
    addresses = [
        socket.split("://")[1].rsplit(":", 1)
        for socket in host.socket.get_listening_sockets()
        if socket.startswith(protocol)
    ]
    return {int(port) for address, port in addresses if not address.startswith(LOOPBACK)}


def test_haproxy_publishes_the_endpoints(containers: Containers) -> None:
    """The ports that people know, and no other."""
    assert published(containers["haproxy"]) == set(ENDPOINTS.values())


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"haproxy"}))
def test_nothing_but_haproxy_publishes_a_port(containers: Containers, service: str) -> None:
    """A published database is the classic way to lose one."""
    assert published(containers[service]) == set()


def test_nothing_else_listens_on_tcp(host: Host) -> None:
    """Neither Docker's API nor anything that a package installed may be reachable."""
    assert listening(host, "tcp") == set(ENDPOINTS.values())


def test_nothing_listens_on_udp(host: Host) -> None:
    """The platform has no use for it."""
    assert listening(host, "udp") == set()
