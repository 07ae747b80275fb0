"""What a commit's files do on Airflow: listed, compiled and parsed as the scheduler does, each in a child.

Everything but `Airflow` itself runs in children (`children.run`).
"""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gate_check.dependencies import Recorder
from gate_check.report import ParsedFile, Problem, shorten

# Variables with this prefix are, without it, the scheduler's. The container itself does without them: what
# else runs in it must not take the scheduler's executor and folders for its own.
SCHEDULERS = "GATE_SETS_"

# What would leave the container, or needs what only the scheduler has. DAGs that ask see the same.
_CLOSED_IN = {
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    "AIRFLOW__METRICS__STATSD_ON": "False",
    "AIRFLOW__SECRETS__BACKEND": "",
}

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


class Airflow:
    """This process' Airflow, with a private home and an empty database. Children give it a tree by `enter`.

    `Variable.get(name, default_var=…)` at the top of a file then gives its default, as on a new host.
    """

    def __init__(
        self, home: Path, environment: Mapping[str, str], foreign_paths: Iterable[Path] = ()
    ) -> None:
        """`foreign_paths`: folders below which nothing may be imported, such as the trees that are live."""
        prefix = len(SCHEDULERS)
        self.environment = {
            name: value for name, value in environment.items() if not name.startswith(SCHEDULERS)
        }
        self.environment.update(
            {name[prefix:]: value for name, value in environment.items() if name.startswith(SCHEDULERS)}
        )
        self.environment.update(_CLOSED_IN)
        self._home = home
        self._foreign = [path.resolve() for path in foreign_paths]
        schedulers_home = Path(self.environment.get("AIRFLOW_HOME") or Path.home() / "airflow")
        self._config = schedulers_home / "config"
        plugins = self.environment.get("AIRFLOW__CORE__PLUGINS_FOLDER")
        self.plugins = Path(plugins) if plugins else schedulers_home / "plugins"
        self.version = self._start()
        # A module of the team's may have the name of this program. Looked for here: a child that goes through
        # the names of all modules gets a copy of the memory that they are in.
        self._own_modules = [name for name in sys.modules if name.partition(".")[0] == __package__]

    def _start(self) -> str:
        """Import Airflow, and what most DAGs import."""
        sys.path[:] = [entry for entry in sys.path if not self._is_foreign(entry)]
        os.environ.update(
            {name: value for name, value in self.environment.items() if name.startswith("AIRFLOW__")},
            AIRFLOW_HOME=str(self._home),
            AIRFLOW__CORE__DAGS_FOLDER=str(self._home / "dags"),
            AIRFLOW__CORE__PLUGINS_FOLDER=str(self._home / "plugins"),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{self._home}/gate.db",
            AIRFLOW__CORE__SQL_ALCHEMY_CONN=f"sqlite:///{self._home}/gate.db",
            AIRFLOW__CORE__EXECUTOR="SequentialExecutor",
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
        )
        sys.dont_write_bytecode = True
        warnings.simplefilter("ignore")  # of Airflow itself, while it loads; a child shows those of its file
        import airflow
        from airflow import settings
        from airflow.models import Connection, Variable
        from airflow.models.base import Base

        Base.metadata.create_all(settings.engine, tables=[Variable.__table__, Connection.__table__])
        sample = self._home / "sample.py"
        sample.write_text(_SAMPLE)
        _, errors = _load(sample)
        if errors:
            raise RuntimeError(f"Airflow {airflow.__version__} cannot parse a plain DAG: {errors}")
        settings.engine.dispose()  # a connection must not be shared with forked children
        gc.collect()
        gc.freeze()  # the children would otherwise copy the heap as soon as they collect
        return str(airflow.__version__)

    def enter(self, tree: Path, dags: Path) -> None:
        """Make this process, which is a child, look like the scheduler with this tree for the live one."""
        from airflow import settings

        moved = {
            settings.DAGS_FOLDER: str(dags),
            settings.PLUGINS_FOLDER: str(self.plugins),
            str(self._home / "config"): str(self._config),
        }
        live = self.environment.get("AIRFLOW__CORE__DAGS_FOLDER")
        if live:
            moved[live] = str(dags)
        settings.DAGS_FOLDER, settings.PLUGINS_FOLDER = str(dags), str(self.plugins)
        first = [entry for entry in self.environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
        sys.path[:] = [
            entry
            for entry in dict.fromkeys(moved.get(entry, entry) for entry in (*first, *sys.path))
            if _is_below(entry, tree) or not self._is_foreign(entry)
        ]
        os.environ.clear()
        os.environ.update(self.environment, AIRFLOW__CORE__DAGS_FOLDER=str(dags))
        for name in self._own_modules:
            sys.modules.pop(name, None)

    def _is_foreign(self, entry: str) -> bool:
        return any(_is_below(entry, folder) for folder in self._foreign)


def list_files(tree: Path, dags: Path) -> dict[str, list[Any]]:
    """Return by their paths in the tree: `dag_files`, which Airflow would parse, and `others` in Python.

    .airflowignore is honoured. `problems` are kind, path and message of what Airflow cannot list.
    """
    from airflow.configuration import conf
    from airflow.utils.file import list_py_file_paths

    def listed(safe_mode: bool) -> set[str]:
        paths = list_py_file_paths(str(dags), safe_mode=safe_mode, include_examples=False)
        return {os.path.relpath(path, tree) for path in paths}

    last = dags  # of the folders that were listed: the one that Airflow is in

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal last
        if event == "os.scandir":
            last = Path(arguments[0])

    sys.addaudithook(note)
    try:
        dag_files = listed(safe_mode=conf.getboolean("core", "dag_discovery_safe_mode"))
        others = {path for path in listed(safe_mode=False) if path.endswith(".py")} - dag_files
    except Exception as error:  # the scheduler lists in the same way, and would end with it
        stopped_in = last
        problems = [
            ("symlink", path, "the link leads to a folder that is read already, and Airflow reads each once")
            for path in (_links_to_folders_read_twice(dags) if type(error) is RuntimeError else ())
        ]
        return _unlisted(tree, problems or [_problem_of_patterns(tree, dags, stopped_in, error)])
    return {"dag_files": sorted(dag_files), "others": sorted(others), "problems": []}


def _unlisted(tree: Path, problems: list[tuple[str, Path, str]]) -> dict[str, list[Any]]:
    told = [(kind, os.path.relpath(path, tree), message) for kind, path, message in problems]
    return {"dag_files": [], "others": [], "problems": told}


def _problem_of_patterns(tree: Path, dags: Path, folder: Path, error: Exception) -> tuple[str, Path, str]:
    """Name the .airflowignore that counts where the listing stopped.

    All else in a folder Airflow merely lists; these it reads, compiles, and compares with names.
    """
    folders = [each for each in (folder, *folder.parents) if each == dags or dags in each.parents]
    files = [path for each in folders if _may_be_file(path := each / ".airflowignore")]
    told = shorten(f"{type(error).__name__}: {error}".replace(f"{tree}{os.sep}", ""))
    message = f"Airflow cannot list {os.path.relpath(folder, tree)} with it: {told}"
    return "syntax", files[0] if files else folder, message


def _may_be_file(path: Path) -> bool:
    return os.path.lexists(path) and not os.path.isdir(path)


def _links_to_folders_read_twice(dags: Path) -> list[Path]:
    """Return the links by which a walk comes to a folder to which it comes another way, too."""
    ways: dict[Path, list[Path]] = {dags.resolve(): [dags]}
    for root, folders, _ in os.walk(dags, followlinks=True):
        for name in list(folders):
            path = Path(root) / name
            known = ways.setdefault(path.resolve(), [])
            known.append(path)
            if len(known) > 1:
                folders.remove(name)
    found = set()
    for paths in ways.values():
        for path in paths if len(paths) > 1 else ():
            inside = [part for part in (path, *path.parents) if dags in part.parents]
            found.update([part for part in inside if part.is_symlink()][:1])
    return sorted(found)


def check_syntax(path: Path) -> ParsedFile:
    """Compile a file that Airflow does not parse; others may import it."""
    return ParsedFile(problems=[problem] if (problem := _syntax_problem(path)) else [])


def _syntax_problem(path: Path) -> Problem | None:
    if path.suffix != ".py":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), path.name, "exec", dont_inherit=True)
    except SyntaxError as error:
        return Problem("syntax", "", f"line {error.lineno}: {error.msg}")
    except ValueError as error:  # a null byte
        return Problem("syntax", "", str(error))
    return None


def parse(airflow: Airflow, tree: Path, dags: Path, path: Path) -> ParsedFile:
    """Parse a DAG file."""
    if problem := _syntax_problem(path):  # before Airflow wraps it in a traceback
        return ParsedFile(problems=[problem])
    airflow.enter(tree, dags)
    recorder = Recorder(tree)
    recorder.start()
    parsed = ParsedFile()
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        parsed.dag_ids, errors = _load(path)
    parsed.seconds = time.monotonic() - started
    recorder.write(parsed)
    for error in errors:
        kind = "memory" if "MemoryError" in error else "import"
        parsed.problems.append(Problem(kind, "", shorten(error.replace(f"{tree}{os.sep}", ""))))
    parsed.warnings = sorted(
        {f"{warning.category.__name__}: {str(warning.message).splitlines()[0]}" for warning in caught}
    )[:20]
    return parsed


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


def _is_below(entry: str, folder: Path) -> bool:
    path = Path(entry).resolve()
    return bool(entry) and (path == folder or folder in path.parents)
