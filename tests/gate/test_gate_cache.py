"""A verdict counts again as long as nothing changes that it depends on, and no longer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gate.gate_server import DAG, PROGRAM, Server, Tree, problems


def test_break_in_a_helper_is_found_in_files_that_did_not_change(server: Server, tree: Tree) -> None:
    tree.write(
        "dags/independent.py", DAG.replace("from utils.common import COMMAND", "COMMAND = 'x'").format("own")
    )
    assert server.check(tree)["problems"] == []
    tree.write("dags/utils/common.py", "RENAMED = 'true'\n")
    report = server.check(tree)
    assert problems(report) == [("import", f"dags/dag_{number}.py") for number in range(3)]
    assert report["files"]["dags/independent.py"]["cached"]


def test_data_file_counts_as_read(server: Server, tree: Tree) -> None:
    """A DAG made from a file beside it, or from the files of a folder, as factories do."""
    tree.write("dags/conf/a.json", '{"command": "true"}')
    tree.write(
        "dags/factory.py",
        "# airflow dag\nimport json, pathlib\n"
        "for path in (pathlib.Path(__file__).parent / 'conf').iterdir():\n"
        "    assert json.loads(path.read_text())['command']\n",
    )
    assert server.check(tree)["problems"] == []
    assert server.check(tree)["files"]["dags/factory.py"]["cached"]
    tree.write("dags/conf/b.json", "{}")
    assert problems(server.check(tree)) == [("import", "dags/factory.py")]


def test_of_81_files_only_the_new_one_is_parsed(server: Server) -> None:
    """No other part of a push to live grows with the number of DAGs; bench/push_to_live has the seconds."""
    tree = Tree(server.root / "worktrees/eighty", dags=80)
    server.check(tree)
    new = tree.copy("eighty-one")
    new.write("dags/new.py", DAG.format("new"))
    report = server.check(new)
    assert report["problems"] == []
    assert len(report["files"]) == 81
    assert [name for name, parsed in report["files"].items() if not parsed["cached"]] == ["dags/new.py"]
    for path in (tree.path, new.path):
        shutil.rmtree(path)


READERS = {
    "a package beside a module": (
        "import helper",
        {"helper.py": ""},
        {"helper/__init__.py": "raise ValueError"},
    ),
    "a package in place of a folder": (
        "import helper.part",
        {"helper/part.py": ""},
        {"helper/__init__.py": "raise ValueError"},
    ),
    "a module that was missing": (
        "try:\n    import helper\nexcept ImportError:\n    pass",
        {},
        {"helper.py": "raise ValueError"},
    ),
    "a part that was missing": (
        "import utils\ntry:\n    import utils.part\nexcept ImportError:\n    pass",
        {},
        {"utils/part.py": "raise ValueError"},
    ),
    "a module that importlib looked for": (
        "import importlib\ntry:\n    importlib.import_module('helper')\nexcept ImportError:\n    pass",
        {},
        {"helper.py": "raise ValueError"},
    ),
    "a module that was looked for": (
        "import importlib.util\nassert not importlib.util.find_spec('helper')",
        {},
        {"helper/__init__.py": ""},
    ),
    "a module in a folder that comes first": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__) + '/first')\nimport helper",
        {"helper.py": "", "first/other.py": ""},
        {"first/helper.py": "raise ValueError"},
    ),
    "compiled code in place of a module": (
        "try:\n    import helper\nexcept ModuleNotFoundError:\n    pass",
        {},
        {"helper.cpython-311-x86_64-linux-gnu.so": "no library", "helper.abi3.so": "no library"},
    ),
    "an installed package": (
        "import importlib.metadata as m\n"
        "assert 'helper' not in [each.metadata['Name'] for each in m.distributions()]",
        {},
        {"helper-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: helper\nVersion: 1.0\n"},
    ),
    "a file that was not there": (
        "import os\nassert not os.path.exists(os.path.dirname(__file__) + '/stop.txt')",
        {},
        {"stop.txt": ""},
    ),
    "a path that was not there": (
        "import pathlib\nassert not (pathlib.Path(__file__).parent / 'stop.txt').is_file()",
        {},
        {"stop.txt": ""},
    ),
    "a file in a folder": (
        "import glob, os\nassert not glob.glob(os.path.dirname(__file__) + '/conf/*.json')",
        {"conf/a.yml": ""},
        {"conf/a.json": ""},
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_verdict_depends_on_what_code_looks_for(server: Server, tree: Tree, reader: str) -> None:
    code, files, change = READERS[reader]
    tree.write("dags/reader.py", f"# airflow dag\n{code}\n")
    for name, content in files.items():
        tree.write(f"dags/{name}", content)
    assert server.check(tree)["problems"] == []
    assert server.check(tree)["files"]["dags/reader.py"]["cached"]
    for name, content in change.items():
        tree.write(f"dags/{name}", content)
    assert [problem for problem in problems(server.check(tree)) if problem == ("import", "dags/reader.py")]


LINKS: dict[str, tuple[str, Callable[[Tree], None]]] = {
    "where a link leads": (
        "import os\nassert os.path.realpath(os.path.dirname(__file__) + '/conf').endswith('/conf_a')",
        lambda tree: tree.link("dags/conf", "conf_b"),
    ),
    "what a link says": (
        "import os\nassert os.readlink(os.path.dirname(__file__) + '/conf') == 'conf_a'",
        lambda tree: tree.link("dags/conf", "conf_b"),
    ),
    "a link to nothing": (
        "import os\nassert not os.path.islink(os.path.dirname(__file__) + '/dead')",
        lambda tree: tree.link("dags/dead", "nowhere"),
    ),
    "what a link leads to": (
        "import os\nassert not open(os.path.dirname(__file__) + '/conf/text').read()",
        lambda tree: tree.link("dags/conf", "conf_b"),
    ),
    "whether a file can be run": (
        "import os\nassert not os.access(os.path.dirname(__file__) + '/conf_a/text', os.X_OK)",
        lambda tree: (tree.path / "dags/conf_a/text").chmod(0o755),
    ),
    "what another program reads": (
        "import os, subprocess\n"
        "assert not subprocess.check_output(['cat', os.path.dirname(__file__) + '/conf_a/text'])",
        lambda tree: tree.write("dags/conf_a/text", "changed"),
    ),
}


@pytest.mark.parametrize("reader", LINKS)
def test_verdict_depends_on_the_file_system(server: Server, tree: Tree, reader: str) -> None:
    code, change = LINKS[reader]
    tree.write("dags/.airflowignore", "conf\n")
    tree.write("dags/conf_a/text", "")
    tree.write("dags/conf_b/text", "other")
    tree.link("dags/conf", "conf_a")
    tree.write("dags/reader.py", f"# airflow dag\n{code}\n")
    assert server.check(tree)["problems"] == []
    change(tree)
    assert problems(server.check(tree)) == [("import", "dags/reader.py")]


# How Python 3.10 has it, on which the official image runs.
PATHLIB_OF_ITS_OWN = """
import os, pathlib, sys

