"""The one reconcile step that every trigger leads to: make the branch's head, or the pinned commit, live.

Prepare, then switch: fetch, check the listing, check out, check the links, ask the gate; then one rename.
Whatever fails or is refused on the way, what was live stays live. Killed at any point, the next sync goes on
from what is on disk.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from webhook import gate, lock, state, trees, two_phases
from webhook.gateway import GatewayError
from webhook.git import GitError
from webhook.mirror import BranchMissingError, Mirror, RemoteError, UnknownCommitError, is_commit_id
from webhook.report import Reporter
from webhook.settings import RepositorySettings, Settings
from webhook.state import ForcedPush, Reason, State, SyncRecord
from webhook.trees import DiskFullError, Trees

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # between looks at whether a pin is through


class Outcome(StrEnum):
    """How a sync ended."""

    SWITCHED = "switched"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """What a sync did. `commit` is the one it was about; which one is live, `current` says."""

    outcome: Outcome
    detail: str
    commit: str | None = None
    reasons: tuple[Reason, ...] = ()


class NoRepositoryError(Exception):
    """This host takes its DAGs from elsewhere, such as a mounted working copy."""


class OvertakenError(Exception):
    """A pin waits: what would keep it waiting was ended for it."""


_EXPECTED = (
    BranchMissingError,
    RemoteError,
    GitError,
    UnknownCommitError,
    gate.GateUnavailableError,
    GatewayError,
    state.StateError,
    OSError,
)


class Syncer:
    """Runs syncs for one host's settings. Every call takes the lock; none keeps anything between calls."""

    def __init__(self, settings: Settings) -> None:
        """Raise NoRepositoryError where there is nothing to sync from."""
        if settings.repository is None:
            raise NoRepositoryError("no repository is configured: DAG_REPOSITORY is not set")
        self._settings = settings
        self._repository: RepositorySettings = settings.repository
        self._state_path = settings.state_dir / "state.json"
        self._mirror_path = settings.state_dir / "mirror.git"
        # Locked by a pin until its end: by one that needs no fetch, and by one that needs no gate.
        self._pin_lock = settings.state_dir / "pin.lock"
        self._gateless_pin_lock = settings.state_dir / "pin-no-gate.lock"
        self._reporter = Reporter(settings)

    def sync(self, trigger: str) -> Result:
        """Make live what should be; the result is also in the state file and on the status page."""
        while True:
            try:
                return self._locked(trigger, lambda run: run.reconcile())
            except OvertakenError:
                log.info("sync (%s): ended for a pin, and begun again after it", trigger)
                while lock.is_held(self._pin_lock) or lock.is_held(self._gateless_pin_lock):
                    time.sleep(_POLL_SECONDS)

    def pin(self, digits: str, with_gate: bool = True) -> Result:
        """Make one commit live and keep it so, whatever is pushed, until `unpin`.

        What the mirror has needs no remote, and does not wait for a fetch that is under way. Without the gate
        even a commit goes live that it would refuse: for the case that the gate itself is broken. That does
        not wait for the gate's answer to somebody else either.
        """
        if not is_commit_id(digits):
            return Result(Outcome.FAILED, f"{digits!r} is not a commit id: 4 to 40 of the digits 0-9 a-f")

        def work(run: _Run) -> Result:
            return run.pin(digits, with_gate)

        patience = self._settings.lock_timeout
        try:
            with contextlib.ExitStack() as waiting:
                needs_no_fetch = self._has(digits)
                if not with_gate:
                    waiting.enter_context(lock.exclusive(self._gateless_pin_lock, patience))
                if needs_no_fetch:
                    waiting.enter_context(lock.exclusive(self._pin_lock, patience))
                return self._locked("pin", work, goes_first=needs_no_fetch)
        except (lock.LockTimeoutError, OvertakenError) as error:
            return Result(Outcome.FAILED, str(error))

    def unpin(self) -> Result:
        """Follow the branch again."""
        try:
            return self._locked("unpin", lambda run: run.unpin())
        except OvertakenError as error:
            return Result(Outcome.FAILED, str(error))

    def _has(self, digits: str) -> bool:
        """Say whether the mirror has a commit, without waiting for anybody."""
        try:
            Mirror(self._mirror_path, self._repository, None).resolve(digits)
        except UnknownCommitError:
            return False
        return True

    def _locked(self, trigger: str, work: "Callable[[_Run], Result]", goes_first: bool = False) -> Result:
        """Raise OvertakenError where another one goes first; then no sync was recorded."""
        started = time.time()
        try:
            with lock.exclusive(
                self._settings.state_dir / "sync.lock", self._settings.lock_timeout
            ) as descriptor:
                while_fetching = partial(_go_on, descriptor, None if goes_first else self._pin_lock)
                while_checking = partial(_go_on, descriptor, self._gateless_pin_lock)
                mirror = Mirror(self._mirror_path, self._repository, descriptor, while_fetching)
                return self._recorded(trigger, started, mirror, while_checking, work)
        except lock.LockTimeoutError as error:
            return Result(Outcome.FAILED, str(error))

    def _recorded(
        self,
        trigger: str,
        started: float,
        mirror: Mirror,
        while_checking: Callable[[], None],
        work: "Callable[[_Run], Result]",
    ) -> Result:
        try:
            current = state.load(self._state_path)
            run = _Run(self._settings, current, mirror, Trees(self._settings.trees_dir), while_checking)
        except _EXPECTED as error:
            return Result(Outcome.FAILED, str(error))
        try:
            result = work(run)
        except OvertakenError:
            with contextlib.suppress(OSError):
                state.save(self._state_path, current)  # what was fetched, such as a forced push
            raise
        except _EXPECTED as error:
            result = Result(Outcome.FAILED, str(error), run.target)
        except Exception as error:
            # A defect. It is on the status page as a failed sync is, and what is live stays live.
            log.exception("the sync broke off")
            result = Result(Outcome.FAILED, f"{type(error).__name__}: {error}", run.target)
        result = replace(result, detail=trees.encodable(result.detail))
        log.info("sync (%s): %s: %s", trigger, result.outcome, result.detail)
        seconds = round(time.time() - started, 3)
        current.last_sync = SyncRecord(started, trigger, result.outcome, result.detail, seconds)
        if result.outcome is not Outcome.FAILED:
            current.last_success = started
        try:
            run.describe_live()
            state.save(self._state_path, current)
            self._reporter.report(current, result.outcome, result.commit, result.detail)
            run.prune()
            state.save(self._state_path, current)
        except _EXPECTED as error:
            log.exception("after the sync")
            return Result(Outcome.FAILED, f"{result.detail}; then: {error}", result.commit)
        return result


