"""The images on this host, and what they say of themselves."""

from __future__ import annotations

from airflow_release.core.host import Host


def has_image(host: Host, image: str) -> bool:
    """Say whether an image is on this host."""
    return bool(host.run(["docker", "image", "ls", "--quiet", image], doing="looking for an image").strip())


def schemas(host: Host, image: str, *options: str) -> set[str]:
    """Return the schemas that an image's Airflow knows; with the option `--heads` the one that it needs."""
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=schema-revisions", image, *options]
    return set(host.run(command, timeout=120, doing=f"asking {image} for its schemas").split())
