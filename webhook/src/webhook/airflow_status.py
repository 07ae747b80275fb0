"""What Airflow says about itself: its version, and the state of its components."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

REFRESH_SECONDS = 2
TIMEOUT = 2


@dataclass(frozen=True)
class AirflowStatus:
    """Airflow's answer. `components` maps a name such as `scheduler` to `healthy` or `unhealthy`."""

    version: str | None = None
    components: dict[str, str] = field(default_factory=dict)
    error: str | None = None


class AirflowClient:
    """Asks the webserver, at most every REFRESH_SECONDS however often the page is read.

    One reader of the page asks. The others get the last answer meanwhile, so that a webserver that hangs
    keeps one thread busy and not all of them.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet."""
        self._url = url
        self._clock = clock
        self._asking = threading.Lock()
        self._status = AirflowStatus(error="the Airflow webserver has not answered yet")
        self._fresh_until = float("-inf")

    def status(self) -> AirflowStatus:
        """Return what Airflow said; while it cannot be reached, why."""
        if self._clock() >= self._fresh_until and self._asking.acquire(blocking=False):
            try:
                self._status = self._ask()
            finally:
                self._fresh_until = self._clock() + REFRESH_SECONDS
                self._asking.release()
        return self._status

    def _ask(self) -> AirflowStatus:
        """Read `/health`, whose HTTP code is 200 whatever it says, and `/api/v1/version`."""
        try:
            with httpx.Client(base_url=self._url, timeout=TIMEOUT, trust_env=False) as client:
                health = client.get("/health").raise_for_status().json()
                version = client.get("/api/v1/version").raise_for_status().json()["version"]
            components = {
                str(name): str(part.get("status") or "unknown")
                for name, part in health.items()
                if isinstance(part, dict)
            }
        except (httpx.HTTPError, ValueError, KeyError, AttributeError, TypeError) as error:
            return AirflowStatus(error=f"the Airflow webserver does not answer: {type(error).__name__}")
        # A component that is not part of the deployment has no status at all.
        running = {name: state for name, state in components.items() if state != "unknown"}
        return AirflowStatus(version=str(version), components=running)
