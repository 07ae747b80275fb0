"""Talks to systemd: ready, watchdog, status (sd_notify(3)).

Ten lines of its own, since the protocol is one datagram: the libraries for it either need a C compiler on the
host or have not been released for years.
"""

from __future__ import annotations

import os
import socket


def notify(**values: str) -> None:
    """Send `KEY=value` lines, such as READY="1"; do nothing when not started by systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        # A leading @ stands for the null byte of an abstract socket.
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        client.sendall("\n".join(f"{key}={value}" for key, value in values.items()).encode())


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to hear from us, or None."""
    microseconds = os.environ.get("WATCHDOG_USEC")
    return int(microseconds) / 1e6 if microseconds else None
