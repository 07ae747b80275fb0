"""Docker's API on its own socket."""

import codecs
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docker_policy.errors import RefusedError

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
LARGEST_ANSWER = 4 * 2**20
LARGEST_ENTRY = 16 * 2**20
"""Of a list. A create request of 1 MiB has at most six times that there: Docker may escape each character."""
READ = 2**20


class Engine:
    """Asks Docker questions of the filter's own, and connects a client's requests."""

    def __init__(self, path: Path) -> None:
        """Take the path of Docker's socket."""
        self._path = str(path)

    def connect(self) -> socket.socket:
        """Return a new connection.

        Raises:
            RefusedError: Docker does not answer.
        """
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise RefusedError(f"Docker does not answer: {error}", status=503) from None
        connection.settimeout(None)
        return connection

    def ask(self, method: str, target: str) -> tuple[int, Any]:
        """Return status and document of Docker's answer to a request without a body.

        Raises:
            RefusedError: Docker does not answer.
        """
        connection = _Connection(self)
        try:
            connection.request(method, target, headers={"Host": "docker", "Connection": "close"})
            response = connection.getresponse()
            body = response.read(LARGEST_ANSWER)
            return response.status, json.loads(body) if body else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RefusedError(f"Docker gives no answer: {type(error).__name__}", status=503) from None
        finally:
            connection.close()

    def each(self, target: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a list, which may be of any length: DAGs decide how many and how large.

        Raises:
            RefusedError: Docker does not answer, or with no list.
        """
        connection = _Connection(self)
        try:
            connection.request("GET", target, headers={"Host": "docker", "Connection": "close"})
            response = connection.getresponse()
            if response.status != 200:
                raise RefusedError(
                    f"Docker answered {response.status} when it was asked for a list", status=503
                )
            yield from _objects(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RefusedError(f"Docker gives no answer: {type(error).__name__}", status=503) from None
        finally:
            connection.close()

    def is_replaced(self) -> bool:
        """Tell whether the socket is none of the host's any more, which has made another in its place.

        A container has the file mounted that was there when it started: nobody listens there again.
        """
        try:
            return os.stat(self._path).st_nlink == 0
        except OSError:
            return False

    def is_up(self) -> bool:
        """Ask whether Docker answers."""
        try:
            return self.ask("GET", "/version")[0] == 200
        except RefusedError:
            return False


class _Connection(http.client.HTTPConnection):
    """The library's client, on a connection that is there already."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("docker")
        self._engine = engine

    def connect(self) -> None:
        self.sock = self._engine.connect()
        self.sock.settimeout(ANSWER_SECONDS)


def _objects(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Decode a list of objects while it is read, so that only one of them is in memory.

    Raises:
        ValueError: it is none, or one object is larger than any can be.
    """
    decoder, characters = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
    text, begun = "", False
    while True:
        data = response.read(READ)
        text += characters.decode(data, final=not data)
        while True:
            rest = text.lstrip("," if begun else "[").lstrip()
            if not rest.startswith("{"):
                break
            try:
                entry, end = decoder.raw_decode(rest)
            except ValueError:
                break
            begun, text = True, rest[end:]
            yield entry
        if not data:
            if text.strip() not in (("]",) if begun else ("[]", "null")):
                raise ValueError("it is no list")
            return
        if len(text) > LARGEST_ENTRY:
            raise ValueError("it is too large")
