"""The XCom backend (`[core] xcom_backend`): what tasks hand on is encrypted with the Fernet key.

It is often a secret (`get_env_vars_task`). The database, its backups, pages and the REST API never show it.
Tasks read it as before, and mask in their logs what its own task had to mask.
"""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

from airflow.exceptions import AirflowException
from airflow.models.crypto import get_fernet
from airflow.models.xcom import BaseXCom
from airflow.utils.log.secrets_masker import _secrets_masker, mask_secret
from cryptography.fernet import InvalidToken
from secret_forms import SHORTEST_MASKED, forms
from stored_xcom import decrypt, encrypt, token_of

SHOWN = "Encrypted: only tasks can read it."
"""What pages and the REST API show in place of every value."""

_deserialize = BaseXCom.deserialize_value


class EncryptedXCom(BaseXCom):
    """An XCom that is stored as `stored_xcom` says. Earlier values, not encrypted, stay readable."""

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> bytes:
        """Return what is stored for the value; raise AirflowException where there is no usable Fernet key."""
        place = {"key": key, "task_id": task_id, "dag_id": dag_id, "run_id": run_id, "map_index": map_index}
        serialized = BaseXCom.serialize_value(value, **place)
        return encrypt(_fernet(), serialized, _masked_in(serialized))

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Return the value of a selected row, and mask its secrets in this process' log.

        Raises AirflowException when the Fernet key is not the one that it was encrypted with.
        """
        # With `deserialize=true` the REST API passes an object of the table; everything else selects columns.
        if isinstance(result, BaseXCom):
            return SHOWN
        token = None if result.value is None else token_of(bytes(result.value))
        if token is None:
            return _deserialize(result)
        try:
            value, secrets = decrypt(_fernet(), token)
        except InvalidToken:
            raise AirflowException(
                "An XCom cannot be decrypted with AIRFLOW__CORE__FERNET_KEY: it was encrypted with another "
                "key, or is damaged. Clear the task that returned it, so that it runs again."
            ) from None
        for secret in secrets:
            # On Airflow 2.5 nothing else adds these forms.
            mask_secret(forms(secret))
        return _deserialize(SimpleNamespace(value=value))

    def orm_deserialize_value(self) -> str:
        """Return what a page shows."""
        return SHOWN


# Airflow 2.6.0 and 2.6.1 read single values by the base class, whatever the backend: `BaseXCom.get_one`.
BaseXCom.deserialize_value = staticmethod(EncryptedXCom.deserialize_value)


def _fernet() -> Any:
    fernet = get_fernet()
    if not fernet.is_encrypted:
        raise AirflowException(
            "AIRFLOW__CORE__FERNET_KEY is empty: XComs are stored encrypted or not at all. Run site.yml."
        )
    return fernet


def _masked_in(serialized: bytes) -> list[str]:
    """Return what this process masks in its log and the value has, in JSON's form or in a pickle's."""
    # Airflow keeps what it masks as regular expressions, escaped.
    secrets = (re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL) for pattern in _secrets_masker().patterns)
    return [
        secret
        for secret in secrets
        if len(secret) >= SHORTEST_MASKED
        and (
            json.dumps(secret)[1:-1].encode() in serialized
            or secret.encode("utf-8", "surrogatepass") in serialized
        )
    ]
