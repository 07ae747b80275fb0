"""The webhook, asked inside its network for what only it knows: commits, syncs, the relay, the key."""

from __future__ import annotations

import contextlib
import http.client
import json

from airflow_checker.facts import Told
from airflow_checker.lights import OF_THE_WEBHOOK

PORT = 8080
MOST_BYTES = 65_536
MOST_LIGHTS = 20
MOST_CHARACTERS = 300


class WebhookError(Exception):
    """The webhook does not answer, or says something that cannot be understood."""


def ask(address: str, *, port: int = PORT, timeout: float = 5) -> list[Told]:
    """Return what the webhook says is wrong; nothing for one of a release that does not say it.

    Raises:
        WebhookError: there is no answer of the expected form.
    """
    try:
        with contextlib.closing(http.client.HTTPConnection(address, port, timeout=timeout)) as connection:
            connection.request("GET", "/lights")
            response = connection.getresponse()
            body = response.read(MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise WebhookError(str(error) or type(error).__name__) from error
    if response.status == 404:
        return []
    if response.status != 200:
        raise WebhookError(f"HTTP {response.status}")
    return parse(body)


def parse(body: bytes) -> list[Told]:
    """Read the answer; a light that this checker does not know is left out.

    Raises:
        WebhookError: it has another form.
    """
    try:
        lights = json.loads(body)["lights"]
        told = [
            Told(str(light["id"]), str(light["what"])[:MOST_CHARACTERS]) for light in lights[:MOST_LIGHTS]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WebhookError("the answer has another form") from error
    return [one for one in told if one.light in OF_THE_WEBHOOK]
