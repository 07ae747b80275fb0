"""Syncs in the background, one at a time. Calls that come while one runs are served by exactly one more."""

import dataclasses
import logging
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from webhook.metrics import Metrics
from webhook.store import Store, StoreError
from webhook.sync import Outcome, Result, Syncer

log = logging.getLogger(__name__)

# A sync that failed is tried again without a call, in seconds: the first pause, and the longest.
RETRY_SECONDS = (5, 60)
# Syncs begin this far apart, in seconds: however short they are, all calls of one second lead to two of them,
# even if the last of these calls had to wait for its turn.
BETWEEN_STARTS_SECONDS = 1.5
# A sync that takes longer is stuck, in seconds: dag-sync.service has as long. Docker then calls the webhook
# unhealthy, and the host's checker restarts it.
STUCK_SECONDS = 3600


@dataclass(frozen=True)
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
        self._saving = threading.Lock()
        # The last state of each job that may still change, which is what is saved: also by a slow caller.
        self._current: dict[str, Job] = {}
        self._closing = False
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)

    def start(self) -> None:
        """Begin, with a sync: what a killed predecessor had accepted is then done, too."""
        try:
            for content in self._store.jobs():
                if content["state"] in ("queued", "running"):
                    detail = "the webhook was restarted; the sync at its start stands in"
                    self._store.save_job(content["id"], {**content, "state": "interrupted", "detail": detail})
        except StoreError as error:
            log.error("jobs of before keep their state: %s", error)
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
        """Say whether jobs are being worked on, and none of them is stuck."""
        began = self._began
        is_stuck = began is not None and time.monotonic() - began >= STUCK_SECONDS
        return self._thread.is_alive() and not is_stuck

    def request(self, trigger: str) -> Job:
        """Ask for a sync that begins after this moment, and return its job."""
        with self._changed:
            if self._waiting is not None:
                return self._waiting
            job = self._waiting = self._current_job(Job(secrets.token_hex(8), trigger, time.time()))
            self._changed.notify()
        # Without the lock: while the disk is slow or full, other calls and the sync itself go on.
        self._save(job.id)
        return job

    def find(self, identifier: str) -> dict[str, Any] | None:
        """Return a job as JSON, or None.

        Raises:
            StoreError: nobody can say now.
        """
        current = self._current.get(identifier)
        return self._store.job(identifier) if current is None else dataclasses.asdict(current)

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
            failed = True
            self._began = time.monotonic()
            try:
                failed = self._work(job)
            except BaseException:
                # Whatever it is, calls are accepted for as long as this process lives, so this goes on.
                log.exception("job %s broke off", job.id)
            finally:
                self._began = None
            if not failed:
                pause = None
            else:
                pause = RETRY_SECONDS[0] if pause is None else min(2 * pause, RETRY_SECONDS[1])

    def _work(self, job: Job) -> bool:
        """Run a job; say whether it failed."""
        started = time.time()
        self._save(self._current_job(dataclasses.replace(job, state="running", started_at=started)).id)
        try:
            result = self._syncer.sync(job.trigger)
        except BaseException as error:
            # A defect, not a failed sync: seen in the log and on the job, and the next call is served.
            log.exception("the sync broke off")
            result = Result(Outcome.FAILED, f"{type(error).__name__}: {error}")
        finished = time.time()
        done = self._current_job(
            dataclasses.replace(
                self._current[job.id],
                state="done",
                finished_at=finished,
                outcome=result.outcome,
                detail=result.detail,
                commit=result.commit,
                reasons=[dataclasses.asdict(reason) for reason in result.reasons],
            )
        )
        self._metrics.synced(result.outcome, finished - started)
        self._save(done.id)
        return result.outcome is Outcome.FAILED

    def _current_job(self, job: Job) -> Job:
        self._current[job.id] = job
        return job

    def _save(self, identifier: str) -> None:
        """Save the last state of a job, whoever comes last; the store has it from its end on."""
        with self._saving:
            if (job := self._current.get(identifier)) is not None:
                self._store.save_job(job.id, dataclasses.asdict(job))
                if job.state == "done":
                    del self._current[job.id]
