"""What only the webhook can know to be wrong: with commits, syncs, the relay and the key.

The host's checker asks for it, so that page, metrics, `status.yml` and Slack say the same. How grave each
light is, and what it means, is in airflow_checker/lights.py; what to do stands here, too, for a page that
nobody has told yet, and a test compares the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from webhook import state
from webhook.services import Services
from webhook.settings import Settings
from webhook.state import State, StateError
from webhook.store import Store

# The relay reports every 30 s; with less than three reports missing it may be a restart.
RELAY_SILENT_SECONDS = 120
# The page looks for these itself, so that they are there, and gone, at once.
ON_THE_PAGE = (
    *("sync-state-unreadable", "never-synced", "sync-failed", "commit-refused", "dags-pinned"),
    *("infrastructure-changed", "relay-silent", "relay-reconnecting", "jobs-not-kept"),
)
ADVICE = {
    "commit-refused": "Read the reason on the status page, then push a correction.",
    "sync-failed": "Run `dag-sync once`, which says why.",
    "never-synced": "Run `dag-sync once`.",
    "sync-state-unreadable": "Move `/srv/airflow/delivery/state.json` away, then run `dag-sync once`.",
    "dags-pinned": "When the rollback is over, run `dag-sync unpin`.",
    "infrastructure-changed": "Run site.yml.",
    "relay-silent": "Read `journalctl -u smee-relay`.",
    "relay-reconnecting": "Read `journalctl -u smee-relay`.",
    "key-spent": "Read `docker compose logs webhook`; the token needs write access to the vault.",
    "jobs-not-kept": ("Read `docker compose logs webhook`; look for a full disk, or for who locks the file."),
}


@dataclass(frozen=True)
class Light:
    """Something that is wrong: its name among the checker's lights, and what it is in words."""

    id: str
    what: str

    @property
    def advice(self) -> str:
        """Return what to do, in one sentence."""
        return ADVICE[self.id]

    @property
    def sentence(self) -> str:
        """Return the words as the checker writes them."""
        return f"{self.what[:1].upper()}{self.what[1:]}."


def lit(parts: Services, now: float) -> Iterator[Light]:
    """Yield all that is wrong at a time."""
    if parts.settings.repository is not None:
        try:
            yield from of_delivery(state.load(parts.settings.state_dir / "state.json"))
        except StateError as error:
            yield unreadable(error)
    yield from of_relay(relay(parts, now), parts.settings)
    yield from of_store(parts.store)
    # Elsewhere keys are not replaced.
    if parts.settings.is_production and parts.keys.spent:
        yield Light("key-spent", "the webhook key in 1Password was used, and is not replaced yet")


def unreadable(error: StateError) -> Light:
    """Say that nothing is known of syncs."""
    return Light("sync-state-unreadable", str(error))


def of_delivery(current: State) -> Iterator[Light]:
    """Yield what is wrong with commits and syncs."""
    last = current.last_sync
    if last is None:
        yield Light("never-synced", "no commit has been synced yet")
    elif last.outcome == "failed":
        yield Light("sync-failed", f"the last sync failed: {last.detail}")
    if current.head and current.refusal_of(current.head.id):
        yield Light("commit-refused", "the newest commit is refused; the one before it stays live")
    if current.pin:
        what = f"pinned to {current.pin[:12]}: pushes do not go live until dag-sync unpin"
        yield Light("dags-pinned", what)
    if current.infrastructure_changed:
        what = "files outside the DAGs changed: run ansible-playbook site.yml"
        yield Light("infrastructure-changed", what)


def of_store(store: Store) -> Iterator[Light]:
    """Yield what is wrong with the file of jobs and used keys."""
    if store.trouble is not None:
        yield Light("jobs-not-kept", store.trouble)


def relay(parts: Services, now: float) -> dict[str, Any] | None:
    """Return what the relay last said, with its age; None when it never said anything."""
    heard = parts.store.recall("relay")
    if heard is not None:
        heard["age_seconds"] = now - heard["at"]
        heard["silent"] = heard["age_seconds"] > RELAY_SILENT_SECONDS
    return heard


def of_relay(heard: dict[str, Any] | None, settings: Settings) -> Iterator[Light]:
    """Yield what is wrong with the relay."""
    if heard is None:
        if settings.is_production and settings.relay_token_file is not None:
            yield Light("relay-silent", "the relay has not been heard yet")
    elif heard["silent"]:
        what = "the relay has gone silent: pushes arrive with the timer, every 5 minutes"
        yield Light("relay-silent", what)
    elif heard["state"] != "connected":
        yield Light("relay-reconnecting", "the relay is reconnecting to its channel")
