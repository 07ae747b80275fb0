"""Syncs in the background, one at a time. Calls that come while one runs are served by exactly one more."""

import dataclasses
import logging
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from webhook.metrics import Metrics
from webhook.store import Store
from webhook.sync import Outcome, Result, Syncer

log = logging.getLogger(__name__)

# A sync that failed is tried again without a call, in seconds: the first pause, and the longest.
RETRY_SECONDS = (5, 60)
# Syncs begin this far apart, in seconds: however short they are, all calls of one second lead to two of them,
# even if the last of these calls had to wait for its turn.
BETWEEN_STARTS_SECONDS = 1.5


@dataclass
class Job:
    """A sync that was asked for. `state` is queued, running, done or interrupted; times in Unix seconds."""

    id: str
    trigger: str
    requested_at: float
    state: str = "queued"
    started_at: float | None = None
    finished_at: float | None = None
    outcome: str | None = None
    detail: str | None = None
    commit: str | None = None
    reasons: list[dict[str, str]] = dataclasses.field(default_factory=list)


class Jobs:
    """The queue: at most one job runs, at most one waits."""

    def __init__(self, syncer: Syncer, store: Store, metrics: Metrics) -> None:
        """Run nothing yet."""
        self._syncer = syncer
        self._store = store
        self._metrics = metrics
        self._waiting: Job | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)

    def start(self) -> None:
        """Begin, with a sync: what a killed predecessor had accepted is then done, too."""
        for content in self._store.jobs():
            if content["state"] in ("queued", "running"):
                detail = "the webhook was restarted; the sync at its start stands in"
                self._store.save_job(content["id"], {**content, "state": "interrupted", "detail": detail})
        self._thread.start()
        self.request("start")

    def close(self) -> None:
        """Finish the running job, drop the waiting one, end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Say whether jobs are being worked on."""
        return self._thread.is_alive()

    def request(self, trigger: str) -> Job:
        """Ask for a sync that begins after this moment, and return its job."""
        with self._changed:
            if self._waiting is None:
                self._waiting = Job(secrets.token_hex(8), trigger, time.time())
                self._save(self._waiting)
                self._changed.notify()
            return self._waiting

    def find(self, identifier: str) -> dict[str, Any] | None:
        """Return a job as JSON, or None."""
        return self._store.job(identifier)

    def _run(self) -> None:
        pause: float | None = None
        earliest = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing, pause)
                # Calls that come until then are served by this one, too.
                self._changed.wait_for(lambda: self._closing, max(0, earliest - time.monotonic()))
                if self._closing:
                    return
                job = self._waiting or Job(secrets.token_hex(8), "retry", time.time())
                self._waiting = None
                earliest = time.monotonic() + BETWEEN_STARTS_SECONDS
            job.state, job.started_at = "running", time.time()
            self._save(job)
            try:
                result = self._syncer.sync(job.trigger)
            except Exception as error:
                # A defect, not a failed sync: seen in the log and on the job, and the next call is served.
                log.exception("the sync broke off")
                result = Result(Outcome.FAILED, f"{type(error).__name__}: {error}")
            job.state, job.finished_at = "done", time.time()
            job.outcome, job.detail, job.commit = result.outcome, result.detail, result.commit
            job.reasons = [dataclasses.asdict(reason) for reason in result.reasons]
            if result.outcome is not Outcome.FAILED:
                pause = None
            else:
                pause = RETRY_SECONDS[0] if pause is None else min(2 * pause, RETRY_SECONDS[1])
            self._metrics.synced(result.outcome, job.finished_at - job.started_at)
            self._save(job)

    def _save(self, job: Job) -> None:
        self._store.save_job(job.id, dataclasses.asdict(job))
