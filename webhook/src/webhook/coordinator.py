"""Has every worker host run the commit that is live on the main host, or take no tasks.

What a worker has, it says in its reports. What is live, the link `current` says. A worker may take tasks if
the two are the same; the worker gateway is made to agree once a second, so it may forget.
"""

import json
import logging
import os
import re
import socketserver
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from webhook import trees
from webhook.gateway import Gateway, GatewayAbsentError, GatewayError
from webhook.settings import Settings
from webhook.trees import Trees

log = logging.getLogger(__name__)

PATH = "/workers/report"
"""Where the webhook takes reports."""
POLL_SECONDS = 10
"""For which a report waits for news; less than gunicorn gives a request (webhook.worker.REQUEST_SECONDS)."""
HEARD_SECONDS = 15
"""After which a worker counts as silent. It reports at least every `POLL_SECONDS`."""
SWITCH_SECONDS = 1
"""That a worker which has prepared a commit has to switch to it, once it is live on the main host."""
_LOOK_SECONDS = 1  # between looks at the link and at the gateway

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_CHARACTERS = 200
_MOST_QUEUES = 100
_MOST_SLOTS = 10_000


class MalformedReportError(Exception):
    """A report has another form."""


@dataclass(frozen=True)
class Report:
    """What a worker says of itself. `prepared` is a commit that only has to be switched to."""

    commit: str | None
    prepared: str | None
    release: str
    queues: tuple[str, ...]
    slots: int

    def has(self, commit: str) -> bool:
        """Say whether the worker runs a commit, or only has to switch to it."""
        return commit in (self.commit, self.prepared)


