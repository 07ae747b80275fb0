"""The client of the gate: asks the service that runs `gate_check` on the Airflow image about a tree."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webhook.state import Reason

_LOOK_SECONDS = 0.1  # how often the caller is asked whether to go on


class GateUnavailableError(Exception):
    """The gate gave no verdict. A tree without a verdict does not go live; the next sync asks again."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    `reads` maps each DAG file to the paths in the tree that its parsing opened or looked at, and `lookups` to
    the modules that it looked for (`dags/helper`), whether they are there or not.
    """

    reasons: list[Reason]
    reads: dict[str, list[str]]
    lookups: dict[str, list[str]]
    airflow_version: str
    seconds: float

    def files_that_read(self, changed: set[str]) -> set[str]:
        """Return the DAG files that read a changed file, or would find another module because of it."""
        modules = {module for path in changed for module in _modules(path)}
        return {
            name
            for name, reads in self.reads.items()
            if changed.intersection(reads) or modules.intersection(self.lookups[name])
        }


def _modules(path: str) -> Iterator[str]:
    """Yield the modules that a file can be: `dags/a/__init__.py` is `dags/a`, too."""
    folder, _, name = path.rpartition("/")
    module = name.partition(".")[0]
    if module:
        yield f"{folder or '.'}/{module}"
    if module == "__init__":
        yield folder


def check(
    address: Path | None,
    tree: str,
    dags_folder: str,
    requirements: str,
    timeout: float,
    go_on: Callable[[], None] = lambda: None,
) -> Verdict:
    """Have a tree checked; `tree` is its path below the folder of trees, which the gate mounts, too.

    `go_on` is called several times a second, and may raise to end the wait.

    Raises:
        GateUnavailableError: no answer within `timeout` seconds, or no verdict in it.
    """
    if address is None:
        raise GateUnavailableError("no gate is configured: set GATE_SOCKET")
    # Where the time is not enough, the gate says so itself, and remembers what it has checked.
    request = {"tree": tree, "dags": dags_folder, "requirements": requirements, "seconds": timeout * 0.9}
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout)
            client.connect(str(address))
            client.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(_line(client, timeout, go_on))
    except (OSError, ValueError) as error:
        raise GateUnavailableError(f"the gate at {address} gave no answer: {error}") from None
    if "error" in answer:
        raise GateUnavailableError(f"the gate could not check the tree: {answer['error']}")
    return Verdict(
        reasons=[Reason(**problem) for problem in answer["problems"]],
        reads={name: parsed["reads"] for name, parsed in answer["files"].items()},
        lookups={name: parsed.get("lookups", []) for name, parsed in answer["files"].items()},
        airflow_version=answer["airflow_version"],
        seconds=answer["seconds"],
    )


def _line(client: socket.socket, timeout: float, go_on: Callable[[], None]) -> bytes:
    """Read a line, or what came before the other end closed. Raises TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    client.settimeout(_LOOK_SECONDS)
    line = bytearray()
    while not line.endswith(b"\n"):
        go_on()
        if time.monotonic() >= deadline:
            raise TimeoutError("timed out")
        with contextlib.suppress(TimeoutError):
            part = client.recv(2**16)
            if not part:
                break
            line += part
    return bytes(line)
