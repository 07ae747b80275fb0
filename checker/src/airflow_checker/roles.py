"""What a service does for Airflow, as the Compose template says: no other module has a list of them."""

from __future__ import annotations

from collections.abc import Mapping

LABEL = "airflow-platform.role"
"""The label of a service and of its container. Several services may have the same role."""
PREFIX = "airflow-"

SCHEDULER, TRIGGERER, WORKER = "scheduler", "triggerer", "worker"
POSTGRES, REDIS, WEBHOOK = "postgres", "redis", "webhook"
"""Services that the checker asks something, of which there is one each; their names are their roles."""
HAPROXY = "haproxy"
GATEWAY, TUNNEL = "worker-gateway", "tunnel"
"""The two ends of the way between the main host, where those are, and a worker host."""


def role(service: str, labels: Mapping[str, str]) -> str:
    """Return a service's role. Without the label, as in earlier releases, it is the name without `airflow-`.

    >>> role("airflow-worker-large", {LABEL: "worker"}), role("airflow-worker", {}), role("redis", {})
    ('worker', 'worker', 'redis')
    """
    return labels.get(LABEL) or (service[len(PREFIX) :] if service.startswith(PREFIX) else service)
