"""What commits can do to the gate: each is a refusal with the file's name, and the gate goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gate.gate_server import Server, Tree, problems

MIB = 2**20
# Airflow takes a file for a DAG's when it has these two words.
BROKEN: dict[str, tuple[str, str | bytes]] = {
    "syntax.py": ("syntax", "def broken(:  # airflow dag\n"),
    "null.py": ("syntax", "# airflow dag\nx = 'a\0b'\n"),
    "import.py": ("import", "import surely_not_there  # airflow dag\n"),
    "exit.py": ("import", "# airflow dag\nimport sys\nsys.exit()\n"),
    "deep.py": ("import", "# airflow dag\ndef f(): f()\nf()\n"),
    "slow.py": ("slow", "import time  # airflow dag\ntime.sleep(600)\n"),
    "loops_without_a_pipe.py": (
        "slow",
        "# airflow dag\nimport os, time\nos.closerange(3, 256)\nwhile True:\n    time.sleep(1)\n",
    ),
    "memory.py": ("memory", "# airflow dag\nkept = bytearray(2 * 2**30)\n"),
    "crash.py": ("crash", "# airflow dag\nimport os\nos.kill(os.getpid(), 11)\n"),
    "killed.py": ("crash", "# airflow dag\nimport os\nos.kill(os.getpid(), 9)\n"),
    "ends.py": ("crash", "# airflow dag\nimport os\nos._exit(0)\n"),
    "without_a_pipe.py": ("crash", "# airflow dag\nimport os\nos.closerange(3, 256)\n"),
    "writes.py": (
        "crash",
        "# airflow dag\nimport os\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    if int(name) > 2:\n"
        "        try:\n            os.write(int(name), b'{]\\n')\n        except OSError:\n            pass\n"
        "import time; time.sleep(600)\n",
    ),
    "large.py": ("memory", b"# airflow dag\n" + b"x = 1\n" * (20 * MIB // 6)),
    "utils/large.py": ("memory", b"x = 1\n" * (20 * MIB // 6)),
    "\udcff.py": ("import", "# airflow dag\nimport surely_not_there\n"),
    "utils/\udcff.py": ("syntax", "def broken(:\n"),
}


@pytest.fixture(scope="module")
def broken(server: Server) -> Iterator[dict[str, Any]]:
    """One report for all of them, since the slow ones take their time."""
    tree = Tree(server.root / "worktrees/broken")
    for name, (_, content) in BROKEN.items():
        tree.write(f"dags/{name}", content)
    before = server.most_memory()
    report = server.check(tree)
    yield {**report, "memory": server.most_memory() - before}
    shutil.rmtree(tree.path)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused(broken: dict[str, Any], name: str) -> None:
    kind, _ = BROKEN[name]
    path = f"dags/{name}".encode(errors="backslashreplace").decode()
    assert [problem for problem in problems(broken) if problem[1] == path] == [(kind, path)]


def test_only_broken_files_are_refused(broken: dict[str, Any]) -> None:
    assert len(broken["problems"]) == len(BROKEN)


def test_broken_files_cost_the_server_no_memory(broken: dict[str, Any]) -> None:
    """It reads them to know whether they changed; all else happens in its children."""
    assert broken["memory"] < 64 * MIB


def test_next_commit_is_checked_as_ever(broken: dict[str, Any], server: Server, tree: Tree) -> None:
    assert server.check(tree)["problems"] == []


def test_fork_within_a_file_is_no_second_answer(server: Server, tree: Tree) -> None:
    tree.write("dags/forks.py", "# airflow dag\nimport os\nos.fork()\n")
    assert server.check(tree)["problems"] == []


def test_reserved_memory_is_no_used_memory(server: Server, tree: Tree) -> None:
    """Libraries reserve some for each core: with many cores more than a limit, of which they use little."""
    tree.write(
        "dags/reserves.py",
        "# airflow dag\nimport mmap, threading\n"
        "reserved = mmap.mmap(-1, 16 * 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\n"
        "end = threading.Event()\n"
        "for _ in range(96):\n    threading.Thread(target=end.wait, daemon=True).start()\n",
    )
    assert server.check(tree)["problems"] == []


@pytest.mark.parametrize("session", [False, True], ids=["", "in a session of its own"])
def test_what_a_file_prints_and_starts_disturbs_nobody(server: Server, tree: Tree, session: bool) -> None:
    command = ["sleep", f"{1_000_000 + os.getpid()}.{int(session)}"]
    tree.write(
        "dags/noisy.py",
        "# airflow dag\nimport os, subprocess, sys\nprint('{' * 100_000)\nsys.stderr.write('x')\n"
        f"subprocess.Popen({command}, start_new_session={session})\n",
    )
    assert server.check(tree)["problems"] == []
    deadline = time.monotonic() + 60
    asking = ["pgrep", "-f", f"^{' '.join(command)}$"]
    while subprocess.run(asking, stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline, "what the file started is still running"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("links", "refused"),
    [
        ({"dags/again": "utils"}, ["dags/again"]),
        ({"dags/again": "../dags/utils"}, ["dags/again"]),
        ({"dags/itself": "."}, ["dags/itself"]),
        ({"dags/utils/up": ".."}, ["dags/utils/up"]),
        ({"dags/all": ".."}, ["dags/all"]),
        (
            {"dags/a/shared": "../../shared", "dags/b/shared": "../../shared"},
            ["dags/a/shared", "dags/b/shared"],
        ),
        ({"dags/a/shared": "../../shared"}, []),
        ({"dags/ignored": "utils", "dags/dead": "nowhere"}, []),
    ],
    ids=str,
)
def test_link_to_a_folder_that_is_read_already(
    server: Server, tree: Tree, links: dict[str, str], refused: list[str]
) -> None:
    """Airflow stops listing there, and the scheduler with it."""
    tree.write("shared/module.py", "")
    tree.write("dags/.airflowignore", "ignored\n")
    for name, target in links.items():
        tree.link(name, target)
    assert problems(server.check(tree)) == [("symlink", name) for name in refused]


IGNORES: dict[str, tuple[dict[str, str | bytes], dict[str, str], list[str]]] = {
    "no text": ({"dags/utils/.airflowignore": b"\xff\n"}, {}, ["dags/utils/.airflowignore"]),
    "no text, behind a link": (
        {"shared/.airflowignore": b"\xff\n"},
        {"dags/shared": "../shared"},
        ["dags/shared/.airflowignore"],
    ),
    "no text, where nothing is listed": (
        {"dags/old/.airflowignore": b"\xff\n", "dags/.airflowignore": "old\n"},
        {},
        [],
    ),
    "a folder": ({"dags/.airflowignore/module.py": ""}, {}, []),
    "a folder behind a link": ({"shared/module.py": ""}, {"dags/.airflowignore": "../shared"}, []),
    "a link to nothing": ({}, {"dags/.airflowignore": "nowhere"}, []),
    "a link to itself": ({}, {"dags/.airflowignore": ".airflowignore"}, []),
    "a link to a name that is too long": (
        {},
        {"dags/utils/.airflowignore": "n" * 300},
        ["dags/utils/.airflowignore"],
    ),
}


@pytest.mark.parametrize("kind", IGNORES)
def test_ignore_file_that_is(server: Server, tree: Tree, kind: str) -> None:
    """Airflow reads those that are files, in the folders that it lists, and no others."""
    files, links, refused = IGNORES[kind]
    for name, content in files.items():
        tree.write(name, content)
    for name, target in links.items():
        tree.link(name, target)
    report = server.check(tree)
    assert problems(report) == [("syntax", name) for name in refused]
    assert not [each for each in report["problems"] if str(tree.path) in each["message"]]


def test_file_may_look_for_a_path_that_cannot_be(server: Server, tree: Tree) -> None:
    tree.write(
        "dags/looks.py", "# airflow dag\nimport os\nassert not os.path.exists(__file__ + '/a\\0b\\ud800')\n"
    )
    assert server.check(tree)["problems"] == []
    assert server.check(tree)["files"]["dags/looks.py"]["cached"]


def test_tree_for_which_there_is_no_time(server: Server, tree: Tree) -> None:
    """A refusal needs no more than one reason; to let a tree pass, all of it has to be checked."""
    tree.write("dags/never_seen.py", "# airflow dag of this test\n")
    assert "5 of 6 files were checked in 0 s" in server.check(tree, seconds=0)["error"]
    assert server.check(tree)["problems"] == []
    assert server.check(tree, seconds=0)["problems"] == []
    tree.link("dags/again", "utils")
    tree.write("dags/never_seen.py", "# airflow dag of this test, again\n")
    assert problems(server.check(tree, seconds=0)) == [("symlink", "dags/again")]


LEFT = {
    "files": "open(folder + '/large', 'wb').write(bytes(2**20))",
    "a folder that nobody may read": "os.makedirs(folder + '/a/b')\nos.chmod(folder + '/a', 0)",
    "folders nested deeper than Python's stack": (
        "os.chdir(folder)\nfor _ in range(1_500):\n    os.mkdir('a')\n    os.chdir('a')\nos.chdir('/')"
    ),
    "many names, and odd ones": (
        "for name in range(3_000):\n    open(f'{folder}/-rf {name}\\n', 'w').close()\n"
        "os.mkfifo(folder + '/\\udcff')"
    ),
    "links that lead elsewhere": "os.symlink(os.path.dirname(__file__), folder + '/link')",
    "less than was there": (
        "import shutil\nfor each in os.listdir(folder):\n    shutil.rmtree(f'{folder}/{each}')"
    ),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_a_file_leaves_in_scratch_is_gone(server: Server, tree: Tree, left: str) -> None:
    """Otherwise it fills the memory that the gate has, and fine commits are refused until it is restarted."""
    before = _content(server)
    code = f"# airflow dag\nimport os\nfolder = os.environ['TMPDIR']\n{LEFT[left]}\n"
    tree.write("dags/leaves.py", code)
    assert server.check(tree)["problems"] == []
    assert _content(server) == before
    assert (tree.path / "dags/leaves.py").is_file()


def _content(server: Server) -> dict[str, str]:
    server.ask({"ping": True})  # it answers once the folder is as it was before the last check
    return {
        str(path): oct(path.lstat().st_mode) + (path.read_bytes().hex() if path.is_file() else "")
        for path in server.scratch.rglob("*")
    }


def test_variable_that_a_file_sets_is_not_there_for_the_next_commit(server: Server, tree: Tree) -> None:
    """The gate's database is empty, as docs/write-and-ship-a-dag.md says, whatever was checked before."""
    code = "# airflow dag\nfrom airflow.models import Variable\n"
    tree.write("dags/sets.py", f"{code}Variable.set('a', 'b')\nassert Variable.get('a') == 'b'\n")
    assert server.check(tree)["problems"] == []
    tree.write("dags/sets.py", f"{code}Variable.get('a')\n")
    assert problems(server.check(tree)) == [("import", "dags/sets.py")]
