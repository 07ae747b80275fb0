"""Files that a crash leaves as they were or as they were to be."""

from __future__ import annotations

import json
import os
from pathlib import Path


def replace_json(path: Path, document: object, mode: int = 0o600) -> None:
    """Replace a JSON file as a whole.

    It is not forced onto the disk: after a power cut the next run writes it anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # whatever the process' umask
        json.dump(document, file, indent=1)
        file.write("\n")
    partial.replace(path)
