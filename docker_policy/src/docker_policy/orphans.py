"""Containers that outlived the task that made them: which they are, and their end.

A task sees to the end of its container, unless its worker is killed. A label says who may have made a
container: those containers that reach this filter, each in its current run. Once none of these runs goes on,
no task waits for the container. Runs are only compared and never ordered: the host's clock may be set back.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from docker_policy import log
from docker_policy.engine import Engine
from docker_policy.errors import RefusedError
from docker_policy.settings import MAKERS_LABEL, OWNER_LABEL, TASK_LABEL, Settings

SWEEP_SECONDS = 10
"""So long after a worker's death, at most, its tasks' containers are told to stop."""

_STOPPED = (204, 304, 404)
"""Docker has stopped it, or it had ended before, or it is gone altogether."""


@dataclass(frozen=True)
class Client:
    """A container that reaches the filter: a worker, or one that somebody started to run a task by hand."""

    run: str
    """Its id and when it was started; another one after each start."""
    host_name: str


class Orphans:
    """Tells who may make a container now, and stops those whose makers are gone."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Take where clients have the filter's socket, and Docker."""
        self._place = str(settings.socket.parent)
        self._engine = engine

    def labels(self, host_name: str) -> dict[str, str]:
        """Return the label for a container that is made now, by the client of that name if there is one.

        Without it every client may be the maker. Without any client there is no label, and the container is
        never an orphan.

        Raises:
            RefusedError: Docker does not say who runs.
        """
        clients = self._clients()
        makers = [each for each in clients if each.host_name == host_name] or clients
        return {MAKERS_LABEL: " ".join(sorted(each.run for each in makers))} if makers else {}

    def sweep(self) -> None:
        """Stop each container whose makers are gone, and say so in a line of the log.

        Raises:
            RefusedError: Docker gives no answer.
        """
        # First the containers: a maker that they can have is there by now, or is gone.
        made = [_short(each) for each in self._listed(label=[f"{OWNER_LABEL}=true", MAKERS_LABEL])]
        runs = {each.run for each in self._clients()} if made else set()
        for each in made:
            if runs.isdisjoint(each["Labels"][MAKERS_LABEL].split()):
                try:
                    self._stop(each)
                except RefusedError as error:
                    # One that Docker cannot stop keeps no other.
                    log.write("failed", message=f"stopping {each['Id'][:12]}, whose worker is gone: {error}")

    def watch(self, over: threading.Event) -> None:
        """Sweep at once, and again and again until it is over."""
        while True:
            try:
                # A Docker that does not answer is asked again; the filter's health says that it does not.
                with contextlib.suppress(RefusedError):
                    self.sweep()
            except Exception as error:
                log.write("failed", message=f"looking for containers without a worker: {error!r}")
            if over.wait(SWEEP_SECONDS):
                return

    def _stop(self, container: dict[str, Any]) -> None:
        status, _ = self._engine.ask("POST", f"/containers/{container['Id']}/stop")
        dag, _, task = container["Labels"].get(TASK_LABEL, "").partition("/")
        log.write(
            "orphan",
            dag=dag,
            task=task,
            container=" ".join(container["Names"]).lstrip("/"),
            image=container["Image"],
            status=status,
            message="its worker is gone: " + ("stopped" if status in _STOPPED else "tried to stop it"),
        )

    def _clients(self) -> list[Client]:
        return list(self._running_clients())

    def _running_clients(self) -> Iterator[Client]:
        # All of it first: a list that is being read keeps a connection.
        found = [_short(each) for each in self._listed(volume=[self._place])]
        for each in found:
            if OWNER_LABEL in (each.get("Labels") or {}) or _has_docker(each):
                continue
            status, document = self._engine.ask("GET", f"/containers/{each['Id']}/json")
            if status == 404:
                continue
            if status != 200:
                raise RefusedError(f"Docker answered {status} when it was asked for a worker", status=503)
            yield Client(
                f"{each['Id'][:12]}@{document['State']['StartedAt']}", document["Config"]["Hostname"]
            )

    def _listed(self, **filters: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the containers that run and match."""
        return self._engine.each(f"/containers/json?{urlencode({'filters': json.dumps(filters)})}")


def _short(container: dict[str, Any]) -> dict[str, Any]:
    """Return what is needed of a list's entry, which has the command and all labels in it."""
    labels = container.get("Labels") or {}
    kept = {name: labels[name] for name in (OWNER_LABEL, MAKERS_LABEL, TASK_LABEL) if name in labels}
    return {**{name: container.get(name) for name in ("Id", "Names", "Image", "Mounts")}, "Labels": kept}


def _has_docker(container: dict[str, Any]) -> bool:
    """Tell whether it has Docker's own socket: then it is the filter, which makes nothing by itself."""
    return any(
        str(mount.get("Source", "")).endswith("/docker.sock") for mount in container.get("Mounts") or []
    )
