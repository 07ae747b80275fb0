"""What the sandbox's vault holds from the start: the secrets that people keep by hand in the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.vault_store import VaultStore

WEATHER_ITEM = "Diagnostic ETL (Weather)"
WEATHER_FIELD = "demonstration secret"
SLACK_ITEM = "Slack webhook"
SLACK_FIELD = "url"
SLACK_PATH = "/services/T000/B000/sandbox"
WEBHOOK_ITEM = "Airflow webhook"
CHANNEL_FIELD = "channel"
REPOSITORY_ITEM = "DAG repository"
GITHUB_FIELD = "github token"
DEPLOY_KEY_FIELD = "deploy key"

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


@dataclass(frozen=True)
class StandIns:
    """How the platform reaches the other stand-ins: addresses without a path, and what they ask for."""

    slack: str
    smee: str
    github_token: str
    deploy_key: str
    """The private key, as ssh-keygen writes it: several lines."""


def seed(
    store: VaultStore,
    environments: Iterable[str] = (),
    stand_ins: StandIns | None = None,
    tasks: VaultStore | None = None,
) -> None:
    """Put what is missing into the vault, for ``production``, ``development`` and each other environment.

    What tasks fetch themselves goes into the vault ``tasks``, which is the same one unless it is given.
    What leads to the other stand-ins is set anew at each start, because a container's address changes.
    """
    names = list(dict.fromkeys(("production", "development", *environments)))
    (tasks or store).ensure_fields(WEATHER_ITEM, [(name, WEATHER_FIELD, phrase(name)) for name in names])
    if stand_ins is None:
        return
    for item, field, values in (
        (WEBHOOK_ITEM, CHANNEL_FIELD, {name: f"{stand_ins.smee}/{channel(name)}" for name in names}),
        (SLACK_ITEM, SLACK_FIELD, dict.fromkeys(names, f"{stand_ins.slack}{SLACK_PATH}")),
        (REPOSITORY_ITEM, GITHUB_FIELD, dict.fromkeys(names, stand_ins.github_token)),
        (REPOSITORY_ITEM, DEPLOY_KEY_FIELD, dict.fromkeys(names, stand_ins.deploy_key)),
    ):
        sections = [(name, field, value) for name, value in values.items()]
        store.ensure_fields(item, sections, overwrite=True)


def channel(environment: str) -> str:
    """Return the name of an environment's smee channel, the same at every start."""
    return hashlib.sha256(f"channel of {environment}".encode()).hexdigest()[:16]


def phrase(environment: str) -> str:
    """Return a phrase that a person can tell from another environment's, the same at every start."""
    digest = hashlib.sha256(environment.encode()).digest()
    words = [pool[byte % len(pool)] for pool, byte in zip((ADJECTIVES, NOUNS) * 2, digest, strict=False)]
    return f"{words[0]} {words[1]} and {words[2]} {words[3]}"
