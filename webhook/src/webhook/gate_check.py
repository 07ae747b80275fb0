"""Parses a tree of DAGs on the Airflow it runs on, and says what would break. Runs inside the Airflow image.

It stands alone: standard library, Airflow, and `packaging`, which Airflow brings. As a server it has Airflow
imported already and forks one child per file, so that a check costs what the changed files cost.

    gate_check.py check TREE                   print the report as JSON; exit 3 when the tree is refused
    gate_check.py serve SOCKET --root DIR      answer requests for trees below DIR
    gate_check.py ping SOCKET                  exit 0 when the server answers

A request is one line of JSON, `{"tree": <path below the root>, "dags": …, "requirements": …}`, its answer
another. Unlike the rest of the package it keeps to Python 3.8, because older Airflow images have no newer
one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import hashlib
import importlib.metadata
import json
import os
import resource
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXIT_REFUSED = 3
MESSAGE_LIMIT = 2_000  # characters
ANSWER_LIMIT = 4 * 2**20  # bytes that a child may send back


@dataclass
class Problem:
    """Why the tree is refused. `kind`: syntax, import, duplicate, slow, memory, crash or requirement."""

    kind: str
    path: str
    message: str


@dataclass
class ParsedFile:
    """What parsing one file showed. `reads` are the paths in the tree that it opened or listed (these end in
    /).
    """

    dag_ids: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0
    cached: bool = False


@dataclass
class Report:
    """The answer for a tree; `files` by path relative to the tree."""

    airflow_version: str
    problems: list[Problem]
    files: dict[str, ParsedFile]
    seconds: float


@dataclass(frozen=True)
class Limits:
    """Per file: wall time in seconds, and memory in bytes above what an idle Airflow holds."""

    seconds: float = 10
    memory: int = 512 * 2**20


class Gate:
    """Checks trees, and remembers what each file showed for as long as nothing that it read changes."""

    def __init__(self, limits: Limits, foreign_paths: Iterable[Path] = ()) -> None:
        """`foreign_paths`: folders below which nothing may be imported, such as the tree that is live."""
        self.limits = limits
        self._foreign = [path.resolve() for path in foreign_paths]
        self._cache: dict[tuple[str, str | None], tuple[dict[str, str | None], ParsedFile]] = {}
        self._home = tempfile.TemporaryDirectory(prefix="gate-")  # removed when the process ends
        self.airflow_version = _prepare_airflow(Path(self._home.name))
        gc.collect()
        gc.freeze()  # the children would otherwise copy the heap as soon as they collect

    def check(self, tree: Path, dags_folder: str = "dags", requirements: str | None = None) -> Report:
        """Check one tree."""
        started = time.monotonic()
        tree = tree.resolve()
        dags = tree / dags_folder
        digest = _Digests(tree)
        problems = list(missing_requirements(tree / requirements, requirements)) if requirements else []
        dag_files, others = _python_files(dags)
        problems += [problem for path in others if (problem := _syntax_problem(path, tree))]
        files: dict[str, ParsedFile] = {}
        waiting = []
        for path in dag_files:
            name = str(path.relative_to(tree))
            known = self._cache.get((name, digest(name)))
            if known and all(digest(read) == value for read, value in known[0].items()):
                files[name] = dataclasses.replace(known[1], cached=True)
            elif problem := _syntax_problem(path, tree):  # before Airflow wraps it in a traceback
                files[name] = ParsedFile(problems=[problem])
            else:
                waiting.append(path)
        for path, parsed in _in_children(
            waiting, self.limits, lambda path: _parse(path, tree, dags, self._foreign)
        ):
            name = str(path.relative_to(tree))
            files[name] = parsed
            for problem in parsed.problems:
                problem.path = name
            if not parsed.problems:
                self._cache[name, digest(name)] = ({read: digest(read) for read in parsed.reads}, parsed)
        # Only what the last trees had is of use: the oldest entries go.
        while len(self._cache) > max(1_000, 4 * len(dag_files)):
            del self._cache[next(iter(self._cache))]
        for parsed in files.values():
            problems += parsed.problems
        problems += duplicates(files)
        problems.sort(key=lambda problem: (problem.path, problem.kind))
        return Report(self.airflow_version, problems, dict(sorted(files.items())), time.monotonic() - started)


class _Digests:
    """Content hashes of a tree's files and listings, each made once; None for what does not exist."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._known: dict[str, str | None] = {}

    def __call__(self, name: str) -> str | None:
        if name not in self._known:
            try:
                path = self._tree / name
                content = (
                    "\n".join(sorted(os.listdir(path))).encode() if name.endswith("/") else path.read_bytes()
                )
                self._known[name] = hashlib.sha256(content).hexdigest()
            except OSError:
                self._known[name] = None
        return self._known[name]


