"""Logins: at which registries DAGs may log in, and in which form credentials are handed on."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from docker_policy import decode
from docker_policy.errors import RefusedError, malformed, printable
from docker_policy.images import HUB, registry, registry_address

_TEXT = decode.text()


class Registries:
    """The registries of the inventory."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Take their names or addresses."""
        self._names = {registry(address) for address in addresses}
        self._rule = decode.record(
            {
                "username": _TEXT,
                "password": _TEXT,
                "email": _TEXT,
                "serveraddress": self._address,
                "identitytoken": _TEXT,
                "registrytoken": _TEXT,
            }
        )

    def login(self, document: Any) -> dict[str, Any]:
        """Return the body of a login. Without an address it is Docker Hub's.

        Raises:
            RefusedError: the registry is not listed, or a field is malformed.
        """
        credentials: dict[str, Any] = self._rule(document, "")
        return {
            **credentials,
            "serveraddress": credentials.get("serveraddress") or self._address(HUB, "serveraddress"),
        }

    def header(self, value: str) -> str:
        """Return the header `X-Registry-Auth` of a pull.

        Raises:
            RefusedError: as for `login`.
        """
        try:
            document = base64.b64decode(value, altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise malformed("it is not base64", "X-Registry-Auth") from None
        built = self._rule(decode.document(document), "")
        return base64.urlsafe_b64encode(json.dumps(built).encode()).decode()

    def _address(self, value: Any, field: str) -> str:
        address = str(_TEXT(value, field))
        name = registry(address)
        if name not in self._names:
            raise RefusedError(
                f'DAGs may not log in at "{printable(address)}": it is not in dag_container_registries '
                "of the inventory",
                field=field,
            )
        return registry_address(name)