class _NormalAccessor:
    stat = os.stat

if not hasattr(pathlib, "_NormalAccessor"):
    pathlib._NormalAccessor = _NormalAccessor
    pathlib.Path.stat = lambda self, **options: _NormalAccessor().stat(self, **options)
sys.path.insert(0, sys.argv[1])
from gate_check.dependencies import Recorder
from gate_check.report import ParsedFile

tree, parsed = pathlib.Path(sys.argv[2]), ParsedFile()
recorder = Recorder(tree)
recorder.start()
assert not (tree / "stop.txt").is_file()
recorder.write(parsed)
print(*parsed.reads)
"""


def test_pathlib_that_calls_no_function_of_os_is_seen(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PATHLIB_OF_ITS_OWN, str(PROGRAM.parent), str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "stop.txt\n"


PROGRAMS = {
    "starts a program": "import os, subprocess\nsubprocess.check_call(['ls', os.path.dirname(__file__)])",
    "forks": "import os\npid = os.fork()\nif not pid:\n    os._exit(0)\nos.waitpid(pid, 0)",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_verdict_that_may_depend_on_all_counts_while_nothing_changes(
    server: Server, tree: Tree, code: str
) -> None:
    """Otherwise a check of many such files that ran out of time would begin anew each time, for ever."""
    tree.write("dags/reader.py", f"# airflow dag\n{code}\n")
    tree.write(".git", "gitdir: of this worktree\n")
    assert server.check(tree)["problems"] == []
    again = tree.copy(f"{tree.path.name}-again")  # as the next sync makes it
    again.write(".git", "gitdir: of another one\n")
    report = server.check(again, seconds=0)
    assert report.get("problems") == [], report
    assert report["files"]["dags/reader.py"]["cached"]
    again.write("sql/unrelated.sql", "")
    assert not server.check(again)["files"]["dags/reader.py"]["cached"]