def missing_requirements(path: Path, name: str) -> Iterator[Problem]:
    """Compare a requirements file with what is installed; a tree without the file asks for nothing."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        text = line.split(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            yield Problem("requirement", name, f"{text!r} is not a requirement: {error}")
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Problem(
                "requirement", name, f"the running image lacks {text}: build and deploy the image first"
            )
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Problem(
                "requirement", name, f"the running image has {requirement.name} {version}, not {text}"
            )


def duplicates(files: dict[str, ParsedFile]) -> Iterator[Problem]:
    """Find dag_ids that more than one file, or one file twice, defines: Airflow would pick one at random."""
    owners: dict[str, str] = {}
    for name, parsed in sorted(files.items()):
        for dag_id in parsed.dag_ids:
            if dag_id in owners:
                yield Problem("duplicate", name, f"the dag_id {dag_id} is taken by {owners[dag_id]}")
            else:
                owners[dag_id] = name


# Parsed once before the first fork, so that what every DAG imports is imported already.
_SAMPLE = """
from datetime import datetime
from airflow import DAG
from airflow.models import Variable
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator

Variable.get("sample", default_var=None)
with DAG("sample", start_date=datetime(2024, 1, 1)):
    BashOperator(task_id="bash", bash_command="true") >> PythonOperator(task_id="python",
    python_callable=print)
"""


def _prepare_airflow(home: Path) -> str:
    """Import Airflow with a private, empty database that holds no more than what a DAG file may ask for.

    `Variable.get(name, default_var=…)` at the top of a file then gives its default, as on a new host.
    """
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/gate.db",
        AIRFLOW__CORE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/gate.db",
        AIRFLOW__CORE__EXECUTOR="SequentialExecutor",
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    )
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")  # of Airflow itself, while it loads; a child shows those of its file
    import airflow
    from airflow import settings
    from airflow.models import Connection, Variable
    from airflow.models.base import Base

    Base.metadata.create_all(settings.engine, tables=[Variable.__table__, Connection.__table__])
    sample = home / "sample.py"
    sample.write_text(_SAMPLE)
    _, errors = _load(sample)
    if errors:
        raise RuntimeError(f"Airflow {airflow.__version__} cannot parse a plain DAG: {errors}")
    settings.engine.dispose()  # a connection must not be shared with forked children
    return str(airflow.__version__)


def _load(path: Path) -> tuple[list[str], list[str]]:
    """Parse and serialise what is in a file, as the scheduler does; return dag_ids and errors."""
    from airflow.configuration import conf
    from airflow.models.dagbag import DagBag
    from airflow.serialization.serialized_objects import SerializedDAG

    bag = DagBag(dag_folder=os.devnull, include_examples=False, collect_dags=False)
    found = bag.process_file(
        str(path), only_if_updated=False, safe_mode=conf.getboolean("core", "dag_discovery_safe_mode")
    )
    errors = [str(error) for error in bag.import_errors.values()]
    for dag in found:
        try:
            SerializedDAG.to_dict(dag)
        except Exception as error:  # whatever a DAG's own objects raise
            errors.append(f"{dag.dag_id} cannot be serialised: {error}")
    return sorted(dag.dag_id for dag in found), errors


def _python_files(dags: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that Airflow would parse, and the other Python files; .airflowignore is honoured."""
    from airflow.utils.file import list_py_file_paths

    def listed(safe_mode: bool) -> set[Path]:
        return {
            Path(path) for path in list_py_file_paths(str(dags), safe_mode=safe_mode, include_examples=False)
        }

    dag_files = listed(safe_mode=True)
    others = {path for path in listed(safe_mode=False) if path.suffix == ".py"} - dag_files
    return sorted(dag_files), sorted(others)


