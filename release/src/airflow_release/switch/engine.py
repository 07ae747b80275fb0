"""The switch from one release to the next, and the way back: the only code that changes what runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from airflow_release.backup import backups
from airflow_release.core import records
from airflow_release.core.database import FAILED, LIVE, NEXT, PREVIOUS, Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.switch import drain, haproxy, next_database, release_files, stack
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options


class Switch:
    """Takes one operation from `switching` to its end.

    Until the rename in `start` the live database and files are untouched. From there to the confirmation
    the old ones lie beside the new ones, and no DAG but the smoke test's runs; so the way back loses nothing.
    """

    def __init__(self, host: Host, operation: Operation) -> None:
        """Work on this operation of that host."""
        self.host = host
        self.operation = operation
        self.options = Options.load(operation.options)
        self.journal = Journal(host)
        self.database = Database(host)

    def run(self) -> None:
        """Go forward, or back when a step fails or an earlier process did not get to its end.

        Raises:
            ReleaseError: the way back failed too; calling it again tries once more.
        """
        state = self.operation.state
        if state == "switching" and not self.operation.done.get("begun"):
            self._forward()
        elif state == "switching":
            self._interrupted()
        if self.operation.state == "unconfirmed":
            self._prove()
        if self.operation.state == "finishing":
            self._finish()
        if self.operation.state == "reverting":
            self._revert()

    def _forward(self) -> None:
        self._remember(begun=True)
        try:
            for step in (self._drain, self._migrate, self._start):
                self._take(step)
        except Exception:  # whatever it was: the old release comes back, and the journal has the reason
            self.journal.move(self.operation, "reverting")
            return
        self.journal.move(self.operation, "unconfirmed")

    def _drain(self) -> str:
        """Keep the files that run, stop scheduling, and let tasks end."""
        old = records.current(self.host, self.database.revision(LIVE))
        release_files.install(self.host.directory, old.files(self.host))
        self._remember(saved=old.id, scheduling_stopped=time.time())
        return drain.drain(
            self.database,
            self.options.drain_timeout,
            terminate=self.options.on_drain_timeout == "terminate",
        )

    def _migrate(self) -> str:
        """Shut the Airflow door, and make the next database from the one that now stands still."""
        self._remember(door_shut=time.time())
        haproxy.use(self.host, None)
        # It serves nobody any more, and its own way to end takes seconds in which there is no page.
        haproxy.wait_until_idle(self.host, haproxy.LIVE, seconds=5)
        stack.stop(self.host, stack.WEBSERVER, seconds=0)
        next_database.set_password(self.database, self.host.next)
        next_database.make(self.database, self.operation.database)
        next_database.migrate(self.host, self.operation.database)
        self.operation.paused = next_database.hold(self.database)
        self.journal.save(self.operation)
        return f"{len(self.operation.paused)} DAGs paused until confirmed"

    def _start(self) -> str:
        # Nobody can be connected while a database gets its name.
        next_database.point(self.host, "nowhere")
        self.database.rename((LIVE, PREVIOUS), (NEXT, LIVE))
        next_database.point(self.host, LIVE)
        changed = release_files.install(self.host.next, self.host.directory)
        if any(name.startswith("haproxy/") for name in changed):
            haproxy.reload(self.host)
        # With a standby webserver people have their pages: what tasks need comes first, the rest in `serve`.
        standby = stack.STANDBY in self._running()
        haproxy.use(self.host, haproxy.STANDBY if standby else None)
        if standby:
            self._remember(door_open=time.time())
        stack.start(
            self.host,
            *(stack.SCHEDULING if standby else ()),
            seconds=self.options.start_timeout,
        )
        if not standby:
            haproxy.use(self.host, haproxy.LIVE)
            self._remember(door_open=time.time())
        return f"changed: {', '.join(sorted(changed))}" if changed else "no file changed"

    def _serve(self) -> str:
        """Have everything healthy, and let the Airflow door lead to the webserver that stays."""
        stack.start(self.host, seconds=self.options.start_timeout)
        haproxy.use(self.host, haproxy.LIVE)
        self._remove_standby()
        return "all doors lead to the new release"

    def _backup(self) -> str:
        """Keep the old database, exactly as it was when it was left, as a bundle."""
        stack.launch(self.host)  # the rest boots meanwhile; `serve` waits for it
        bundle = backups.take(
            self.host, database=PREVIOUS, reason=f"before {self.operation.id}", files=self._old_files()
        )
        self._remember(bundle=str(bundle))
        return bundle.name

    def _verify(self) -> str:
        stack.verify(self.host, self.operation.to_version, self.options.start_timeout)
        return f"everything healthy and on {self.operation.to_version}"

    def _prove(self) -> None:
        """Start the rest and keep the old database, while the control node's smoke test runs its DAG.

        Scheduling waits for the longer of the two, not for both.
        """
        try:
            if "bundle" not in self.operation.done:
                self._take(self._backup)
            self._take(self._serve)
            self._take(self._verify)
            self._take(self._smoke)
        except Exception:  # as on the way here
            self.journal.move(self.operation, "reverting")
        else:
            self.journal.move(self.operation, "finishing")

    def _smoke(self) -> str:
        """Wait for the control node's word; without one the old release comes back."""
        verdict = self.host.releases / "verdict.json"
        seconds = self.options.confirm_timeout
        # From here on: nobody can judge what is not all there. And once, however often the host restarts.
        self._remember(confirm_by=self.operation.done.get("confirm_by", time.time() + seconds))
        while not verdict.exists():
            if time.time() > self.operation.done["confirm_by"]:
                raise ReleaseError(f"Nobody confirmed the new release within {seconds} s.")
            time.sleep(0.2)  # a file that another process writes
        word = json.loads(verdict.read_text())
        if not word["confirmed"]:
            raise ReleaseError(word["message"], word["log"])
        return "confirmed"

    def _finish(self) -> None:
        with self.journal.phase(self.operation, "finish"):
            next_database.release(self.database, self.operation.paused)
            self._remember(scheduling_resumed=self.operation.done.get("scheduling_resumed", time.time()))
            running = records.new(self.host, self.host.directory, self.database.revision(LIVE))
            left = records.load(self.host, self.operation.done["saved"])
            left.bundle = self.operation.done["bundle"]
            records.save(self.host, left)
            if records.current(self.host, "").id == left.id:
                records.save(self.host, running)
                records.make_current(self.host, running)
            self.database.drop(PREVIOUS)
        self._end("succeeded")

    def _revert(self) -> None:
        """Put the old files, database and containers back; it can be done again."""
        with self.journal.phase(self.operation, "revert") as phase:
            # A switch that was still draining has stopped the scheduler only, and workers may be at work.
            if "door_shut" in self.operation.done:
                if "haproxy" in self._running():
                    haproxy.use(self.host, None)
                stack.stop(self.host, *stack.CLIENTS, seconds=10)
            changed: set[str] = set()
            if saved := self.operation.done.get("saved"):
                changed = release_files.install(
                    records.load(self.host, saved).files(self.host), self.host.directory
                )
            stack.start(self.host, "postgres", seconds=120)
            self._take_back_database()
            next_database.set_password(self.database, self.host.directory)
            stack.start(self.host, seconds=self.options.start_timeout)
            if any(name.startswith("haproxy/") for name in changed):
                haproxy.reload(self.host)
            haproxy.use(self.host, haproxy.LIVE)
            self._remove_standby()
            stack.verify(self.host, self.operation.from_version, self.options.start_timeout)
            phase.note = f"Airflow {self.operation.from_version} runs as before"
        self._end("reverted")

    def _take_back_database(self) -> None:
        """Give the old database its name back; the new one is kept for a look as `airflow_failed`."""
        names = self.database.names()
        if PREVIOUS in names:
            self.database.drop(FAILED)
            failed = [(LIVE, FAILED)] if LIVE in names else []
            self.database.rename(*failed, (PREVIOUS, LIVE))
        elif NEXT in names:
            self.database.drop(FAILED)
            self.database.rename((NEXT, FAILED))

    def _remove_standby(self) -> None:
        if stack.STANDBY in self._running():
            haproxy.wait_until_idle(self.host, haproxy.STANDBY, seconds=5)
            stack.stop(self.host, stack.STANDBY, seconds=0)
        self.host.compose(
            "--profile=switch", "rm", "--force", stack.STANDBY, doing="removing the standby webserver"
        )

    def _old_files(self) -> Path:
        return records.load(self.host, self.operation.done["saved"]).files(self.host)

    def _running(self) -> set[str]:
        return set(self.host.running())

    def _interrupted(self) -> None:
        message = "The switch was interrupted, by a reboot or a kill of its process."
        self.journal.fail(self.operation, "interrupted", message)
        self.journal.move(self.operation, "reverting")

    def _take(self, step: Callable[[], str]) -> None:
        """Take one step as a phase of the journal."""
        with self.journal.phase(self.operation, step.__name__.removeprefix("_")) as phase:
            phase.note = step()

    def _remember(self, **facts: object) -> None:
        self.operation.done.update(facts)
        self.journal.save(self.operation)

    def _end(self, state: str) -> None:
        (self.host.releases / "verdict.json").unlink(missing_ok=True)
        self.journal.move(self.operation, state)


def prepare(host: Host, operation: Operation) -> None:
    """Rehearse: a fresh backup, restored beside the live database, migrated and served by the new webserver.

    Raises:
        ReleaseError: a step failed. What runs was not touched.
    """
    database, journal = Database(host), Journal(host)
    with journal.phase(operation, "rehearse") as phase:
        bundle = backups.take(host, reason=f"rehearsal of {operation.id}")
        next_database.make(database, f"bundle:{bundle}")
        began = time.time()
        next_database.migrate(host, "bundle")
        migrated = time.time() - began
        stack.start(
            host,
            stack.STANDBY,
            seconds=Options.load(operation.options).start_timeout,
            project=host.next,
            dependencies=False,
        )
        phase.note = f"migrating took {migrated:.1f} s, and the new webserver serves the result"


def clean_up(host: Host) -> None:
    """Remove what a rehearsal left: the standby webserver and its database."""
    host.compose(
        "--profile=switch", "rm", "--stop", "--force", stack.STANDBY, doing="removing the standby webserver"
    )
    Database(host).drop(NEXT)
