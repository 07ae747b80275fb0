"""`python -m webhook.follower`: on a worker host, has the DAG commit of the main host.

It reports what it has and does what the answer says: prepare a commit, or switch to one. Nothing that it
missed matters, since each answer says all. What is prepared and live is on the disk; killed at any point, it
goes on from there.
"""

import argparse
import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from webhook import lock, state, trees
from webhook.coordinator import PATH, POLL_SECONDS
from webhook.git import GitError
from webhook.mirror import BranchMissingError, Mirror, RemoteError
from webhook.settings import FollowerSettings, SettingsError, follower_from_environment
from webhook.state import State, StateError
from webhook.trees import DiskFullError, Trees

log = logging.getLogger("webhook.follower")

CONNECT_SECONDS = 5
SLACK_SECONDS = 5  # beyond `wait_seconds` until an answer has come
LONGEST_WAIT_SECONDS = 60
"""The most that an answer's `wait_seconds` may say."""
# Until the coordinator is asked again that did not answer, for the first time and at most: below the 15 s
# after which it calls a worker silent.
ASK_AGAIN_SECONDS = (0.1, 2.0)
# Until work that failed is tried again, unless other work is wanted; reports go on meanwhile.
TRY_AGAIN_SECONDS = (1.0, 60.0)
REPORT_SECONDS = 2.0  # between reports then, and while work goes on
INSPECT_SECONDS = 300  # between looks at the live tree's files, and at trees to remove
FRESH_SECONDS = 60  # for which `check` trusts that the live commit is followed

_COMMIT = re.compile(r"[0-9a-f]{40}")
_EXPECTED = (RemoteError, BranchMissingError, GitError, OSError)


class CoordinatorError(Exception):
    """The coordinator did not answer, or not as it should."""


@dataclass(frozen=True)
class Answer:
    """What the main host wants of a worker: a commit to prepare, one to run, None for nothing."""

    prepare: str | None
    live: str | None
    wait_seconds: float


def answer_in(body: bytes) -> Answer:
    """Read an answer.

    Raises:
        CoordinatorError: it has another form.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CoordinatorError("the answer is no JSON object")
    for name in ("prepare", "live"):
        value = content.get(name)
        # It becomes an argument of git and a file's name.
        if value is not None and not (isinstance(value, str) and _COMMIT.fullmatch(value)):
            raise CoordinatorError(f"{name} is no commit's id")
    wait = content.get("wait_seconds")
    if not isinstance(wait, int | float) or isinstance(wait, bool) or not 0 <= wait <= LONGEST_WAIT_SECONDS:
        raise CoordinatorError(f"wait_seconds is no number from 0 to {LONGEST_WAIT_SECONDS}")
    return Answer(content.get("prepare"), content.get("live"), wait)


class MainHost:
    """The main host's coordinator, on a connection that is kept."""

    def __init__(self, settings: FollowerSettings) -> None:
        """Connect to nothing yet."""
        self._url = settings.coordinator + PATH
        self._about = {
            "release": settings.release,
            "queues": list(settings.queues),
            "slots": settings.slots,
        }
        # A proxy of the environment does not lead to the tunnel.
        self._client = httpx.Client(trust_env=False)
        self._wait: float = POLL_SECONDS

    def report(self, commit: str | None, prepared: str | None) -> Answer:
        """Say what this host has, and return what is wanted, as soon as that is something else.

        Raises:
            CoordinatorError
        """
        report: dict[str, Any] = {"commit": commit, "prepared": prepared, **self._about}
        timeout = httpx.Timeout(CONNECT_SECONDS, read=self._wait + SLACK_SECONDS)
        try:
            response = self._client.post(self._url, json=report, timeout=timeout)
        except httpx.HTTPError as error:
            raise CoordinatorError(f"{type(error).__name__}: {error}") from None
        if response.status_code != httpx.codes.OK:
            raise CoordinatorError(f"HTTP {response.status_code}: {response.text[:200]}")
        answer = answer_in(response.content)
        self._wait = answer.wait_seconds
        return answer


