"""The forms of a secret in a log, for Airflow's masking (`[logging] secret_mask_adapter`, from 2.6 on)."""

from __future__ import annotations

import json

SHORTEST_MASKED = 5
"""Characters; to mask shorter values would black out ordinary text."""

SHORTEST_LINE = 8
"""Characters of the shortest line of a secret that is masked by itself; shorter ones are ordinary text."""


def forms(secret: str) -> set[str]:
    """Return the secret as Python and JSON write it within quotes, and its lines.

    A rendered template may hold the text of a dictionary, and a container logs a private key line by line.
    """
    written = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    lines = [line.strip() for line in secret.splitlines()]
    return {secret, *written, *(line for line in lines if len(line) >= SHORTEST_LINE)}
