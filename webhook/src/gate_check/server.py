"""The gate as a service on a unix socket. A request is one line of JSON, and so is its answer.

`{"tree": <path below the root>, "dags": …, "requirements": …, "seconds": <time for it>}`
"""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from gate_check.children import Limits
from gate_check.gate import Gate, TooLongError
from gate_check.scratch import Scratch

WARMING_SECONDS = 60


def serve(path: Path, root: Path, limits: Limits, scratch_folders: Iterable[Path] = ()) -> None:
    """Answer one request after the other, until SIGTERM.

    Airflow is loaded once and each file gets a fork of it, so that a check costs what the changed files cost.
    `scratch_folders` are emptied after each check but for what is there when Airflow is loaded, such as the
    gate's own database. Where that fails this process ends: a container that starts has empty ones.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gate = Gate(limits, [root])
    scratch = Scratch(scratch_folders)
    current = root / "current"
    if current.exists():
        try:
            report = gate.check(current, seconds=WARMING_SECONDS)
            print(f"warmed with {len(report.files)} files in {report.seconds:.1f} s", flush=True)
        except TooLongError as error:
            print(f"warmed in part: {error}", flush=True)
        scratch.restore()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)  # the folder says who may reach it
        server.listen()
        print(f"Airflow {gate.airflow_version} checks trees below {root}", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                checks = gate.checks
                try:
                    answer = _answer(gate, root, connection.makefile("rb").readline(2**16))
                    connection.sendall(answer + b"\n")
                except OSError as error:  # the client went away; the next one is served all the same
                    print(f"a client was lost: {error}", flush=True)
            if gate.checks != checks:
                scratch.restore()


def _answer(gate: Gate, root: Path, line: bytes) -> bytes:
    """Answer a request line. Whatever is wrong with it is said in the answer, under `error`."""
    try:
        request = json.loads(line)
        if request.get("ping"):
            return json.dumps({"airflow_version": gate.airflow_version}).encode()
        tree = (root / request["tree"]).resolve()
        if root.resolve() not in tree.parents or not tree.is_dir():
            raise ValueError(f"there is no tree {request['tree']} below {root}")
        report = gate.check(
            tree,
            request.get("dags", "dags"),
            request.get("requirements"),
            float(request.get("seconds", "inf")),
        )
        found = f"{len(report.files)} files, {len(report.problems)} problems, {report.seconds:.2f} s"
        print(f"{request['tree']}: {found}", flush=True)
        return json.dumps(dataclasses.asdict(report)).encode()
    except TooLongError as error:
        return json.dumps({"error": str(error)}).encode()
    except Exception as error:  # a server answers; the client refuses the tree
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()


def ping(path: Path, seconds: float) -> None:
    """Ask a server for its version; raises OSError when none answers within so many seconds."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        client.connect(str(path))
        client.sendall(b'{"ping": true}\n')
        answer = client.makefile("rb").readline()
    if not answer:
        raise ConnectionError(f"the server at {path} closed the connection without an answer")
    print(answer.decode().strip())
