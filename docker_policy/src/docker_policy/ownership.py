"""Which containers are DAGs': those with the owner's label, which only this filter puts on a container."""

import re
from typing import Any

from docker_policy.engine import Engine
from docker_policy.errors import RefusedError
from docker_policy.settings import OWNER_LABEL

_ID = re.compile(r"[0-9a-f]{64}")


class ForeignError(RefusedError):
    """The container is another's; the answer is that of one that is not there."""


def find(engine: Engine, reference: str) -> str:
    """Return the full id of a DAG's container by its id, the beginning of one, or its name.

    Docker is then asked by the id, so that the reference cannot mean another container by then.

    Raises:
        RefusedError: there is none, or it is not a DAG's.
    """
    status, document = engine.ask("GET", f"/containers/{reference}/json")
    if status == 404:
        raise RefusedError(f"No such container: {reference}", status=404)
    if status != 200 or not isinstance(document, dict):
        raise RefusedError(f"Docker answered {status} when it was asked for {reference}", status=502)
    identity = str(document.get("Id"))
    if not _is_own(document):
        raise ForeignError(f"No such container: {reference}", status=404)
    if not _ID.fullmatch(identity):
        raise RefusedError("Docker's answer has no id", status=502)
    return identity


def _is_own(document: dict[str, Any]) -> bool:
    config = document.get("Config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    return isinstance(labels, dict) and labels.get(OWNER_LABEL) == "true"
