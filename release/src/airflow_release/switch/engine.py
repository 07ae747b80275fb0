"""Takes an operation from `switching` to its end (see `journal.py`), or sends it on the way back.

Until the rename in `start` the live database and files are untouched. From there to the confirmation the old
ones lie beside the new ones, and no DAG but the smoke test's runs; so the way back loses nothing.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_release.backup import backups
from airflow_release.core import records, services
from airflow_release.core.database import LIVE, NEXT, PREVIOUS, Database, kept_name
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import HAPROXY, POSTGRES, SCHEDULER, STANDBY, WEBSERVER, WORKER, Services
from airflow_release.switch import (
    drain,
    haproxy,
    next_database,
    pace,
    release_files,
    reserve,
    stack,
    standby,
    way_back,
)
from airflow_release.switch.journal import Journal, Operation
from airflow_release.switch.options import Options

ILL_SECONDS = 60
"""What was ill before a restore or rollback gets this long to be healthy, and keeps nothing waiting then."""


class Engine:
    """Takes one operation from `switching` to its end."""

    def __init__(self, host: Host, operation: Operation) -> None:
        """Work on this operation of that host."""
        self.host = host
        self.operation = operation
        self.options = Options.load(operation.options)
        self.journal = Journal(host)
        self.database = Database(host)

    def run(self) -> None:
        """Go forward, or back when a step fails or an earlier process did not finish.

        Raises:
            ReleaseError: the end cannot be reached now; calling it again tries once more.
        """
        # The way back ends them itself, once Compose can read the project.
        if self.operation.state in ("unconfirmed", "finishing"):
            self._end_leftovers()
        if self.operation.state == "switching" and not self.operation.done.get("begun"):
            self._forward()
        elif self.operation.state == "switching":
            self._interrupted()
        if self.operation.state == "unconfirmed":
            self._prove()
        if self.operation.state == "finishing":
            self._complete()
        if self.operation.state == "reverting":
            way_back.take(self.host, self.operation)

    def _forward(self) -> None:
        try:
            # It ends with a stack that runs, which is to be so after the next boot, too.
            stack.own(self.host)
        except ReleaseError as error:
            self.journal.warn(self.operation, str(error))
        self._remember(begun=True)
        try:
            for step in (self._drain, self._migrate, self._start):
                self._take(step)
        except Exception:  # whatever it was: the old release comes back, and the journal has the reason
            self._go_back()
        else:
            self.journal.move(self.operation, "unconfirmed")

    def _drain(self) -> str:
        """Keep the files that run, stop scheduling, and let tasks end."""
        reserve.put_aside(self.host)
        if self.operation.repairs:
            # Before anything is stopped. What Airflow needs has to be well in the end, also after a repair.
            self._remember(ill=sorted(set(stack.ill(self.host)) & set(self._left_services.dispensable)))
        if self._replaces:
            stack.ensure_database(self.host)
        if PREVIOUS in self.database.names():
            raise ReleaseError(
                f"There is a database {PREVIOUS} from an operation that did not finish. Look at it, "
                f"and rename or drop it: docker compose exec postgres dropdb --username=airflow {PREVIOUS}"
            )
        if "prepared" not in self.operation.done:
            # The rehearsed one is as large: it goes while everything is served and scheduled.
            self.database.drop(NEXT)
        old = records.current(self.host, self.database.revision_or_none(LIVE))
        release_files.install(self.host.directory, old.files(self.host))
        self._remember(saved=old.id, scheduling_stopped=time.time())
        return drain.drain(
            self.database,
            self._left_services,
            self.options.drain_timeout,
            terminate=self.options.on_drain_timeout == "terminate",
            replaced=self._replaces,
        )

    def _migrate(self) -> str:
        """Show the maintenance page, and make the next database from the one that now stands still."""
        self._remember(pages_closed=time.time())
        if HAPROXY in self.host.running():
            haproxy.use(self.host, None)
            # It serves nobody any more, and its own way to end takes seconds in which there is no page.
            haproxy.wait_until_idle(self.host, haproxy.LIVE, seconds=5)
        stack.stop(self.host, WEBSERVER, seconds=0)
        next_database.set_password(self.database, self.host.next)
        if "prepared" in self.operation.done:
            if self._live_is_there():
                self.database.close(LIVE)
        else:
            self._make_next()
        self.operation.paused = next_database.pause(self.database)
        self.journal.save(self.operation)
        return f"{len(self.operation.paused)} DAGs paused until confirmed"

    def _make_next(self) -> None:
        source, size = self.operation.database, 0
        if source == "copy":
            size = self.database.size(LIVE)
            expected = pace.copy_seconds(self.host, size)
            about = f", about {expected:.0f} s" if expected else ""
            self.journal.say(self.operation, f"copying {size / 2**20:.0f} MiB{about}")
        began = time.time()
        next_database.make(self.database, source)
        if size:
            pace.remember(self.host, size, time.time() - began)
        next_database.migrate(self.host, source, self.options.accept_undecryptable)

    def _start(self) -> str:
        # Nobody may be connected while a database gets its name, not even what somebody has started again.
        next_database.point(self.host, "nowhere")
        stack.stop(self.host, *self._left_services.users(POSTGRES, optional=False), seconds=0)
        self._remember(renaming=True, lost=not self._live_is_there())
        self.database.rename(*([(LIVE, PREVIOUS)] if self._live_is_there() else []), (NEXT, LIVE))
        next_database.point(self.host, LIVE)
        changed = release_files.install(self.host.next, self.host.directory)
        if HAPROXY in self.host.running():
            self._renew_haproxy(changed)
        # From here on somebody may write to the new database.
        self._remember(served=True)
        # With a standby webserver people have their pages: what the smoke test needs comes before the rest.
        ready = STANDBY in self.host.running() and HAPROXY in self.host.running()
        if ready:
            haproxy.use(self.host, haproxy.STANDBY)
            self._remember(pages_open=time.time())
        first = services.read(self.host).of_role(SCHEDULER, WORKER) if ready else self._well()
        stack.start(self.host, *first, seconds=self.options.start_timeout)
        if not ready:
            haproxy.use(self.host, haproxy.LIVE)
            self._remember(pages_open=time.time())
        return f"changed: {', '.join(sorted(changed))}" if changed else "no file changed"

    def _renew_haproxy(self, changed: set[str]) -> None:
        """Have HAProxy as the next release has it, before it is to reach that release's webserver."""
        if "docker-compose.yaml" in changed:
            # Its networks may be others. It stays if its own definition is the same.
            stack.start(self.host, HAPROXY, seconds=self.options.start_timeout, dependencies=False)
        if any(name.startswith("haproxy/") for name in changed):
            haproxy.reload(self.host)

    def _prove(self) -> None:
        """Start the rest, while the control node's smoke test runs its DAG, and wait for its word."""
        try:
            for step in (self._serve, self._verify, self._smoke):
                self._take(step)
        except Exception:  # as on the way here
            self._go_back()
        else:
            self.journal.move(self.operation, "finishing")

    def _serve(self) -> str:
        """Have everything healthy, and let Airflow's port lead to the webserver that stays."""
        stack.start(self.host, *self._well(), seconds=self.options.start_timeout)
        haproxy.use(self.host, haproxy.LIVE)
        if ill := self._ill():
            stack.try_to_start(self.host, *ill, seconds=ILL_SECONDS)
        standby.remove(self.host)
        left = records.load(self.host, self.operation.done["saved"])
        try:
            stack.remove_others(self.host, left.files(self.host))
        except ReleaseError as error:
            self.journal.warn(self.operation, f"what only the old release had is not removed: {error}")
        return "all ports lead to the new release"

    def _verify(self) -> str:
        """Check that all is healthy but what was ill before the repair; warn of what still is."""
        ill_before = self._ill()
        stack.verify(self.host, self.operation.to_version, self.options.start_timeout, ignore=ill_before)
        ill = {name: text for name, text in stack.ill(self.host).items() if name in ill_before}
        self._remember(still_ill=sorted(ill))
        for text in ill.values():
            self.journal.warn(self.operation, f"{text}, as it was before the {self.operation.kind}")
        but = f" but {', '.join(ill)}," if ill else ""
        return f"everything healthy{but} and on {self.operation.to_version}"

    def _smoke(self) -> str:
        """Wait for the control node's word; without one the old release comes back."""
        verdict = self.host.releases / "verdict.json"
        # From here on: nobody can judge what is not all there. And once, however often the host restarts.
        self._remember(
            confirm_by=self.operation.done.get("confirm_by", time.time() + self.options.confirm_timeout)
        )
        while not (word := self._word(verdict)):
            if time.time() > self.operation.done["confirm_by"]:
                raise ReleaseError(
                    f"Nobody confirmed the new release within {self.options.confirm_timeout:.0f} s."
                )
            time.sleep(0.2)  # a file that another process writes
        if not word["confirmed"]:
            raise ReleaseError(word["message"], word["log"])
        return "confirmed"

    def _word(self, verdict: Path) -> dict[str, Any]:
        """Return what was said of this operation, {} as long as nothing was."""
        if not verdict.exists():
            return {}
        word: dict[str, Any] = json.loads(verdict.read_text())
        return word if word["operation"] == self.operation.id else {}

    def _complete(self) -> None:
        """Let the schedule go on, and only then back up what was left: that takes as long as it takes."""
        reserve.give_back(self.host)
        # A shutdown stopped everything, and during an operation nobody else starts it at boot.
        if missing := stack.missing(self.host):
            for problem in stack.resume(self.host, missing):
                self.journal.warn(self.operation, problem)
        self._take(self._finish)
        if PREVIOUS in self.database.names() or "kept" in self.operation.done:
            self._take(self._backup)
        self._end("succeeded")

    def _finish(self) -> str:
        """Unpause what was paused, once, and record what runs."""
        if "scheduling_resumed" not in self.operation.done:
            next_database.unpause(self.database, self.operation.paused)
            self._remember(scheduling_resumed=time.time())
        running = records.new(self.host, self.host.directory, self.database.revision(LIVE))
        if records.current(self.host, "").id == self.operation.done["saved"]:
            records.save(self.host, running)
            records.make_current(self.host, running)
        return "the schedule continues"

    def _backup(self) -> str:
        """Keep the old database as it was when it was left: as a bundle or, failing that, by its name."""
        left = records.load(self.host, self.operation.done["saved"])
        if "kept" not in self.operation.done:
            try:
                left.bundle = str(self._bundle_of(left))
            except Exception as error:  # whatever it was: the release is confirmed, and nothing is lost
                self._remember(kept=kept_name(time.time()), kept_because=str(error))
            else:
                left.kept = ""  # that of an earlier time has older data
                records.save(self.host, left)
                self.database.drop(PREVIOUS)
                return Path(left.bundle).name
        left.kept = self.operation.done["kept"]
        records.save(self.host, left)
        if PREVIOUS in self.database.names():
            self.database.rename((PREVIOUS, left.kept))
        note = (
            f"the old database could not be backed up, and stays as {left.kept}: "
            f"{self.operation.done['kept_because']}"
        )
        self.journal.warn(self.operation, note)
        return note

    def _bundle_of(self, left: records.Release) -> Path:
        self.database.open(PREVIOUS)
        reason, files = f"before {self.operation.id}", left.files(self.host)
        return backups.take(self.host, database=PREVIOUS, reason=reason, files=files)

    @functools.cached_property
    def _left_services(self) -> Services:
        """Return the services of the release that is left. They are read before its files are replaced."""
        return services.read(self.host)

    def _ill(self) -> list[str]:
        """Return the services that were ill before a repair, and need not be well after it."""
        before = self.operation.done.get("ill", [])
        return [name for name in before if name in services.read(self.host).wanted] if before else []

    def _well(self) -> list[str]:
        """Return the services to wait for; [] stands for all."""
        ill = self._ill()
        return [name for name in services.read(self.host).wanted if name not in ill] if ill else []

    def _live_is_there(self) -> bool:
        """Say whether there is a live database; a restore may be the remedy for its loss."""
        return LIVE in self.database.names()

    @property
    def _replaces(self) -> bool:
        """Say whether the live database's data are replaced by others, so that they may be damaged."""
        return self.operation.database != "copy"

    def _interrupted(self) -> None:
        reserve.give_back(self.host)
        message = "The switch was interrupted, by a reboot or a kill of its process."
        self.journal.fail(self.operation, "interrupted", message)
        self._go_back()

    def _go_back(self) -> None:
        # First, since the journal may be on the disk that is full.
        reserve.give_back(self.host)
        self.journal.move(self.operation, "reverting")

    def _end_leftovers(self) -> None:
        """End what an earlier process of this operation still has Postgres do: it would come in between."""
        if POSTGRES in self.host.running():
            self.database.end_leftovers()

    def _take(self, step: Callable[[], str]) -> None:
        """Take one step as a phase of the journal."""
        with self.journal.phase(self.operation, step.__name__.strip("_")) as phase:
            phase.note = step()

    def _remember(self, **facts: object) -> None:
        self.operation.done.update(facts)
        self.journal.save(self.operation)

    def _end(self, state: str) -> None:
        (self.host.releases / "verdict.json").unlink(missing_ok=True)
        self.journal.move(self.operation, state)
