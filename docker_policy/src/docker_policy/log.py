"""The log: a JSON object a line on standard output. Bodies have secrets in them and are never in it."""

import json
import sys
import threading
import time
from typing import Any, TextIO

from docker_policy.errors import printable

_lock = threading.Lock()


def write(event: str, stream: TextIO | None = None, **facts: Any) -> None:
    """Write an event with what is known of it; empty facts are left out."""
    known = {
        name: printable(value) if name != "message" and isinstance(value, str) else value
        for name, value in facts.items()
    }
    line = json.dumps(
        {"time": round(time.time(), 3), "event": event, **{k: v for k, v in known.items() if v != ""}}
    )
    with _lock:
        print(line, file=stream or sys.stdout, flush=True)
