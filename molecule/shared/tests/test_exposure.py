"""How exposed the platform's services on the host are, as the host's own systemd judges them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from testinfra.host import Host

UNITS = Path(__file__).resolve().parents[3] / "templates/etc/systemd/system"
SERVICES = sorted(path.name.removesuffix(".j2") for path in UNITS.glob("*.service.j2"))
MOST = 2.0
"""Of 10; the same as in tests/policy/test_units.py."""


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_what_it_needs_and_no_more(host: Host, service: str) -> None:
    """Under the systemd that it runs under. That each does its work all the same, other tests show."""
    if not host.file(f"/etc/systemd/system/{service}").exists:
        pytest.skip(f"{service} is not installed with this inventory")
    answer = host.check_output(f"systemd-analyze security --no-pager {service.replace('@.', '@weather.')}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", answer)
    assert found, answer[-500:]
    assert float(found[1]) <= MOST, answer
