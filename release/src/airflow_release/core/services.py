"""The services of a release, read from its Compose project: no other module here has a list of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host

ROLE = "airflow-platform.role"
"""The label that says what a service does for Airflow. Several services may have the same role."""
NEEDED = "airflow-platform.needed"
"""The label that is "false" where pages, tasks and the smoke test work without a service."""
PREFIX = "airflow-"
"""A service without the label has the role that its name says, without this prefix: the Compose files of
releases from before the label have none, and such a release has to be upgraded, and may be rolled back to."""
DISPENSABLE_BEFORE_LABELS = frozenset({"flower", "gate", "webhook"})
"""What Airflow works without in the releases whose projects have none of these labels."""

SCHEDULER, TRIGGERER, WORKER = "scheduler", "triggerer", "worker"
"""The roles that a switch stops and starts in an order of its own."""
GATEWAY = "worker-gateway"
"""The role of what lets workers of other hosts in. A switch stops it when it stops this host's workers."""

POSTGRES, REDIS, HAPROXY = "postgres", "redis", "haproxy"
WEBSERVER, STANDBY = "airflow-webserver", "airflow-webserver-standby"
INIT, INIT_NEXT = "airflow-init", "airflow-init-next"
"""Services that this package speaks to, of which there is one each. All others it reads from the project."""


@dataclass(frozen=True)
class Service:
    """What a Compose project says of a service."""

    name: str
    role: str
    image: str
    needs: frozenset[str]
    """The services that it waits for (`depends_on`): of the stores these are the ones that it uses."""
    optional: bool
    """Whether it runs only when it is asked for (`profiles`)."""
    needed: bool
    """Whether pages and tasks need it. A service without the label is needed."""


@dataclass(frozen=True)
class Services:
    """The services of a release, with those that only a switch starts."""

    known: tuple[Service, ...]

    @property
    def names(self) -> set[str]:
        """Return all of them."""
        return {service.name for service in self.known}

    @property
    def wanted(self) -> list[str]:
        """Return those that should run."""
        return [service.name for service in self.known if not service.optional]

    @property
    def dispensable(self) -> list[str]:
        """Return those that should run and that pages, tasks and the smoke test work without."""
        return [service.name for service in self.known if not service.needed and not service.optional]

    def of_role(self, *roles: str) -> list[str]:
        """Return those that should run and have one of these roles, in the order of the roles."""
        return [
            service.name
            for role in roles
            for service in self.known
            if service.role == role and not service.optional
        ]

    def of_image(self, image: str) -> list[str]:
        """Return those that should run, from this image."""
        return [service.name for service in self.known if service.image == image and not service.optional]

    def users(self, *stores: str, optional: bool) -> list[str]:
        """Return the users of these stores; with `optional` also the services that only a switch starts."""
        return [
            service.name
            for service in self.known
            if service.needs & set(stores) and (optional or not service.optional)
        ]


def read(host: Host, project: Path | None = None) -> Services:
    """Read the services of the platform, or of a release whose files are beside it.

    Raises:
        ReleaseError: Compose refuses the project, or its answer cannot be understood.
    """
    doing = f"reading the Compose project in {project or host.directory}"
    # The answer has secrets in it; what is not named here is forgotten at once.
    arguments = ("--profile=switch", "config", "--format", "json")
    return parse(host.compose(*arguments, project=project, timeout=60, doing=doing), doing)


def parse(text: str, doing: str = "reading the Compose project") -> Services:
    """Read what `docker compose config --format json` prints.

    Raises:
        ReleaseError: it cannot be understood.
    """
    try:
        definitions = json.loads(text)["services"]
        labels = {name: definition.get("labels") or {} for name, definition in definitions.items()}
        labelled = any(ROLE in own or NEEDED in own for own in labels.values())
        dispensable = {name for name, own in labels.items() if own.get(NEEDED) == "false"}
        known = [
            Service(
                name=name,
                role=labels[name].get(ROLE) or name.removeprefix(PREFIX),
                image=definition.get("image") or "",
                needs=frozenset(definition.get("depends_on") or ()),
                optional=bool(definition.get("profiles")),
                needed=name not in (dispensable if labelled else DISPENSABLE_BEFORE_LABELS),
            )
            for name, definition in sorted(definitions.items())
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{doing} gave no project: {type(error).__name__}") from None
    return Services(tuple(known))