def report_in(body: bytes) -> Report:
    """Read a report.

    Raises:
        MalformedReportError
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise MalformedReportError("the report is no JSON object")
    queues, slots = content.get("queues"), content.get("slots")
    if not isinstance(queues, list) or len(queues) > _MOST_QUEUES:
        raise MalformedReportError(f"queues must be a list of at most {_MOST_QUEUES} names")
    if not isinstance(slots, int) or isinstance(slots, bool) or not 0 <= slots <= _MOST_SLOTS:
        raise MalformedReportError(f"slots must be a number from 0 to {_MOST_SLOTS}")
    return Report(
        commit=_commit("commit", content),
        prepared=_commit("prepared", content),
        release=_text("release", content.get("release")),
        queues=tuple(_text("queues", queue) for queue in queues),
        slots=slots,
    )


def _commit(name: str, content: Mapping[str, Any]) -> str | None:
    value = content.get(name)
    if value is not None and not (isinstance(value, str) and _COMMIT.fullmatch(value)):
        raise MalformedReportError(f"{name} must be a commit's id, or null")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS or not value.isprintable():
        raise MalformedReportError(f"{name} must be text of at most {_MOST_CHARACTERS} characters")
    return value


@dataclass
class Worker:
    """A worker host. Times are monotonic."""

    name: str
    report: Report | None = None
    heard: float | None = None
    polls: int = 0  # reports so far: a new one ends the wait of the one before
    admitted: bool | None = None  # as the coordinator wants it; None where that is not decided

    def is_heard(self, now: float) -> bool:
        """Say whether the worker has reported lately."""
        return self.heard is not None and now - self.heard <= HEARD_SECONDS

    def is_ready_for(self, commit: str) -> bool:
        """Say whether the worker need not be waited for."""
        return self.report is not None and self.report.has(commit)


@dataclass(frozen=True)
class Situation:
    """What the main host has. `since`: when that went live, as far as this process saw it."""

    live: str | None = None
    since: float = float("-inf")
    prepare: str | None = None  # goes live next
    left_behind: frozenset[str] = field(default_factory=frozenset)  # are not waited for any more

    def may_take_tasks(self, worker: Worker, now: float, started: float) -> bool | None:
        """Say whether a worker may take tasks; None where it stays as it is for now."""
        if worker.name in self.left_behind:
            return False
        if self.live is None:
            return None
        if worker.report is None:
            # This process is new, and the worker reports again within seconds.
            return None if now - started < HEARD_SECONDS else False
        if worker.report.commit == self.live:
            return True
        if worker.report.prepared == self.live and now - self.since < SWITCH_SECONDS:
            return None
        return False

    def has_news_for(self, report: Report) -> bool:
        """Say whether a worker that is so has something to do."""
        prepares = self.prepare is not None and not report.has(self.prepare)
        return prepares or self.live not in (None, report.commit)


class Coordinator:
    """Hears reports, serves syncs, keeps the gateway as it should be."""

    def __init__(self, settings: Settings, gateway: Gateway) -> None:
        """Do nothing yet."""
        self._settings = settings
        self._gateway = gateway
        self._trees = Trees(settings.trees_dir)
        self._workers = {name: Worker(name) for name in settings.workers}
        self._situation = Situation()
        self._started = time.monotonic()
        self._changed = threading.Condition()
        self._applying = threading.Lock()  # around decisions and what is done about them
        self._due = False
        self._ending = False
        self._round = 0
        self._trouble: str | None = None  # what was said last of the gateway
        self._server: socketserver.BaseServer | None = None

    def start(self) -> None:
        """Begin to serve syncs and to look after the gateway."""
        self._look(since=float("-inf"))
        self._server = _server(self._settings.worker_socket, self)
        threading.Thread(target=self._server.serve_forever, name="coordinator", daemon=True).start()
        threading.Thread(target=self._keep, name="worker-gateway", daemon=True).start()

    def end(self) -> None:
        """Answer all polls within a second, and let no new one wait. May be called by a signal's handler."""
        self._ending = True

    def close(self) -> None:
        """End the background threads."""
        self.end()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def report(self, name: str, report: Report) -> dict[str, Any]:
        """Note what a worker says; return what it should do, once that is something else, or after a while.

        Raises:
            KeyError: no worker has this name.
        """
        with self._changed:
            worker = self._workers[name]
            self._due |= worker.report != report
            worker.report, worker.heard = report, time.monotonic()
            worker.polls += 1
            poll = worker.polls
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._situation.has_news_for(report) or worker.polls != poll or self._ending,
                POLL_SECONDS,
            )
            situation = self._situation
        return {"prepare": situation.prepare, "live": situation.live, "wait_seconds": POLL_SECONDS}

    def workers(self) -> list[dict[str, Any]]:
        """Return all that is known of the workers, as JSON."""
        with self._changed:
            now = time.monotonic()
            return [self._described(worker, now) for worker in self._workers.values()]

    def _described(self, worker: Worker, now: float) -> dict[str, Any]:
        report = worker.report
        return {
            "name": worker.name,
            "release": report.release if report else None,
            "commit": report.commit if report else None,
            "queues": list(report.queues) if report else [],
            "slots": report.slots if report else None,
            "state": self._state_of(worker, now),
            "heard_seconds_ago": None if worker.heard is None else round(now - worker.heard, 1),
        }

    def _state_of(self, worker: Worker, now: float) -> str:
        if worker.report is None or not worker.is_heard(now):
            return "silent"
        if worker.admitted is False:
            return "fenced"
        is_behind = worker.report.commit is None or self._situation.has_news_for(worker.report)
        return "preparing" if is_behind else "live"

    def announce(self, commit: str) -> int:
        """Have all workers prepare a commit; return the number of this round, which `switched` ends."""
        with self._changed:
            self._round += 1
            self._situation = replace(self._situation, prepare=commit, left_behind=frozenset())
            self._changed.notify_all()
            return self._round

    def wait_for_workers(self, commit: str) -> list[str]:
        """Wait for workers that are heard; return the names of those that were fenced instead.

        Raises:
            GatewayError: one of them could not be fenced.
        """
        with self._changed:
            deadline = time.monotonic() + self._settings.worker_prepare_seconds
            while any(self._awaited(commit)) and (left := deadline - time.monotonic()) > 0:
                # A worker that falls silent meanwhile wakes nobody.
                self._changed.wait(min(left, _LOOK_SECONDS))
            late = [worker.name for worker in self._workers.values() if not worker.is_ready_for(commit)]
            self._situation = replace(self._situation, left_behind=frozenset(late))
        try:
            self._apply()
        except GatewayAbsentError as error:
            log.warning("%s: no worker is connected", error)
        return late

    def switched(self, number: int) -> None:
        """Have the workers follow to what is live now; whoever is not there in time is fenced."""
        self._look()
        with self._changed:
            if number == self._round:  # else the next sync has begun already
                self._situation = replace(self._situation, prepare=None, left_behind=frozenset())
            self._changed.notify_all()
        with self._changed:
            live = self._situation.live
            self._changed.wait_for(
                lambda: all(
                    worker.report is None or worker.report.prepared != live or worker.report.commit == live
                    for worker in self._workers.values()
                ),
                SWITCH_SECONDS,
            )
            self._due = True
            self._changed.notify_all()

    def _awaited(self, commit: str) -> Iterator[Worker]:
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.is_heard(now) and not worker.is_ready_for(commit):
                yield worker

    def _look(self, since: float | None = None) -> None:
        """See what is live, whoever switched the link, and `since` when: now, unless that is said."""
        since = time.monotonic() if since is None else since
        try:
            live = trees.commit_of(self._trees.live())
        except OSError:
            log.exception("the link %s cannot be read", self._trees.current)
            return
        with self._changed:
            if live != self._situation.live:
                self._situation = replace(self._situation, live=live, since=since)
                self._changed.notify_all()

    def _keep(self) -> None:
        while not self._ending:
            try:
                self._look()
                self._apply()
                self._say(None)
            except GatewayError as error:
                self._say(str(error))
            except Exception:
                # Whatever it is, workers are looked after for as long as this process lives.
                log.exception("the look at the workers broke off")
            with self._changed:
                self._changed.wait_for(lambda: self._due, _LOOK_SECONDS)
                self._due = False
        with self._changed:
            self._changed.notify_all()

    def _apply(self) -> None:
        """Make the gateway as it should be.

        Raises:
            GatewayAbsentError: it does not run, and lets nobody take tasks.
            GatewayError: it may let a worker take tasks that should not.
        """
        with self._applying:
            with self._changed:
                now = time.monotonic()
                for worker in self._workers.values():
                    worker.admitted = self._situation.may_take_tasks(worker, now, self._started)
                wanted = {worker.name: worker.admitted for worker in self._workers.values()}
            fenced = self._gateway.fenced()
            fence = [
                name for name, is_fenced in fenced.items() if wanted.get(name) is False and not is_fenced
            ]
            admit = [name for name, is_fenced in fenced.items() if wanted.get(name) is True and is_fenced]
            self._gateway.fence(fence)
            self._gateway.admit(admit)
        for names, what in ((fence, "is fenced: it takes no tasks"), (admit, "may take tasks")):
            for name in names:
                log.info("the worker %s %s", name, what)

    def _say(self, trouble: str | None) -> None:
        """Log what is wrong with the gateway, once."""
        if trouble is not None and trouble != self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble


class _Handler(socketserver.StreamRequestHandler):
    """Serves one sync, from its question until its connection ends: then the link is switched, or stays."""

    def handle(self) -> None:
        coordinator: Coordinator = self.server.coordinator  # type: ignore[attr-defined]
        commit = json.loads(self.rfile.readline())["prepare"]
        number = coordinator.announce(commit)
        try:
            try:
                answer: dict[str, Any] = {"fenced": coordinator.wait_for_workers(commit)}
            except GatewayError as error:
                answer = {"error": str(error)}
            self.wfile.write(json.dumps(answer).encode() + b"\n")
            self.rfile.read()
        except OSError as error:
            log.info("a sync left before its end: %s", error)
        finally:
            coordinator.switched(number)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    coordinator: Coordinator


def _server(path: Path, coordinator: Coordinator) -> _Server:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = _Server(str(path), _Handler)
    os.chmod(path, 0o600)
    server.coordinator = coordinator
    return server
