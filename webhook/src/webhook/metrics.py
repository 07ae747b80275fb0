"""What Prometheus is told."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The counters of one app, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "webhook_calls", "Calls by door and HTTP status", ["door", "status"], registry=self._registry
        )
        self._syncs = Counter("webhook_syncs", "Syncs by outcome", ["outcome"], registry=self._registry)
        self._seconds = Histogram(
            "webhook_sync_seconds",
            "Duration of a sync",
            buckets=(0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300),
            registry=self._registry,
        )

    def called(self, door: str, status: int) -> None:
        """Count a call at one of the doors `webhook`, `sync` and `relay`."""
        self._calls.labels(door, str(status)).inc()

    def synced(self, outcome: str, seconds: float) -> None:
        """Count a sync."""
        self._syncs.labels(outcome).inc()
        self._seconds.observe(seconds)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a value that is asked for when the page is read."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def page(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)
