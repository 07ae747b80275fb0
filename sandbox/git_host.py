"""A Git host over HTTP: git's own http-backend behind Flask. Anyone may read and push. Needs Debian's git.

Not its business: SSH, by which `ssh_host` offers the same repositories to whoever has the deploy key.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from flask import Flask, Response, request

from sandbox.git_environment import git_environment
from sandbox.web import log_requests

CHUNK_BYTES = 64 * 1024


def create_app(directory: str, repositories: Iterable[str], branch: str = "production") -> Flask:
    """Return the host of bare repositories below ``directory``, making those that are named and missing.

    A repository ``team/airflow`` is cloned from and pushed to at ``/team/airflow.git``.
    """
    app = Flask("sandbox.git_host")
    root = Path(directory)
    for name in repositories:
        path = root / f"{name}.git"
        if not path.exists():
            path.mkdir(parents=True)
            _git("init", "--quiet", "--bare", "--initial-branch", branch, str(path))
            _git("-C", str(path), "config", "http.receivepack", "true")

    @app.route("/<path:path>", methods=["GET", "POST"])
    def backend(path: str) -> Response:
        process = subprocess.Popen(
            ["git", "http-backend"],  # noqa: S607 - Debian's git, wherever it is
            env=_cgi_environment(root, path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin  # noqa: S101 - for the type checker
        assert process.stdout  # noqa: S101 - for the type checker
        try:
            shutil.copyfileobj(request.stream, process.stdin, CHUNK_BYTES)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it answers without reading on, as for a repository that is not there
        headers = []
        while line := process.stdout.readline().strip().decode():
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        status = next((value for name, value in headers if name.lower() == "status"), "200 OK")
        headers = [(name, value) for name, value in headers if name.lower() != "status"]
        return Response(_output(process), status=status, headers=headers)

    log_requests(app)
    return app


def _output(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    with process:
        assert process.stdout  # noqa: S101 - for the type checker
        while chunk := process.stdout.read(CHUNK_BYTES):
            yield chunk


def _cgi_environment(root: Path, path: str) -> dict[str, str]:
    """Return the variables of git-http-backend(1)."""
    given = {
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.query_string.decode(),
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": request.headers.get("Content-Length", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "REMOTE_ADDR": request.remote_addr or "",
    }
    return {
        **git_environment(),
        **{name: value for name, value in given.items() if value},
        "PATH_INFO": f"/{path}",
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
    }


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, env=git_environment())  # noqa: S603, S607 - see above