def _syntax_problem(path: Path, tree: Path) -> Problem | None:
    """Compile a file without running it."""
    if path.suffix != ".py":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), path.name, "exec", dont_inherit=True)
    except SyntaxError as error:
        return Problem("syntax", str(path.relative_to(tree)), f"line {error.lineno}: {error.msg}")
    except ValueError as error:  # a null byte
        return Problem("syntax", str(path.relative_to(tree)), str(error))
    return None


def _parse(path: Path, tree: Path, dags: Path, foreign: list[Path]) -> ParsedFile:
    """Parse one file. Runs in a child of its own, whose import path and hooks are for this tree only."""
    from airflow import settings

    settings.DAGS_FOLDER = str(dags)
    sys.path[:] = [entry for entry in sys.path if not any(_is_below(entry, folder) for folder in foreign)]
    sys.path.append(str(dags))  # last, as Airflow does
    parsed = ParsedFile()
    reads: set[str] = set()
    sys.addaudithook(_reads_of(str(tree) + os.sep, reads))
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        parsed.dag_ids, errors = _load(path)
    parsed.seconds = time.monotonic() - started
    for error in errors:
        kind = "memory" if "MemoryError" in error else "import"
        parsed.problems.append(Problem(kind, "", _shorten(error.replace(f"{tree}{os.sep}", ""))))
    parsed.warnings = sorted(
        {f"{warning.category.__name__}: {str(warning.message).splitlines()[0]}" for warning in caught}
    )[:20]
    parsed.reads = sorted(reads)
    return parsed


def _is_below(entry: str, folder: Path) -> bool:
    path = Path(entry).resolve()
    return bool(entry) and (path == folder or folder in path.parents)


_IMPORT_SYSTEM = ("importlib._bootstrap_external", "importlib/metadata", "importlib_metadata")