class Follower:
    """One worker host's DAGs. Only one works at a time: whoever makes it has the lock."""

    def __init__(
        self,
        settings: FollowerSettings,
        report: Callable[[str | None, str | None], Answer],
        lock_descriptor: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Do nothing yet; `report` asks the coordinator, git's processes inherit the lock."""
        self._settings = settings
        self._delivery = settings.delivery
        self._report = report
        self._lock = lock_descriptor
        self._clock = clock
        self._sleep = sleep
        self._trees = Trees(self._delivery.trees_dir)
        self._ready: tuple[str, Path] | None = None
        self._failed: Answer | None = None  # what was wanted when work failed last
        self._try_again_at = 0.0
        self._pause = 0.0
        self._ask_again = 0.0
        self._inspect_at = 0.0
        self._trouble: str | None = None

    def step(self) -> None:
        """Report once and do what the answer says. Whatever goes wrong is in the log and tried again."""
        if self._clock() >= self._inspect_at:
            self._inspect()
        try:
            answer = self._report(self._live(), self._ready[0] if self._ready else None)
        except CoordinatorError as error:
            self._say(f"the main host does not answer: {error}")
            first, longest = ASK_AGAIN_SECONDS
            self._ask_again = min(max(first, 2 * self._ask_again), longest)
            self._sleep(self._ask_again)
            return
        self._ask_again = 0.0
        self._follow(answer)

    def _follow(self, answer: Answer) -> None:
        left = self._try_again_at - self._clock()
        if answer == self._failed and left > 0:
            self._sleep(min(REPORT_SECONDS, left))
            return
        try:
            self._work(answer)
        except _EXPECTED as error:
            first, longest = TRY_AGAIN_SECONDS
            self._pause = min(max(first, 2 * self._pause), longest) if answer == self._failed else first
            self._failed, self._try_again_at = answer, self._clock() + self._pause
            self._say(_words(error))
            self._inspect_at = 0.0  # which frees what it can
            return
        self._failed = None
        self._say(None)
        if answer.live is not None:
            self._heard.touch()

    def _work(self, answer: Answer) -> None:
        live, prepare = answer.live, answer.prepare
        # What is ready goes live at once, whatever there is to prepare.
        if live is not None and live != self._live() and self._is_ready(live):
            self._switch()
        elif prepare is not None and prepare != self._live() and not self._is_ready(prepare):
            self._make_ready(prepare)
        elif live is not None and live != self._live():
            self._make_ready(live)
            self._switch()

    def _live(self) -> str | None:
        return trees.commit_of(self._trees.live())

    def _is_ready(self, commit: str) -> bool:
        return self._ready is not None and self._ready[0] == commit

    def _switch(self) -> None:
        """Make live what is ready."""
        if self._ready is None:
            raise AssertionError("nothing is ready")
        commit, tree = self._ready
        self._trees.switch(tree)
        log.info("%s is live", commit[:12])
        self._inspect_at = min(self._inspect_at, self._clock() + REPORT_SECONDS)  # the old tree retires

    def _make_ready(self, commit: str) -> None:
        started = self._clock()
        with self._reporting():
            self._trees.remove_leftovers()
            mirror = self._mirror(commit)
            mirror.make_ready()
            if not mirror.directory.is_dir() or not mirror.has(commit):
                mirror.fetch()
            tree = self._trees.with_sound_mirror(mirror, lambda: self._checked_out(mirror, commit))
        self._ready = (commit, tree)
        log.info("%s is prepared, in %.1f s", commit[:12], self._clock() - started)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Go on to report, from a thread: a first clone takes minutes, and who reports nothing is silent."""
        has = (self._live(), self._ready[0] if self._ready else None)
        done = threading.Event()

        def report() -> None:
            while not done.wait(REPORT_SECONDS):
                with contextlib.suppress(CoordinatorError):
                    self._report(*has)

        reporter = threading.Thread(target=report, name="reporter", daemon=True)
        reporter.start()
        try:
            yield
        finally:
            done.set()
        # Its last report ends at once, unless the main host wants nothing else than what is here.
        reporter.join()

    def _mirror(self, commit: str | None = None) -> Mirror:
        directory = self._delivery.state_dir / "mirror.git"
        return Mirror(directory, self._settings.repository, self._lock, commit=commit)

    def _checked_out(self, mirror: Mirror, commit: str) -> Path:
        entries = mirror.entries(commit)
        kept = self._trees.find(mirror, commit)
        if kept is not None:
            return kept
        tree = self._trees.build(mirror, commit, entries, self._delivery.disk_full_percent)
        if not trees.is_intact(mirror.git(tree), commit):
            raise OSError(f"{tree} is not as it was committed")
        return self._trees.finish(mirror, tree, commit)

    def _inspect(self) -> None:
        """Mend the live tree, and remove what no task can be reading any more."""
        self._inspect_at = self._clock() + INSPECT_SECONDS
        try:
            mirror = self._mirror()
            live = self._trees.live()
            commit = trees.commit_of(live)
            if live is not None and commit is not None and not trees.is_intact(mirror.git(live), commit):
                log.warning("the live tree %s is damaged: recreating it", live.name)
                self._ready = None
                self._make_ready(commit)
                self._switch()
            current = self._state()
            self._trees.remove_unused(self._delivery, current.retired, time.time())
            state.save(self._state_path, current)
            if mirror.directory.is_dir():
                mirror.tidy()
        except _EXPECTED as error:
            self._say(_words(error))

    @property
    def _state_path(self) -> Path:
        return self._delivery.state_dir / "follower.json"

    @property
    def _heard(self) -> Path:
        return followed_file(self._settings)

    def _state(self) -> State:
        """Return when trees retired. If that is lost, all of them retire now, and stay for longer."""
        try:
            return state.load(self._state_path)
        except StateError as error:
            log.warning("%s", error)
            return State()

    def _say(self, trouble: str | None) -> None:
        """Log what is wrong, once, and that it is over."""
        if trouble is not None and trouble != self._trouble:
            log.error("%s", trouble)
        if trouble is None and self._trouble is not None:
            log.info("all is well again")
        self._trouble = trouble


def _words(error: Exception) -> str:
    if isinstance(error, DiskFullError):
        return f"{error}: free disk on this worker host; the commit is tried again every minute"
    return str(error) or type(error).__name__


def followed_file(settings: FollowerSettings) -> Path:
    """Return the file whose time says when this host last had what the main host wants."""
    return settings.delivery.state_dir / "followed"


def check(settings: FollowerSettings, now: float) -> str | None:
    """Say what is wrong with the follower that runs here; None when nothing is."""
    try:
        age = now - followed_file(settings).stat().st_mtime
    except FileNotFoundError:
        return "no commit of the main host is live here yet"
    return None if age <= FRESH_SECONDS else f"the main host's commit was followed {age:.0f} s ago"


def main(arguments: list[str] | None = None) -> int:
    """Follow until SIGTERM (0); 1 for a defect or another follower, 2 for a wrong setting."""
    parser = argparse.ArgumentParser(prog="python -m webhook.follower", description=__doc__)
    parser.add_argument(
        "command", nargs="?", choices=["follow", "check"], default="follow", help="check: is all well?"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each report
    try:
        settings = follower_from_environment()
    except SettingsError as error:
        print(f"follower: {error}", file=sys.stderr)
        return 2
    if options.command == "check":
        trouble = check(settings, time.time())
        print(trouble or "ok")
        return 1 if trouble else 0
    signal.signal(signal.SIGTERM, _end)
    try:
        # git of a follower that was killed may still be at work.
        with lock.exclusive(
            settings.delivery.state_dir / "follower.lock", settings.delivery.lock_timeout
        ) as descriptor:
            follower = Follower(settings, MainHost(settings).report, descriptor)
            log.info("this host has release %s and follows %s", settings.release, settings.coordinator)
            while True:
                follower.step()
    except lock.LockTimeoutError as error:
        log.error("another follower runs: %s", error)
        return 1
    except Exception:
        log.exception("the follower broke off")
        return 1


def _end(number: int, frame: FrameType | None) -> None:
    """End as after a normal run; git's processes end with it."""
    raise SystemExit(os.EX_OK)


if __name__ == "__main__":
    sys.exit(main())
