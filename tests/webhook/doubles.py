"""What stands around the webhook in its tests: a repository, a gate, a vault."""

import contextlib
import json
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from webhook.settings import RepositorySettings
from webhook.vault import VaultUnavailableError


def wait_until(condition: Callable[[], Any], seconds: float = 60, what: str = "condition") -> Any:
    """Wait for a condition to become true and return its value; patience costs a passing test nothing."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return value


class Remote:
    """A repository with a branch `production`, as GitHub would hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(["git", "init", "--quiet", "--initial-branch", "production", str(path)], check=True)
        self.git("config", "user.name", "Ann Example")
        self.git("config", "user.email", "ann@example.org")

    def settings(self, retry_pause: float) -> RepositorySettings:
        """Return how to fetch from it; the pause between attempts is in seconds."""
        return RepositorySettings(
            url=str(self.path),
            branch="production",
            deploy_key=None,
            known_hosts=None,
            timeout=30,
            retry_pause=retry_pause,
        )

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(
        self, files: dict[str, str | bytes | None], message: str = "a change", amend: bool = False
    ) -> str:
        """Write files (None removes one), commit, return the id."""
        for name, content in files.items():
            path = self.path / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.commit_all(message, amend)

    def commit_all(self, message: str = "a change", amend: bool = False) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message, *(["--amend"] if amend else []))
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "production")

    def tree(self, commit: str) -> dict[str, bytes]:
        """Return path and content of every file of a commit."""
        names = self.git("ls-tree", "-r", "--name-only", commit).splitlines()
        return {
            name: subprocess.run(
                ["git", "cat-file", "blob", f"{commit}:{name}"],
                cwd=self.path,
                check=True,
                capture_output=True,
            ).stdout
            for name in names
        }


def files_below(tree: Path) -> dict[str, bytes]:
    """Return path and content of every file of a worktree."""
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and path.name != ".git"
    }


class GateDouble:
    """Speaks the gate's protocol, and finds in a tree what a test says."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.root = root
        self.problems: Callable[[Path], list[dict[str, str]]] = lambda tree: []
        self.reads: dict[str, list[str]] = {}
        self.error: str | None = None
        self.checked: list[Path] = []
        self.before_answer: Callable[[], object] = lambda: None
        double = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                request = json.loads(self.rfile.readline())
                with contextlib.suppress(BrokenPipeError):  # who asked may wait no more
                    self.wfile.write(json.dumps(double.answer(request)).encode() + b"\n")

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self._server = Server(str(path), Handler)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        tree = self.root / request["tree"]
        self.checked.append(tree)
        self.before_answer()
        if self.error:
            return {"error": self.error}
        names = [str(path.relative_to(tree)) for path in (tree / request["dags"]).glob("*.py")]
        return {
            "airflow_version": "2.11.2",
            "problems": self.problems(tree),
            "files": {name: {"reads": [name, *self.reads.get(name, [])]} for name in names},
            "seconds": 0.1,
        }

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class VaultDouble:
    """Holds the key in memory, and is away when a test says so."""

    def __init__(self, key: str = "first-key") -> None:
        self.key = key
        self.away = False
        self.reads = 0

    def read(self) -> str:
        self.reads += 1
        if self.away:
            raise VaultUnavailableError("away")
        return self.key

    def write(self, key: str) -> None:
        if self.away:
            raise VaultUnavailableError("away")
        self.key = key