def _reads_of(prefix: str, reads: set[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that collects which paths below `prefix` are opened or listed.

    The import system lists every folder it searches; what it finds there it also opens, so its listings are
    left out.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        listing = event in ("os.listdir", "os.scandir", "glob.glob")
        if not listing and event != "open":
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        caller = sys._getframe(1).f_code.co_filename
        if listing and any(part in caller for part in _IMPORT_SYSTEM):
            return
        full = os.path.abspath(os.fsdecode(path))
        if full.startswith(prefix) and "__pycache__" not in full:
            reads.add(full[len(prefix) :] + ("/" if listing else ""))

    return hook


def _shorten(text: str) -> str:
    """Keep the end, where a traceback says what happened."""
    text = text.strip()
    return text if len(text) <= MESSAGE_LIMIT else "…" + text[-MESSAGE_LIMIT:]


@dataclass
class _Child:
    pid: int
    path: Path
    deadline: float
    answer: bytearray = field(default_factory=bytearray)


def _in_children(
    paths: list[Path], limits: Limits, work: Callable[[Path], ParsedFile]
) -> Iterator[tuple[Path, ParsedFile]]:
    """Run `work` for each path in a forked child with limits, as many at a time as there are cores."""
    waiting = list(reversed(paths))
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < (os.cpu_count() or 1):
                descriptor, child = _fork(waiting.pop(), limits, work)
                selector.register(descriptor, selectors.EVENT_READ, child)
            soonest = min(key.data.deadline for key in selector.get_map().values())
            ready = {key.fd for key, _ in selector.select(max(0, soonest - time.monotonic()))}
            for key in list(selector.get_map().values()):
                child = key.data
                ended = False
                if key.fd in ready:
                    chunk = os.read(key.fd, 2**16)
                    child.answer += chunk
                    ended = not chunk or len(child.answer) > ANSWER_LIMIT
                if ended or time.monotonic() >= child.deadline:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    yield child.path, _finish(child, limits, late=not ended)


def _fork(path: Path, limits: Limits, work: Callable[[Path], ParsedFile]) -> tuple[int, _Child]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            os.close(reader)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            ceiling = pages * resource.getpagesize() + limits.memory
            resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            answer = json.dumps(dataclasses.asdict(work(path))).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
            status = 0
        except BaseException as error:  # this is a child: whatever happens, it must not go on as the server
            with contextlib.suppress(BaseException):
                os.write(writer, json.dumps({"failed": "".join(traceback.format_exception(error))}).encode())
        finally:
            os._exit(status)
    os.close(writer)
    return reader, _Child(pid, path, time.monotonic() + limits.seconds)


def _finish(child: _Child, limits: Limits, late: bool) -> ParsedFile:
    """End the child with all that it started, and read what it said."""
    if late:
        _kill_group(child.pid)
    _, status = os.waitpid(child.pid, 0)
    _kill_group(child.pid)
    if late:
        message = f"parsing took longer than {limits.seconds:g} s: move the work at its top into a task"
        return ParsedFile(problems=[Problem("slow", "", message)], seconds=limits.seconds)
    try:
        answer = json.loads(child.answer)
    except ValueError:
        ended_by = (
            f"signal {os.WTERMSIG(status)}"
            if os.WIFSIGNALED(status)
            else f"exit code {os.WEXITSTATUS(status)}"
        )
        return ParsedFile(problems=[Problem("crash", "", f"parsing it ended the process: {ended_by}")])
    if "failed" in answer:
        kind = "memory" if "MemoryError" in answer["failed"] else "import"
        return ParsedFile(problems=[Problem(kind, "", _shorten(answer["failed"]))])
    answer["problems"] = [Problem(**problem) for problem in answer["problems"]]
    return ParsedFile(**answer)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def serve(path: Path, root: Path, limits: Limits) -> None:
    """Answer one request after the other, until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # What PYTHONPATH and the configuration add belongs to the live tree: nothing may come from there.
    live = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    folder = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER")
    gate = Gate(limits, [root, *live, *([Path(folder)] if folder else [])])
    current = root / "current"
    if current.exists():
        report = gate.check(current)
        print(f"warmed with {len(report.files)} files in {report.seconds:.1f} s", flush=True)
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
                try:
                    answer = _answer(gate, root, connection.makefile("rb").readline(2**16))
                    connection.sendall(answer + b"\n")
                except OSError as error:  # the client went away; the next one is served all the same
                    print(f"a client was lost: {error}", flush=True)


def _answer(gate: Gate, root: Path, line: bytes) -> bytes:
    """Answer a request line. Whatever is wrong with it is said in the answer, under `error`."""
    try:
        request = json.loads(line)
        if request.get("ping"):
            return json.dumps({"airflow_version": gate.airflow_version}).encode()
        tree = (root / request["tree"]).resolve()
        if root.resolve() not in tree.parents or not tree.is_dir():
            raise ValueError(f"there is no tree {request['tree']} below {root}")
        report = gate.check(tree, request.get("dags", "dags"), request.get("requirements"))
        found = f"{len(report.files)} files, {len(report.problems)} problems, {report.seconds:.2f} s"
        print(f"{request['tree']}: {found}", flush=True)
        return json.dumps(dataclasses.asdict(report)).encode()
    except Exception as error:  # a server answers; the client refuses the tree
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()


def ping(path: Path) -> None:
    """Ask a server for its version; raises OSError when none answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b'{"ping": true}\n')
        print(client.makefile("rb").readline().decode().strip())


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Check a tree of DAGs on this Airflow.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "serve", "ping"):
        command = commands.add_parser(name)
        command.add_argument(
            "path", type=Path, help="the tree" if name == "check" else "the server's unix socket"
        )
        if name != "ping":
            command.add_argument(
                "--seconds", type=float, default=Limits.seconds, help="time limit for each file"
            )
            command.add_argument(
                "--memory-mib", type=int, default=Limits.memory // 2**20, help="for each file"
            )
        if name == "check":
            command.add_argument("--dags", default="dags", help="folder of the DAGs in the tree")
            command.add_argument("--requirements", default="images/airflow/requirements.txt")
        if name == "serve":
            command.add_argument("--root", type=Path, required=True, help="folder that holds the trees")
    options = parser.parse_args()
    # Python puts the folder of a script first: what lies beside this one must not be what a DAG imports.
    sys.path.remove(str(Path(__file__).resolve().parent))
    if options.command == "ping":
        ping(options.path)
        return 0
    limits = Limits(options.seconds, options.memory_mib * 2**20)
    if options.command == "serve":
        serve(options.path, options.root, limits)
        return 0
    report = Gate(limits).check(options.path, options.dags, options.requirements)
    print(json.dumps(dataclasses.asdict(report), indent=2))
    return EXIT_REFUSED if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
