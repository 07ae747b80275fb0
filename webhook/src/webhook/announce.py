"""`announce-deployment`: tells the channel that the branch moved. The GitHub workflow runs it after a merge.

The call is signed, so that the key itself never passes through the public channel. A channel answers 200 to
anyone; whether the commit went live is what the commit status `airflow/live` says.
"""

import argparse
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from webhook.keys import signature
from webhook.settings import SettingsError, connect_from_environment
from webhook.vault import ConnectVault, Vault, VaultUnavailableError

log = logging.getLogger("announce-deployment")

CHANNEL_FIELD = "channel"


class AnnounceError(Exception):
    """The channel did not take the call."""


class _TryAgainError(AnnounceError):
    """It may do so in a moment."""


def announce(channel: str, key: str, content: Mapping[str, str], pause: float = 2) -> None:
    """Post a signed call, with a few tries from `pause` seconds apart.

    Raises:
        AnnounceError: it was not taken. The address, which is a secret, is not in the message.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(_TryAgainError),
        stop=stop_after_attempt(5),
        wait=wait_exponential(multiplier=pause, max=20),
        reraise=True,
    )
    retrying(_post, channel, key, json.dumps(content).encode())


def _post(channel: str, key: str, body: bytes) -> None:
    timestamp, nonce = str(int(time.time())), secrets.token_urlsafe(24)
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Timestamp": timestamp,
        "X-Webhook-Nonce": nonce,
        "X-Webhook-Signature": f"sha256={signature(key, timestamp, nonce, body)}",
    }
    try:
        response = httpx.post(channel, content=body, headers=headers, timeout=15)
    except httpx.TransportError as error:
        raise _TryAgainError(f"the channel does not answer: {type(error).__name__}") from None
    except httpx.InvalidURL:
        raise AnnounceError("the channel's address in 1Password is not a URL") from None
    if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise _TryAgainError(f"the channel answers HTTP {response.status_code}")
    if not response.is_success:
        raise AnnounceError(f"the channel refuses the call: HTTP {response.status_code}")


def main(arguments: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Read address and key from 1Password, post; exit 1 when that fails, 2 when a setting is missing."""
    parser = argparse.ArgumentParser(
        prog="announce-deployment",
        description="Tell the production host, through its channel, that there is a commit to sync.",
    )
    parser.add_argument("--commit", default="", help="its id, for whoever reads the channel")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = connect_from_environment({"ENVIRONMENT": "production", **environ})
        section = settings.field.rpartition(".")[0]
        key: Vault = ConnectVault(settings)
        channel: Vault = ConnectVault(replace(settings, field=f"{section}.{CHANNEL_FIELD}"))
        announce(channel.read(), key.read(), {"commit": options.commit})
    except SettingsError as error:
        log.error("announce-deployment: %s", error)
        return 2
    except (AnnounceError, VaultUnavailableError) as error:
        log.error("announce-deployment: %s", error)
        return 1
    log.info("announced %s", options.commit or "a deployment")
    return 0


if __name__ == "__main__":
    sys.exit(main())