def _go_on(descriptor: int, pin_lock: Path | None) -> None:
    """Have others wait on for a sync, whose lock this is; but a pin that has locked its own file goes first.

    Raises:
        OvertakenError
    """
    lock.show_progress(descriptor)
    if pin_lock is not None and lock.is_held(pin_lock):
        raise OvertakenError("a pin came first: try again")


class _Run:
    """One sync, with the lock held."""

    def __init__(
        self,
        settings: Settings,
        current: State,
        mirror: Mirror,
        folder: Trees,
        while_checking: Callable[[], None],
    ) -> None:
        self._while_checking = while_checking
        self._settings = settings
        self._state = current
        self._mirror = mirror
        self._trees = folder
        self.target: str | None = None

    def reconcile(self) -> Result:
        self._make_ready()
        try:
            self._fetch()
        except RemoteError as error:
            # A commit may have been fetched and not made live, or the live tree may be damaged.
            if (commit := self._state.pin or self._mirror.head()) is None:
                raise
            result = self._make_live(commit)
            if result.outcome is Outcome.UNCHANGED:
                raise
            return replace(result, outcome=Outcome.FAILED, detail=f"{result.detail}, but {error}")
        return self._make_live(self._state.pin or self._head())

    def pin(self, digits: str, with_gate: bool) -> Result:
        self._make_ready()
        try:
            commit = self._mirror.resolve(digits)
        except UnknownCommitError as unknown:
            try:
                self._fetch()
            except (BranchMissingError, RemoteError) as error:
                raise UnknownCommitError(f"{unknown}, and {error}") from None
            commit = self._mirror.resolve(digits)
        result = self._make_live(commit, with_gate)
        if result.outcome in (Outcome.SWITCHED, Outcome.UNCHANGED):
            self._state.pin = commit
        return result

    def unpin(self) -> Result:
        self._state.pin = None
        return self.reconcile()

    def describe_live(self) -> None:
        """Bring what the state says about the live commit in line with the link, wherever a killed sync left
        it.
        """
        live = trees.commit_of(self._trees.live())
        known = self._state.live.id if self._state.live else None
        if live is not None and live != known:
            self._state.live = self._mirror.describe(live)
            self._state.live_since = time.time()
        if live is not None:
            self._state.accept(live)
            self._state.infrastructure_changed = self._infrastructure_changed(live)

    def prune(self) -> None:
        self._trees.remove_unused(self._settings, self._state.retired, time.time())
        if self._mirror.directory.is_dir():
            self._mirror.tidy()

    def _head(self) -> str:
        head = self._mirror.head()
        if head is None:
            raise RemoteError("the mirror has no head")
        return head

    def _make_ready(self) -> None:
        self._trees.remove_leftovers()
        self._mirror.make_ready()

    def _fetch(self) -> None:
        fetched = self._mirror.fetch()
        if self._state.head is None or self._state.head.id != fetched.head:
            self._state.head = self._mirror.describe(fetched.head)
        if fetched.forced_from is not None:
            self._state.forced_push = ForcedPush(time.time(), fetched.forced_from, fetched.head)

    def _make_live(self, commit: str, with_gate: bool = True) -> Result:
        self.target = commit
        live = self._trees.live()
        known = trees.commit_of(live)
        if live is not None and known is not None and not trees.is_intact(self._mirror.git(live), known):
            log.warning("the live tree %s is damaged, or the mirror is new: recreating the tree", live.name)
            live = None
        if live is not None and known == commit:
            return Result(Outcome.UNCHANGED, f"{commit[:12]} is live", commit)
        return self._trees.with_sound_mirror(
            self._mirror, lambda: self._prepare_and_switch(commit, live, with_gate)
        )

    def _prepare_and_switch(self, commit: str, live: Path | None, with_gate: bool) -> Result:
        entries = self._mirror.entries(commit)
        reasons = trees.reasons_before_checkout(
            entries, self._settings.dags_folder, self._settings.blob_limit
        )
        if reasons:
            return self._refuse(commit, reasons)
        kept = self._trees.find(self._mirror, commit)
        least_free = self._settings.disk_full_percent
        try:
            tree = kept or self._trees.build(self._mirror, commit, entries, least_free)
        except DiskFullError as error:
            advice = "free disk, for example by `systemctl start airflow-clean`, then run `dag-sync once`"
            raise DiskFullError(f"{error}: {advice}") from None
        reasons = trees.reasons_after_checkout(tree, entries, self._mirror.git(tree))
        if reasons:
            return self._refuse(commit, reasons)

        known = trees.commit_of(live)
        live_entries = self._mirror.entries(known) if known and self._mirror.has(known) else []
        refresh: set[str] = set()
        if with_gate:
            verdict = gate.check(
                self._settings.gate_socket,
                str(tree.relative_to(self._trees.directory)),
                self._settings.dags_folder,
                self._settings.requirements_file,
                self._settings.gate_timeout,
                self._while_checking,
            )
            if verdict.reasons:
                return self._refuse(commit, verdict.reasons)
            refresh = verdict.files_that_read(trees.changed_paths(entries, live_entries))
        trees.carry_times(tree, entries, live, live_entries, refresh)
        if kept is None:
            tree = self._trees.finish(self._mirror, tree, commit)
        with two_phases.all_ready(self._settings, commit):
            self._trees.switch(tree)
        return Result(Outcome.SWITCHED, f"{commit[:12]} is live", commit)

    def _refuse(self, commit: str, reasons: list[Reason]) -> Result:
        reasons = [
            Reason(reason.kind, trees.printable(reason.path), trees.encodable(reason.message))
            for reason in reasons
        ]
        self._state.refuse(self._mirror.describe(commit), reasons, time.time())
        self._trees.remove_leftovers()
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return Result(
            Outcome.REFUSED, f"{commit[:12]} is refused: {reasons[0]}{more}", commit, tuple(reasons)
        )

    def _infrastructure_changed(self, live: str) -> list[str]:
        """List what a converge would apply: paths outside the DAGs that changed since the last one."""
        path = self._settings.converged_commit_file
        if path is None or not path.is_file():
            return []
        converged = path.read_text().strip()
        return self._mirror.changed_outside(self._settings.dags_folder, converged, live) if converged else []
