"""The platform's networks that its Compose file has no more. Compose leaves them, with their addresses."""

from __future__ import annotations

import json

from airflow_release.core.host import Host


def clean(host: Host, *, dry_run: bool = False) -> list[str]:
    """Remove networks of the project that its Compose file does not name and that no container is on.

    A rollback to a release that has them makes them again. The caller holds the platform's lock, and no
    operation is active. Returns in words what went.

    Raises:
        ReleaseError: Docker refuses, or the project cannot be read.
    """
    # The answer has secrets in it; what is not named here is forgotten at once.
    project = json.loads(
        host.compose("--profile=*", "config", "--format=json", timeout=60, doing="reading the project")
    )
    wanted = {network["name"] for network in project.get("networks", {}).values()}
    there = host.run(
        [
            "docker",
            "network",
            "ls",
            f"--filter=label=com.docker.compose.project={project['name']}",
            "--format={{.Name}}",
        ],
        timeout=60,
        doing="listing the networks",
    ).split()
    goes = [name for name in sorted(set(there) - wanted) if not _containers(host, name)]
    for name in goes if not dry_run else []:
        host.run(["docker", "network", "rm", name], timeout=60, doing=f"removing the network {name}")
    return [f"the network {name}" for name in goes]


def _containers(host: Host, network: str) -> str:
    """Return the containers on a network, stopped ones, too: they could not be started without it."""
    command = ["docker", "container", "ls", "--all", "--quiet", f"--filter=network={network}"]
    return host.run(command, timeout=60, doing=f"looking at the network {network}").strip()
