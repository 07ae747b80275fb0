"""What DAGs were refused of Docker, as the filter between them counts it (docker_policy/)."""

from __future__ import annotations

import re

SERVICE = "docker-socket-proxy"
COMMAND = ("python3", "-m", "docker_policy", "metrics")
_LINE = re.compile(r'^docker_policy_refusals_total\{field="([^"\n]*)"\} ([0-9]+)$', re.MULTILINE)


def parse(text: str) -> dict[str, int]:
    """Return by field how many requests were refused, from the filter's counters in Prometheus' form."""
    return {field: int(count) for field, count in _LINE.findall(text)}
