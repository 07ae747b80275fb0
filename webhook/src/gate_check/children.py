"""Runs what a commit controls, each piece in a forked child with limits, which ends with all that it started.

Whatever such a child does, its parent goes on: it has an answer within the child's time, or a problem.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gate_check.report import Problem, shorten

ANSWER_LIMIT = 4 * 2**20  # bytes
LOOK_SECONDS = 0.05  # between two looks at the children's memory
STRAY_ROUNDS = 100
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class Limits:
    """For each child: wall time in seconds, and the memory in bytes that it may use beyond its parent's.

    Used memory counts, and not reserved memory (RLIMIT_AS): libraries reserve some for each core.
    """

    seconds: float = 10
    memory: int = 512 * 2**20


@dataclass(frozen=True)
class Job:
    """A file, by its path in the tree, and what to do with it: a function whose result can be JSON."""

    path: str
    work: Callable[[], Any]


def adopt_strays() -> None:
    """Become the parent of what children leave behind, so that it can be ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(jobs: list[Job], limits: Limits, deadline: float = float("inf")) -> Iterator[tuple[Job, Any]]:
    """Do the jobs, as many at a time as there are cores; yield each with its result, or with a `Problem`.

    After the deadline (of `time.monotonic`) no further job begins: those that did not are not yielded.
    """
    cores = len(os.sched_getaffinity(0))
    waiting = list(reversed(jobs))
    # Killed by the kernel, which does so when all children together use too much: each again, without others.
    again: list[Job] = []
    running: list[_Child] = []
    ending: list[_Child] = []  # killed, or done: their memory takes a while to go
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while time.monotonic() < deadline:
                    if waiting and len(running) < cores:
                        job = waiting.pop()
                    elif again and not running:
                        job = again.pop()
                    else:
                        break
                    child = _Child(job, limits)
                    running.append(child)
                    selector.register(child.reader, selectors.EVENT_READ, child)
                if not running:
                    return
                for key, _ in selector.select(LOOK_SECONDS):
                    if not key.data.read():
                        selector.unregister(key.fd)
                for child in list(running):
                    result = child.result()
                    if result is None:
                        continue
                    if child.reader in selector.get_map():
                        selector.unregister(child.reader)
                    child.kill()
                    running.remove(child)
                    ending.append(child)
                    if result is _ENDED and child.returncode() == -signal.SIGKILL and running:
                        again.append(child.job)
                    else:
                        yield child.job, child.verdict(result)
                ending = [child for child in ending if not child.is_gone()]
        finally:
            for child in running:
                child.kill()
            for child in (*running, *ending):
                child.returncode()
            _end_strays()


_ENDED = Problem("crash", "", "parsing it ended the process")


class _Child:
    """A forked process that does one job."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self.job = job
        self._limits = limits
        self._answer = bytearray()
        self._status: int | None = None
        self.reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _work(job.work, writer)
        os.close(writer)
        os.set_blocking(self.reader, False)
        self._deadline = time.monotonic() + limits.seconds
        self._memory_at_first = self._memory()

    def _memory(self) -> int:
        """Return the bytes of memory that it uses and does not share with files."""
        _, resident, shared, *_ = Path(f"/proc/{self._pid}/statm").read_text().split()
        return (int(resident) - int(shared)) * resource.getpagesize()

    def read(self) -> bool:
        """Take what it has written; return False when there will be no more."""
        with contextlib.suppress(BlockingIOError):
            while len(self._answer) <= ANSWER_LIMIT:
                chunk = os.read(self.reader, 2**16)
                if not chunk:
                    return False
                self._answer += chunk
        return len(self._answer) <= ANSWER_LIMIT

    def result(self) -> Any:
        """Return its answer, a `Problem` that is a reason to end it, or None while it may go on."""
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if ended:
            self.read()
        if self._answer.endswith(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(self._answer)
            return Problem("crash", "", "parsing it wrote into what belongs to the gate")
        if ended:
            return _ENDED
        if len(self._answer) > ANSWER_LIMIT:
            limit = f"{ANSWER_LIMIT // 2**20} MiB"
            return Problem("crash", "", f"its DAGs, and the files that it read, have names of over {limit}")
        if self._memory() - self._memory_at_first > self._limits.memory:
            limit = f"{self._limits.memory // 2**20} MiB"
            return Problem(
                "memory", "", f"parsing took more than {limit}: move the work at its top into a task"
            )
        if time.monotonic() >= self._deadline:
            limit = f"{self._limits.seconds:g} s"
            return Problem(
                "slow", "", f"parsing took longer than {limit}: move the work at its top into a task"
            )
        return None

    def kill(self) -> None:
        """End it with all that it started."""
        os.close(self.reader)
        for kill in (os.kill, os.killpg):  # it leads no group before it has come so far
            with contextlib.suppress(ProcessLookupError):
                kill(self._pid, signal.SIGKILL)

    def is_gone(self) -> bool:
        """Say whether it has ended, and free its number."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def returncode(self) -> int:
        """Wait until it has ended; return its exit code, or the signal that ended it as -number."""
        if self._status is None:
            _, self._status = os.waitpid(self._pid, 0)
        status = self._status
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def verdict(self, result: Any) -> Any:
        """Return the job's own result, or a `Problem` with the file's path."""
        if result is _ENDED:
            code = self.returncode()
            by = f"exit code {code}" if code >= 0 else f"signal {-code}"
            if code == -signal.SIGKILL:
                by += ", which the kernel sends when memory is short"
            result = Problem("crash", "", f"parsing it ended the process: {by}")
        elif not isinstance(result, Problem):
            if "failed" not in result:
                return result["result"]
            kind = "memory" if "MemoryError" in result["failed"] else "import"
            result = Problem(kind, "", shorten(result["failed"]))
        result.path = self.job.path
        return result


def _work(work: Callable[[], Any], writer: int) -> NoReturn:
    """Be the child: do the work with nothing of the parent's but its memory, answer, and end."""
    try:
        own = os.getpid()
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor != writer:
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # When memory is short the kernel is to end a child, and not its parent.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        try:
            answer = {"result": work()}
        except BaseException as error:  # whatever a commit's code raises, SystemExit too
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            answer = {"failed": "".join(lines)}
        line = json.dumps(answer).encode() + b"\n"
        if os.getpid() == own:  # and not a copy that the work made
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(line)
    finally:
        os._exit(1)


def _end_strays() -> None:
    """End what children started in sessions of their own. Only `adopt_strays` makes it known here."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    for _ in range(STRAY_ROUNDS):  # the end of one may show another
        try:
            strays = [int(pid) for pid in children.read_text().split()]
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            return
        if not strays:
            return
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
