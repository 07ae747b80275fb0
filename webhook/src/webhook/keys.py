"""Who may call. One shared key in 1Password, used in one of two ways.

One-time key: the caller sends the key itself as `X-Webhook-Key`. Since a smee channel is public, the key is
then spent: it is remembered as used, and replaced in 1Password, where the next caller reads the new one.

Signed: the key is never sent. `X-Webhook-Timestamp` (Unix time in seconds), `X-Webhook-Nonce` (16 to 128 of
the characters A-Z a-z 0-9 _ -) and `X-Webhook-Signature: sha256=<hex>`, the HMAC-SHA256 under the key of

    <timestamp> LF <nonce> LF <body as canonical JSON, RFC 8785>

Canonical, because a smee channel parses the body and writes it anew.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import rfc8785
from werkzeug.datastructures import Headers

from webhook.state import write_atomically
from webhook.store import Store
from webhook.vault import Vault, VaultUnavailableError

log = logging.getLogger(__name__)

# The vault is asked at most this often, so that a flood of bad calls is no flood there; counted from its last
# answer, so that a slow vault is not asked all the time.
ASK_AGAIN_SECONDS = 1
ASK_AGAIN_AFTER_FAILURE_SECONDS = 5
# Without a call, too: another writer of the item may put a spent key back at any time.
LOOK_SECONDS = 60
ROTATION_RETRY_SECONDS = (1, 60)  # the first pause and the longest
USED_KEYS_KEPT_SECONDS = 10 * 365 * 86_400
KEY_LENGTH_LIMIT = 512


class UnauthorizedError(Exception):
    """No credential, or a wrong one."""


class ReplayError(Exception):
    """A credential that was right, once."""


class KeyUnavailableError(Exception):
    """There is no key to verify with: 1Password cannot be read and none is cached, or that one is spent."""


class MalformedError(Exception):
    """A signature comes with a body that is not JSON, so there is nothing that it could cover."""


@dataclass(frozen=True)
class Credential:
    """A verified credential: what is remembered of it once it is used, and for how long."""

    digest: str
    expires_at: float
    one_time_key: bool


class Keys:
    """Verifies calls against the current key, which is cached on disk for when 1Password is away."""

    def __init__(
        self,
        vault: Vault,
        cache: Path,
        store: Store,
        signature_window: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the cached key, if any. `clock` gives Unix time."""
        self._vault = vault
        self._cache = cache
        self._store = store
        self._window = signature_window
        self._clock = clock
        self._lock = threading.Lock()  # of what is cached; never kept while 1Password is asked
        self._asking = threading.Lock()
        self._key = _cached(cache)
        # Reads of the vault, numbered as they begin; what one of them found is replaced by later ones only.
        self._reads = self._cached_by = 0
        self._ask_again_at = self._look_again_at = 0.0
        self._rotation = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._rotate_when_due, name="key-rotation", daemon=True)

    def start(self) -> None:
        """Begin to rotate keys in the background, at once if a used one was left in the vault."""
        self._rotation.set()
        self._thread.start()

    @property
    def spent(self) -> bool:
        """Say whether the key that 1Password had last was used, and has to be replaced there."""
        key = self._key
        return key is not None and self._store.is_used(_digest("key", key))

    def close(self) -> None:
        """End the background thread."""
        self._closing.set()
        self._rotation.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Say whether spent keys are being replaced."""
        return self._thread.is_alive()

    def verify(self, headers: Headers, body: bytes) -> Credential:
        """Verify a call without using its credential up.

        Raises:
            UnauthorizedError, ReplayError, KeyUnavailableError, MalformedError.
            StoreError: nobody can say now whether it was used before.
        """
        if "X-Webhook-Signature" in headers:
            return self._verify_signature(headers, body)
        return self._verify_key(headers.get("X-Webhook-Key", ""))

    def use(self, credential: Credential) -> None:
        """Use a credential up; of two calls with the same one, only the first gets through.

        Raises:
            ReplayError: this was not the first.
            StoreError: it cannot be noted now, so it does not count.
        """
        if not self._store.use(credential.digest, credential.expires_at, self._clock()):
            raise ReplayError("this key or nonce was used before")
        if credential.one_time_key:
            self._rotation.set()

    def rotate_if_used(self) -> bool:
        """Replace the key in the vault if it has been used; say whether it was.

        Raises:
            VaultUnavailableError: it is still the old one, and calls with it are replays.
            StoreError: nobody can say whether it was used.
        """
        current = self._read()
        if not self._is_spent(current):
            return False
        self._vault.write(secrets.token_urlsafe(32))
        # Another writer of the item may have come in between. His key counts then, unless it is a spent one.
        if self._is_spent(self._read()):
            raise VaultUnavailableError("somebody put a spent key back into 1Password")
        log.info("rotated the webhook key")
        return True

    def _verify_key(self, candidate: str) -> Credential:
        if not 0 < len(candidate) <= KEY_LENGTH_LIMIT:
            raise UnauthorizedError("the header X-Webhook-Key is missing")
        digest = _digest("key", candidate)
        if self._store.is_used(digest):
            # It may be what 1Password has, put back by another writer.
            self._look()
            raise ReplayError("this key was used before: read the current one from 1Password")
        if not hmac.compare_digest(digest, _digest("key", self._current_key())):
            raise UnauthorizedError("this is not the webhook key")
        return Credential(digest, self._clock() + USED_KEYS_KEPT_SECONDS, one_time_key=True)

    def _verify_signature(self, headers: Headers, body: bytes) -> Credential:
        timestamp, nonce = headers.get("X-Webhook-Timestamp", ""), headers.get("X-Webhook-Nonce", "")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp, re.ASCII):
            raise UnauthorizedError("X-Webhook-Timestamp is missing, or not a Unix time in seconds")
        if not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", nonce):
            raise UnauthorizedError("X-Webhook-Nonce is missing, or not 16 to 128 of A-Z a-z 0-9 _ -")
        if abs(self._clock() - int(timestamp)) > self._window:
            raise UnauthorizedError(
                f"X-Webhook-Timestamp is more than {self._window:.0f} s from the time here"
            )
        digest = _digest("nonce", nonce)
        if self._store.is_used(digest):
            raise ReplayError("this nonce was used before")
        expected = "sha256=" + signature(self._current_key(), timestamp, nonce, body)
        given = headers["X-Webhook-Signature"]
        if not hmac.compare_digest(given.encode(errors="replace"), expected.encode()):
            raise UnauthorizedError("the signature does not fit key, time, nonce and body")
        # Until the time stamp alone turns a replay away.
        return Credential(digest, int(timestamp) + self._window + 1, one_time_key=False)

    def _current_key(self) -> str:
        """Return the key as the vault has it now, or had it when it could last be read.

        One caller asks. While he waits for the answer, the others use what is cached, so that a slow
        1Password keeps one thread busy and not all of them.
        """
        if time.monotonic() >= self._ask_again_at and self._asking.acquire(blocking=False):
            pause = ASK_AGAIN_AFTER_FAILURE_SECONDS
            try:
                self._read()
                pause = ASK_AGAIN_SECONDS
            except VaultUnavailableError as error:
                log.warning("using the cached key: %s", error)
            finally:
                self._ask_again_at = time.monotonic() + pause
                self._asking.release()
        key = self._key
        if key is None:
            raise KeyUnavailableError("the webhook key cannot be read from 1Password, and none is cached")
        if self._is_spent(key):
            # Who has read the channel knows it, so it proves nothing any more.
            self._look()
            raise KeyUnavailableError("the webhook key was used and is being replaced in 1Password")
        return key

    def _read(self) -> str:
        """Ask the vault, and cache the answer unless somebody asked later and has his already."""
        with self._lock:
            self._reads += 1
            number = self._reads
        key = self._vault.read()
        with self._lock:
            if number < self._cached_by:
                return key
            self._cached_by = number
            if key != self._key:
                self._key = key
                try:
                    write_atomically(self._cache, key.encode(), mode=0o600)
                except OSError as error:
                    log.error("the webhook key is cached in memory only: %s: %s", self._cache, error)
        return key

    def _is_spent(self, key: str) -> bool:
        return self._store.is_used(_digest("key", key))

    def _look(self) -> None:
        """Have the key replaced if 1Password's is a spent one; a flood of replays is no flood there."""
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + ASK_AGAIN_SECONDS
            self._rotation.set()

    def _rotate_when_due(self) -> None:
        pause = ROTATION_RETRY_SECONDS[0]
        while True:
            self._rotation.wait(LOOK_SECONDS)
            self._rotation.clear()
            if self._closing.is_set():
                return
            try:
                self.rotate_if_used()
                pause = ROTATION_RETRY_SECONDS[0]
            except Exception as error:
                # Whatever it is, no later call gets through before this is done.
                log.warning("the webhook key is not rotated yet: %s: %s", type(error).__name__, error)
                self._closing.wait(pause)
                pause = min(2 * pause, ROTATION_RETRY_SECONDS[1])
                self._rotation.set()


def _cached(cache: Path) -> str | None:
    """Return the key that was cached on disk, if any that can be read."""
    try:
        return cache.read_text().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("the cached webhook key cannot be read: %s: %s", cache, error)
        return None


def signature(key: str, timestamp: str, nonce: str, body: bytes) -> str:
    """Return the hex HMAC of a call.

    Raises:
        MalformedError: the body is not JSON, or has a number that JavaScript, and so smee, cannot hold.
    """
    try:
        canonical = rfc8785.dumps(json.loads(body)) if body.strip() else b""
    except (ValueError, RecursionError):
        raise MalformedError("the body is not JSON that could be signed") from None
    message = f"{timestamp}\n{nonce}\n".encode() + canonical
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()


def _digest(kind: str, value: str) -> str:
    return f"{kind}:{hashlib.sha256(value.encode(errors='replace')).hexdigest()}"
