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
GITHUB = "GitHub"
GITHUB_FIELD = "github token"
DEPLOY_KEY_FIELD = "deploy key"
HEARTBEAT_ITEM = "Heartbeat"
PROMETHEUS_ITEM = "Prometheus"
REGISTRY_ITEM = "Docker registry"
REGISTRY_ADDRESS = "docker.io"
"""The one at which every inventory lets DAGs log in. It takes no made-up login, nor does a test try it."""

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
    heartbeat: str
    secret: str
    """What the made-up secrets are made of."""
    deploy_key: str
    """The private key, as ssh-keygen writes it: several lines."""

    def made_up(self, name: str) -> str:
        """Return a secret that is the same at every start, and of no use but for what it is named after."""
        return hashlib.sha256(f"{name} {self.secret}".encode()).hexdigest()[:40]


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
        (REPOSITORY_ITEM, GITHUB_FIELD, dict.fromkeys(names, stand_ins.made_up(GITHUB))),
        (REPOSITORY_ITEM, DEPLOY_KEY_FIELD, dict.fromkeys(names, stand_ins.deploy_key)),
        (
            HEARTBEAT_ITEM,
            "url",
            dict.fromkeys(names, f"{stand_ins.heartbeat}/ping/{stand_ins.made_up(HEARTBEAT_ITEM)}"),
        ),
        (PROMETHEUS_ITEM, "token", dict.fromkeys(names, stand_ins.made_up(PROMETHEUS_ITEM))),
        (REGISTRY_ITEM, "address", dict.fromkeys(names, REGISTRY_ADDRESS)),
        (REGISTRY_ITEM, "username", dict.fromkeys(names, "sandbox-reader-of-images")),
        (REGISTRY_ITEM, "password", dict.fromkeys(names, stand_ins.made_up(REGISTRY_ITEM))),
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
