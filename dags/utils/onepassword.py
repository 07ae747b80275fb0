"""Secrets for DAGs, from 1Password Connect, fetched while a task runs and never while a file is parsed.

A thin layer on 1Password's own SDK (https://github.com/1Password/connect-sdk-python): it adds the vault and
the address from the environment, time-outs and retries, and errors that say which item and field is meant.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.decorators import task
from airflow.exceptions import AirflowException
from airflow.utils.log.secrets_masker import mask_secret
from onepasswordconnectsdk.client import Client, FailedToRetrieveItemException, new_client
from onepasswordconnectsdk.models import Field, Item, SummaryItem
from pendulum import duration, instance
from requests import PreparedRequest, RequestException, Response
from urllib3.util import Retry

try:
    # Of the image: it returns what Connect gave a few minutes ago while Connect gives no answer.
    from last_known import LastKnownAdapter as BaseAdapter
except ImportError:
    # An image from before that.
    from requests.adapters import HTTPAdapter as BaseAdapter

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
"""How long Connect may take to accept a connection, and then to answer."""

RETRIES = Retry(
    total=3,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET",),
    # The last answer goes to the SDK, whose message says more than "too many retries".
    raise_on_status=False,
)

SHORTEST_MASKED = 5
"""Shorter values are not masked in logs: a secret "1" would black out every 1 in the log of the task."""


DATES_IN_XCOM = importlib.util.find_spec("airflow.serialization.serde") is not None
"""Whether a task can return a date, which it can from Airflow 2.6 on, where this module came in."""


class OnePasswordError(AirflowException):
    """A secret cannot be had; the message names vault, item and field, and never a value."""


class _Adapter(BaseAdapter):
    """Gives every request of the SDK a time-out, which the SDK itself does not set."""

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        options["timeout"] = options.get("timeout") or TIMEOUT_SECONDS
        return super().send(request, **options)


def get_client() -> Client:
    """Return a 1Password Connect client for `OP_CONNECT` with the token `OP_API_TOKEN`.

    Raises OnePasswordError when the environment lacks one of them.
    """
    token = _setting("OP_API_TOKEN")
    mask_secret(token)
    client = new_client(_setting("OP_CONNECT").rstrip("/"), token)
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, _Adapter(max_retries=RETRIES))
    return client


def get_item_by_title(entry_name: str) -> Item:
    """Return the whole item with this title, in the vault `OP_VAULT_ID`.

    Raises OnePasswordError when Connect cannot be reached, refuses, or does not know exactly one such item.
    """
    vault, client = _setting("OP_VAULT_ID"), get_client()
    return _get_item(client, vault, entry_name, _list_items(client, vault, entry_name))


def load_dict(required_secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str | None]:
    """Return `{NAME: value}` for `{NAME: {"opitem": title, "opfield": "section.field"}}`.

    The section is given by its label or its id. ".field", or a name without a dot, means a field outside all
    sections; such a field also stands in for one that the section lacks, as with the SDK's own `load_dict`.
    A field that exists and is empty gives None. "opvault" is optional; the vault is then `OP_VAULT_ID`.
    Each vault is listed and each item fetched once, and each value is from then on masked in the log of the
    running task.

    Raises OnePasswordError when an item or a field does not exist or cannot be read.
    """
    client = get_client()
    listings: dict[str, list[SummaryItem]] = {}
    items: dict[tuple[str, str], Item] = {}
    values: dict[str, str | None] = {}
    for name, place in required_secrets.items():
        missing = {"opitem", "opfield"} - place.keys()
        if missing:
            raise OnePasswordError(f"The secret {name} is asked for without {' and '.join(sorted(missing))}")
        vault, title = place.get("opvault") or _setting("OP_VAULT_ID"), place["opitem"]
        if vault not in listings:
            listings[vault] = _list_items(client, vault, title)
        if (vault, title) not in items:
            items[vault, title] = _get_item(client, vault, title, listings[vault])
        field = _find_field(items[vault, title], vault, place["opfield"])
        if field.value is None:
            log.warning("%s: %s is empty", name, _describe(vault, title, place["opfield"]))
        elif len(field.value) >= SHORTEST_MASKED:
            mask_secret(field.value)
        values[name] = field.value
    return values


# What a task returns is printed in its log unless that is switched off; masking alone misses short values.
@task(task_id="get_env_vars", execution_timeout=duration(minutes=2), show_return_value_in_logs=False)
def get_env_vars_task(required_secrets: dict[str, dict[str, str]]) -> dict[str, str | None]:
    """Airflow task around `load_dict`, for the `environment` of the tasks that follow it."""
    return load_dict(required_secrets)


@task(task_id="get_item_last_update_date", multiple_outputs=True, execution_timeout=duration(minutes=2))
def get_item_last_update_date(entry_name: str) -> dict[str, Any]:
    """Airflow task: `{"updated_at": <pendulum.DateTime in UTC>}`, when somebody last changed the item.

    Airflow 2.5 cannot hand a date from task to task: there it is ISO 8601 text, for `pendulum.parse`.
    """
    updated_at = instance(get_item_by_title(entry_name).updated_at).in_timezone("UTC")
    return {"updated_at": updated_at if DATES_IN_XCOM else updated_at.isoformat()}


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise OnePasswordError(
            f"{name} is not set: secrets can only be read by the worker and by airflow-cli"
        )
    return value


def _list_items(client: Client, vault: str, title: str) -> list[SummaryItem]:
    """Return the summaries of all items of `vault`; `title` is the one that is looked for.

    Connect's own filter by title is of no use: the SDK puts a title into the address as it is, where an
    ampersand, a quote or a percent sign means something else.
    """
    with _reading(client, vault, title):
        listing = client.get_items(vault)
        # The SDK makes a list of anything, also of the page of a proxy.
        if not all(isinstance(entry, SummaryItem) and entry.id for entry in listing):
            raise ValueError("not a list of items")
        return listing


def _get_item(client: Client, vault: str, title: str, listing: list[SummaryItem]) -> Item:
    found = [entry.id for entry in listing if entry.title == title]
    if len(found) != 1:
        raise OnePasswordError(
            f"1Password Connect at {client.url} did not give {_describe(vault, title)}: "
            f"Found {len(found)} items with this title"
        )
    with _reading(client, vault, title):
        return client.get_item_by_id(found[0], vault)


@contextmanager
def _reading(client: Client, vault: str, title: str) -> Iterator[None]:
    """Turn whatever the SDK raises into an OnePasswordError that names the item."""
    try:
        yield
    # ValueError, TypeError: the SDK takes every answer for JSON of the form that it expects.
    except (FailedToRetrieveItemException, RequestException, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise OnePasswordError(
            f"1Password Connect at {client.url} did not give {_describe(vault, title)}: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _find_field(item: Item, vault: str, path: str) -> Field:
    section, label = path.split(".", 1) if "." in path else ("", path)
    fields = [field for field in item.fields or [] if field.label == label]
    sections = {entry.id: (entry.id, entry.label) for entry in item.sections or []}
    for field in fields:
        if section and field.section and section in sections.get(field.section.id, (field.section.id,)):
            return field
    for field in fields:
        if not field.section:
            return field
    raise OnePasswordError(f"1Password Connect knows no {_describe(vault, item.title, path)}")


def _describe(vault: str, title: str, path: str | None = None) -> str:
    where = f"item {title!r} in vault {vault}"
    return where if path is None else f"field {path!r} of {where}"
