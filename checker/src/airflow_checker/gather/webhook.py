"""The webhook, asked inside its network for what only it knows: commits, syncs, the relay, worker hosts."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from typing import Any

from airflow_checker.facts import Said, Told, WorkerHost
from airflow_checker.lights import OF_THE_WEBHOOK

PORT = 8080
MOST_BYTES = 65_536
MOST_LIGHTS = 20
MOST_CHARACTERS = 300
MOST_WORKERS = 100
MOST_QUEUES = 100
MOST_LETTERS = 253
"""Of a name; a host's has no more (RFC 1035)."""
MOST_SLOTS = 10_000
LONGEST_SECONDS = 10**10
STATES = ("live", "preparing", "fenced", "silent")
"""Of a worker host: it prepares a commit, is cut off because it did not, or was not heard for a while."""


class WebhookError(Exception):
    """The webhook does not answer, or says something that cannot be understood."""


def ask(address: str, *, port: int = PORT, timeout: float = 5) -> Said:
    """Return what the webhook says; nothing for one of a release that does not say it.

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
        return Said()
    if response.status != 200:
        raise WebhookError(f"HTTP {response.status}")
    return parse(body)


def parse(body: bytes) -> Said:
    """Read the answer; a light that this checker does not know is left out.

    Raises:
        WebhookError: it has another form, or a value that no webhook gives: then none of it is used.
    """
    try:
        document = json.loads(body)
        told = [
            Told(str(light["id"]), str(light["what"])[:MOST_CHARACTERS])
            for light in document["lights"][:MOST_LIGHTS]
        ]
        # A webhook of an earlier release knows no worker hosts.
        workers = _some(document.get("workers", []), MOST_WORKERS)
        hosts = [worker_host(worker) for worker in workers]
        if len({host.name for host in hosts}) < len(hosts):
            raise ValueError("two worker hosts have one name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WebhookError("the answer has another form") from error
    return Said([one for one in told if one.light in OF_THE_WEBHOOK], hosts)


def worker_host(worker: Any) -> WorkerHost:
    """Read what the webhook says of one worker host; what it has not heard yet is null.

    Raises:
        ValueError, TypeError, KeyError: a value is none that a webhook gives.
    """
    known = {name: worker[name] for name in ("release", "commit", "slots") if worker[name] is not None}
    state, heard, slots = worker["state"], worker["heard_seconds_ago"], known.get("slots", 0)
    if state not in STATES:
        raise ValueError("there is no such state")
    if type(slots) is not int or not 0 <= slots <= MOST_SLOTS:
        raise ValueError("slots are no count")
    if heard is not None and (type(heard) not in (int, float) or not 0 <= heard < LONGEST_SECONDS):
        raise ValueError("an age is no number of seconds")
    return WorkerHost(
        name=_text(worker["name"], r"[A-Za-z0-9][A-Za-z0-9._-]*"),
        state=state,
        release=_text(known.get("release", "")),
        commit=_text(known.get("commit", ""), r"([0-9a-f]{40})?"),
        queues=tuple(_text(queue) for queue in _some(worker["queues"], MOST_QUEUES)),
        slots=slots,
        heard_seconds_ago=heard,
    )


def _text(value: Any, form: str = ".*") -> str:
    """Take what can be shown: a worker host chooses the names of its release and its queues."""
    if not isinstance(value, str) or len(value) > MOST_LETTERS or not value.isprintable():
        raise ValueError("it is no text of that length")
    if not re.fullmatch(form, value):
        raise ValueError("a text has another form")
    return value


def _some(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("it is no list of that length")
    return value
