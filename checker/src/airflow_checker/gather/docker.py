"""Docker through its socket: the platform's containers, and commands in them.

No version of its API is asked for: Docker answers in its newest, and refuses old ones.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from airflow_checker import roles
from airflow_checker.facts import Container

SOCKET = "/var/run/docker.sock"
PROJECT = "airflow"
OF_SERVICES = (f"com.docker.compose.project={PROJECT}", "com.docker.compose.oneoff=False")
"""The labels of a container that is one of a service, and not one of `docker compose run`."""
KEPT = ("AIRFLOW__OPERATORS__DEFAULT_QUEUE", "AIRFLOW__CELERY__WORKER_CONCURRENCY")
"""The variables of a container that are looked at; all others, with the secrets, are forgotten at once."""


class DockerError(Exception):
    """Docker does not answer, or says no."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker:
    """One connection to Docker, which is kept for all questions."""

    def __init__(self, path: str = SOCKET, timeout: float = 10) -> None:
        """Ask nothing yet; `timeout` is in seconds, for each answer."""
        self._connection = _Connection(path, timeout)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def get(self, path: str) -> Any:
        """Return the answer to a question.

        Raises:
            DockerError: there is none.
        """
        return json.loads(self._call("GET", path))

    def containers(self) -> dict[str, Container]:
        """Return the containers of the platform's services, by service; not those of `docker compose run`.

        Raises:
            DockerError: Docker does not answer.
        """
        wanted = {"label": OF_SERVICES}
        found = {}
        for listed in self.get(f"/containers/json?all=true&filters={quote(json.dumps(wanted))}"):
            try:
                container = parse(self.get(f"/containers/{listed['Id']}/json"))
            except _GoneError:
                continue  # between the two questions
            found[container.service] = container
        return found

    def out_of_memory(self, since: float, until: float) -> dict[str, float]:
        """Return by service when the kernel last ended a process of it for want of memory.

        Times are in seconds since the epoch. Docker keeps its last 256 events, health checks among them, and
        forgets them when it ends.

        Raises:
            DockerError: Docker does not answer.
        """
        wanted = {"event": ["oom"], "label": OF_SERVICES}
        times = f"since={since:.6f}&until={until:.6f}"
        answer = self._call("GET", f"/events?{times}&filters={quote(json.dumps(wanted))}")
        return dict(sorted(map(out_of_memory, answer.splitlines()), key=lambda pair: pair[1]))

    def execute(self, identifier: str, command: Sequence[str]) -> str:
        """Run a command in a container; return what it printed.

        Raises:
            DockerError: it cannot be run, does not end in time or fails; with its last line of complaint.
        """
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
        created = json.loads(self._call("POST", f"/containers/{identifier}/exec", body))["Id"]
        answer = self._call("POST", f"/exec/{created}/start", {"Detach": False, "Tty": False})
        output = {1: b"", 2: b""}
        for stream, part in frames(answer):
            output[stream] = output.get(stream, b"") + part
        code = self.get(f"/exec/{created}/json")["ExitCode"]
        if code != 0:
            complaint = output[2].decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
            raise DockerError(complaint[-1][:200])
        return output[1].decode(errors="replace")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        try:
            text = None if body is None else json.dumps(body)
            headers = {} if text is None else {"Content-Type": "application/json"}
            self._connection.request(method, path, text, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            # The next question begins with a new connection.
            self._connection.close()
            raise DockerError(str(error) or type(error).__name__) from error
        if response.status == 404:
            raise _GoneError(path)
        if response.status >= 400:
            raise DockerError(f"HTTP {response.status}: {answer.decode(errors='replace').strip()[:200]}")
        return answer


class _GoneError(DockerError):
    """There is no such container any more."""


def parse(document: dict[str, Any]) -> Container:
    """Read what Docker says of one container (ContainerInspect)."""
    state, config = document["State"], document["Config"]
    health = state.get("Health") or {}
    log = [entry for entry in health.get("Log") or [] if entry.get("ExitCode")]
    pairs = (entry.partition("=") for entry in config.get("Env") or [])
    networks = ((document.get("NetworkSettings") or {}).get("Networks") or {}).values()
    return Container(
        service=config["Labels"]["com.docker.compose.service"],
        id=document["Id"],
        image=config["Image"],
        state=state["Status"],
        health=health.get("Status", ""),
        failing=int(health.get("FailingStreak") or 0),
        said=" ".join(log[-1].get("Output", "").split())[:200] if log and health.get("FailingStreak") else "",
        started=seconds(state.get("StartedAt", "")),
        finished=seconds(state.get("FinishedAt", "")),
        restarts=int(document.get("RestartCount") or 0),
        memory=int((document.get("HostConfig") or {}).get("Memory") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        addresses=tuple(network["IPAddress"] for network in networks if network.get("IPAddress")),
        depends_on=depends_on(config["Labels"].get("com.docker.compose.depends_on", "")),
        command=tuple(config.get("Cmd") or ()),
        environment={name: value for name, _, value in pairs if name in KEPT},
        labels={name: value for name, value in config["Labels"].items() if name == roles.LABEL},
    )


def out_of_memory(event: bytes) -> tuple[str, float]:
    """Read the service and the time of an event (EventMessage)."""
    document = json.loads(event)
    return document["Actor"]["Attributes"]["com.docker.compose.service"], document["timeNano"] / 1e9


def depends_on(label: str) -> tuple[str, ...]:
    """Return the services of Compose's own label, `name:condition:restart`, with commas between."""
    return tuple(sorted(entry.split(":")[0] for entry in label.split(",") if entry))


def seconds(text: str) -> float:
    """Return a time of Docker's, RFC 3339 with nanoseconds, in seconds since the epoch; 0 for never."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not found or text.startswith("0001-"):
        return 0.0
    from datetime import datetime  # not needed by a run that finds no container

    zone = "+00:00" if found[2] == "Z" else found[2]
    return datetime.fromisoformat(found[1] + zone).timestamp()


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a command's output with its stream, 1 or 2 for errors (ContainerAttach, "Stream format")."""
    position = 0
    while position + 8 <= len(data):
        stream, length = struct.unpack_from(">BxxxI", data, position)
        yield stream, data[position + 8 : position + 8 + length]
        position += 8 + length
