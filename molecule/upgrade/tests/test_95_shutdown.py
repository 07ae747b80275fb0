"""A host that goes down must not wait minutes for the platform, in whatever order the containers end."""

from __future__ import annotations

from long_tests import when_asked
from platform_host import Platform


@when_asked
def test_worker_stops_also_when_redis_is_silent(platform: Platform) -> None:
    """Redis may be the first to go, and a worker has something to tell it when it stops. About 60 s."""
    worker = platform.containers()["airflow-worker"]
    platform.check("docker compose pause redis")
    try:
        platform.check("docker compose stop airflow-worker")
    finally:
        platform.check("docker compose unpause redis")
        # Not by Compose, which would not start it before Redis is found healthy again.
        platform.check("docker start %s", worker)
    platform.wait_until_healthy()
