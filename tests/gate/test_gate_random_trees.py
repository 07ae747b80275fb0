"""Whatever a tree has in it: it passes, or is refused with a path, and the next plain one passes.

Trees are made from seeds, since the environments with Airflow have no Hypothesis. GATE_SEEDS=1000 tries more.
"""

from __future__ import annotations

import io
import os
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gate.gate_server import DAG, Server, Tree

SEEDS = int(os.environ.get("GATE_SEEDS", 20))

FOLDERS = ["", "dags", "dags", "dags/a", "dags/a/a.py", "dags/utils", "dags/b.zip", "shared", "shared/a"]
NAMES = [
    *("a", "a.py", "b.py", "é.py", "-rf.py", " .py", "a\nb.py", "{{ x }}.py", "con", "conftest.py", "a.zip"),
    *(
        "__init__.py",
        "__main__.py",
        "json.py",
        "airflow.py",
        "sitecustomize.py",
        ".py",
        ".a.py",
        "n" * 252 + ".py",
    ),
    *(".airflowignore", ".airflowignore", ".airflowignore", "a-1.0.dist-info", "a.pth", "a.so", "\udcff.py"),
]
BODIES = [
    "def broken(:\n",
    "raise SystemExit(0)\n",
    "raise KeyboardInterrupt\n",
    "raise ValueError('\\ud800')\n",
    "x = 'a\0b'\n",
    "# -*- coding: no-such -*-\n",
    "import os\nos.chdir(os.path.dirname(__file__))\nopen('a').close()\n",
    "import os\nos.path.exists(os.path.dirname(__file__) + '/a\\0b')\n",
    "import os\nos.listdir(os.path.dirname(__file__).encode())\n",
    "import os\nos.stat(0)\nos.scandir(os.open('/', os.O_RDONLY)).close()\n",
    "import os\nos.fork()\n",
    "import os\nos.environ.clear()\n",
    "import os\nos.close(1)\nos._exit(3)\n",
    "import sys\nsys.path[:] = ['a\\0b', '\\ud800', None, 1]\nimport a\n",
    "import sys\nsys.modules.clear()\n",
    "import builtins\nbuiltins.open = None\n",
    "import warnings\nwarnings.warn('')\nwarnings.warn('\\n')\nwarnings.warn('\\ud800')\n",
    "import logging\nlogging.shutdown()\nlogging.getLogger().handlers.clear()\n",
    "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd\n",
]
PATTERNS = [
    *("a", r".*\.py", "utils", "^", "(", "[", "*", "a{2,1}", "x{99999999999999999999}", "(?P<a>b)(?P<a>c)"),
    *("(?<!a)b", r"\1", "é", "# only", "", "/", "!a", "a\0b", "(" * 200 + ")" * 200, r"\udcff", "(?i)A"),
]
CONTENTS: list[Callable[[random.Random], str | bytes]] = [
    lambda _: "",
    lambda chance: chance.randbytes(200),
    lambda chance: f"# airflow dag\n{DAG.format(chance.randrange(6))}",
    lambda chance: (
        f"import {chance.choice(['a', 'b', 'utils', 'utils.common', 'shared', 'airflow'])}  # dag\n"
    ),
    lambda chance: chance.choice(["# airflow dag\n", ""]) + chance.choice(BODIES),
    lambda chance: "\n".join(chance.choices(PATTERNS, k=3)),
    lambda chance: chance.choice(PATTERNS).encode("utf-16"),
    lambda chance: _archive({"in_it.py": DAG.format(chance.randrange(6)), "a/\xe9.py": "x = ("}),
]
TARGETS = [
    *("..", ".", "a", "utils", "../shared", "../dags", "../../dags", "nowhere", "a/../..", "b.py", "shared"),
    *(".airflowignore", "n" * 300, "dags", "\udcff"),
]


def _archive(files: dict[str, str]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return archive.getvalue()


def fill(tree: Tree, chance: random.Random) -> None:
    """Add files, links and folders that stay below the tree; leave out what another one is in the way of."""
    root = tree.path.resolve()
    for _ in range(chance.randint(1, 8)):
        name = "/".join(filter(None, (chance.choice(FOLDERS), chance.choice(NAMES))))
        path = root / name
        link = chance.random() < 0.3
        target, content = chance.choice(TARGETS), chance.choice(CONTENTS)(chance)
        # Never through a link: nothing may be written elsewhere.
        if os.path.lexists(path) or os.path.realpath(path.parent) != str(path.parent):
            continue
        try:
            if not link:
                tree.write(name, content)
            elif root in Path(os.path.realpath(path.parent / target)).parents:  # as the webhook asks
                tree.link(name, target)
        except (FileExistsError, NotADirectoryError):
            continue


@pytest.mark.parametrize("seed", range(SEEDS))
def test_tree_passes_or_is_refused_with_a_path(server: Server, tree: Tree, seed: int) -> None:
    odd = tree.copy(f"{tree.path.name}-odd")
    fill(odd, random.Random(seed))
    for _ in range(2):  # the second time with what the gate remembers
        report = server.check(odd)
        assert "error" not in report, report["error"]
        for problem in report["problems"]:
            assert problem["path"] != "dags", problem
            assert os.path.lexists(odd.path / _as_named(problem["path"])), problem
    assert server.check(tree)["problems"] == []


def _as_named(path: str) -> str:
    """Undo `report.printable`: no name here has a backslash of its own."""
    return re.sub(r"\\u(dc[0-9a-f]{2})", lambda match: chr(int(match[1], 16)), path)
