"""What the sandbox's vault holds from the start: the secrets that people keep by hand in the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sandbox.vault_store import VaultStore

WEATHER_ITEM = "Diagnostic ETL (Weather)"
WEATHER_FIELD = "demonstration secret"
SLACK_ITEM = "Slack webhook"
SLACK_FIELD = "url"

# fmt: off
ADJECTIVES = (
    "amber", "brisk", "cedar", "dusty", "early", "gentle", "hazy", "limestone",
    "mellow", "noble", "quiet", "rapid", "silver", "tidy", "violet", "wild",
)
NOUNS = (
    "armadillo", "bluebonnet", "creek", "drawl", "fiddle", "grackle", "heron", "juniper",
    "lantern", "mesa", "oak", "pecan", "quarry", "river", "sparrow", "taco",
)
# fmt: on


def seed(store: VaultStore, environments: Iterable[str] = (), slack_webhook_url: str = "") -> None:
    """Put what is missing into the vault, for ``production``, ``development`` and each other environment."""
    names = list(dict.fromkeys(("production", "development", *environments)))
    store.ensure_fields(WEATHER_ITEM, [(name, WEATHER_FIELD, phrase(name)) for name in names])
    if slack_webhook_url:
        store.ensure_fields(SLACK_ITEM, [(name, SLACK_FIELD, slack_webhook_url) for name in names])


def phrase(environment: str) -> str:
    """Return a phrase that a person can tell from another environment's, the same at every start."""
    digest = hashlib.sha256(environment.encode()).digest()
    words = [pool[byte % len(pool)] for pool, byte in zip((ADJECTIVES, NOUNS) * 2, digest, strict=False)]
    return f"{words[0]} {words[1]} and {words[2]} {words[3]}"
