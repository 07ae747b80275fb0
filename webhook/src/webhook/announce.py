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
from collections.abc import Mapping, Sequence
from dataclasses import replace

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from webhook.keys import signature
from webhook.retry_after import retry_after
from webhook.settings import SettingsError, connect_from_environment
from webhook.vault import ConnectVault, Vault, VaultUnavailableError

log = logging.getLogger("announce-deployment")

CHANNEL_FIELD = "channel"
PAUSE = 2
"""Seconds before the second try; each later pause is twice as long."""
TRIES = 5
LONGEST_PAUSE = 60
"""Seconds; a server that asks for a longer wait is asked again then."""


class AnnounceError(Exception):
    """The channel did not take the call."""


class _TryAgainError(AnnounceError):
    """It may do so in a moment, or in as many seconds as it asks to wait."""

    def __init__(self, message: str, asked: float | None = None) -> None:
        super().__init__(message)
        self.asked = asked


def read(vaults: Sequence[Vault], pause: float = PAUSE) -> list[str]:
    """Return the value of each field, with a few tries from `pause` seconds apart.

    Raises:
        VaultUnavailableError: 1Password Connect does not give one of them.
    """
    values: list[str] = _retrying(VaultUnavailableError, pause)(lambda: [vault.read() for vault in vaults])
    return values


def announce(channel: str, key: str, content: Mapping[str, str], pause: float = PAUSE) -> None:
    """Post a signed call, with a few tries from `pause` seconds apart.

    Raises:
        AnnounceError: it was not taken. The address, which is a secret, is not in the message.
    """
    _retrying(_TryAgainError, pause)(_post, channel, key, json.dumps(content).encode())


def _retrying(error: type[Exception], pause: float) -> Retrying:
    backing_off = wait_exponential(multiplier=pause, max=20)

    def wait(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.asked if isinstance(failure, _TryAgainError) else None
        return max(backing_off(state), min(asked or 0, LONGEST_PAUSE))

    return Retrying(
        retry=retry_if_exception_type(error), stop=stop_after_attempt(TRIES), wait=wait, reraise=True
    )


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
        asked = retry_after(response.headers)
        raise _TryAgainError(f"the channel answers HTTP {response.status_code}", asked)
    if not response.is_success:
        raise AnnounceError(f"the channel refuses the call: HTTP {response.status_code}")


def main(
    arguments: list[str] | None = None, environ: Mapping[str, str] = os.environ, pause: float = PAUSE
) -> int:
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
        fields = [f"{section}.{CHANNEL_FIELD}", settings.field]
        channel, key = read([ConnectVault(replace(settings, field=field)) for field in fields], pause)
        announce(channel, key, {"commit": options.commit}, pause)
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
