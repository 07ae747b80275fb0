"""Temporary."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Options:
    """Temporary."""

    drain_timeout: int = 1800
    on_drain_timeout: str = "abort"
    start_timeout: int = 300
    confirm_timeout: int = 900
    outage_limit: int = 900
    accept_undecryptable: int = 0

    @classmethod
    def load(cls, values: dict[str, Any]) -> Options:
        """Temporary."""
        return cls(**{k: v for k, v in values.items() if k in {f.name for f in fields(cls)}})
