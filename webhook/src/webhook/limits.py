"""Turns a source away that keeps calling with wrong credentials. A right one is never turned away."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_SECONDS = 60
SOURCES_KEPT = 10_000


class FailureLimiter:
    """Counts failures per source over a sliding minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `per_minute` failures."""
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, source: str) -> float | None:
        """Count a failure; return the seconds to wait once there were too many, else None."""
        now = self._clock()
        with self._lock:
            failures = self._failures.setdefault(source, deque(maxlen=self._per_minute + 1))
            self._failures.move_to_end(source)
            failures.append(now)
            while len(self._failures) > SOURCES_KEPT:
                self._failures.popitem(last=False)
            oldest = failures[0]
            if len(failures) > self._per_minute and now - oldest < WINDOW_SECONDS:
                return WINDOW_SECONDS - (now - oldest)
            return None
