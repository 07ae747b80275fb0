"""The secrets backend (`[secrets] backend`): connections and variables from 1Password, where tasks run.

Two items of the vault have them. In each, the section named after the environment has a field for each
connection or variable; a field outside all sections is for every environment. A connection's value is what
`AIRFLOW_CONN_…` would have: a URI or JSON. Airflow imports this before its own configuration is complete.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from airflow.exceptions import AirflowException
from airflow.secrets import BaseSecretsBackend
from airflow.secrets.environment_variables import CONN_ENV_PREFIX, VAR_ENV_PREFIX
from secret_forms import SHORTEST_MASKED, forms

CONNECTIONS = "Airflow connections"
VARIABLES = "Airflow variables"

KEEP_SECONDS = 60
"""How long a process uses what it has read, an error included: no task asks, or waits, for each name anew."""

TIMEOUT_SECONDS = 5
"""How long Connect may take to accept a connection, and then to answer."""

RETRIES = 2

Fields = dict[str, dict[str, Any]]


class ConnectError(AirflowException):
    """The vault cannot be read, or has no usable value; the message never has a value."""


class ConnectBackend(BaseSecretsBackend):
    """Resolves names by 1Password Connect (`OP_CONNECT`, `OP_API_TOKEN`, `OP_VAULT_ID`, `ENVIRONMENT`).

    A name that the container's environment has is not asked for. Airflow asks its other backends for a name
    that the vault does not have, and also, after a message in the task's log, when the vault cannot be read.
    """

    def __init__(self) -> None:
        """Read nothing yet: most processes never ask."""
        self._read: dict[str, tuple[float, Any]] = {}

    def get_connection(self, conn_id: str) -> Any:
        """Return the connection, or None; raise ConnectError."""
        field = None
        if CONN_ENV_PREFIX + conn_id.upper() not in os.environ:
            field = self._field(CONNECTIONS, conn_id)
        if field is None:
            return None
        try:
            connection = self.deserialize_connection(conn_id, field["value"])
            if connection.conn_type:
                return connection
        except Exception:  # noqa: S110 - what it says may have a part of the password
            pass
        raise ConnectError(
            f"The field {conn_id!r} of the item {CONNECTIONS!r} is no URI and no JSON of a connection"
        )

    def get_variable(self, key: str) -> str | None:
        """Return the variable's value, or None; raise ConnectError. A concealed one is masked in logs."""
        field = None
        if VAR_ENV_PREFIX + key.upper() not in os.environ:
            field = self._field(VARIABLES, key)
        if field is None:
            return None
        if field.get("type") == "CONCEALED":
            _mask(field["value"])
        return str(field["value"])

    def _field(self, title: str, label: str) -> dict[str, Any] | None:
        fields: Fields = self._remember(title, lambda: self._fields(title))
        return fields.get(label)

    def _fields(self, title: str) -> Fields:
        """Return the fields of an item that have a value here, by label; {} where there is no such item."""
        items = self._remember("", lambda: _get("items"))
        ids = [entry["id"] for entry in items if entry.get("title") == title]
        if len(ids) > 1:
            raise ConnectError(f"The vault has {len(ids)} items {title!r}: rename or delete one")
        if not ids:
            return {}
        item = _get(f"items/{ids[0]}")
        environment = os.environ.get("ENVIRONMENT", "development")
        here = {section["id"] for section in item.get("sections", []) if section.get("label") == environment}
        # Fields with a purpose are those that 1Password gives every item of a kind, such as its notes.
        fields = [one for one in item.get("fields", []) if one.get("value") and not one.get("purpose")]
        common = {one["label"]: one for one in fields if not one.get("section")}
        return common | {one["label"]: one for one in fields if one.get("section", {}).get("id") in here}

    def _remember(self, name: str, read: Callable[[], Any]) -> Any:
        until, result = self._read.get(name, (0.0, None))
        if time.monotonic() >= until:
            try:
                result = read()
            except ConnectError as error:
                result = error
            except (AttributeError, KeyError, TypeError) as error:
                result = ConnectError(f"1Password Connect gave another document than expected: {error!r}")
            self._read[name] = (time.monotonic() + KEEP_SECONDS, result)
        if isinstance(result, ConnectError):
            raise ConnectError(str(result))
        return result


def _get(path: str) -> Any:
    """Return what Connect says of a path in the vault."""
    # Not needed by most processes that import this.
    import requests
    from airflow.utils.log.secrets_masker import mask_secret
    from last_known import LastKnownAdapter
    from urllib3.util import Retry

    address, token, vault = (_setting(name) for name in ("OP_CONNECT", "OP_API_TOKEN", "OP_VAULT_ID"))
    mask_secret(token)
    # The last answer, and not "too many retries", says whether Connect is away.
    retries = Retry(
        total=RETRIES,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, LastKnownAdapter(max_retries=retries))
        try:
            answer = session.get(
                f"{address.rstrip('/').removesuffix('/v1')}/v1/vaults/{vault}/{path}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=TIMEOUT_SECONDS,
            )
            answer.raise_for_status()
            return answer.json()
        # Its own JSONDecodeError is a ValueError.
        except (requests.RequestException, ValueError) as error:
            raise ConnectError(f"1Password Connect at {address} cannot be read: {error}") from None


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConnectError(f"{name} is not set: only the worker and airflow-cli can read the vault")
    return value


def _mask(value: str) -> None:
    """Mask a value in this process' log, and, where it is JSON, each text in it."""
    from airflow.utils.log.secrets_masker import mask_secret

    try:
        texts = {value, *_texts(json.loads(value))}
    except ValueError:
        texts = {value}
    for text in texts:
        if len(text) >= SHORTEST_MASKED:
            mask_secret(forms(text))


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, (dict, list)):
        for part in document.values() if isinstance(document, dict) else document:
            yield from _texts(part)
