"""Whatever a commit has in it: it is live and equal to its blobs, or refused with a path, and the next one is
live.

FUZZ_EXAMPLES=1000 tries more, and others each time.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import hypothesis
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from webhook.app import create_app
from webhook.settings import RepositorySettings, Settings
from webhook.sync import Outcome, Syncer
from webhook.trees import printable

from tests.webhook.doubles import GateDouble, Remote, VaultDouble
from tests.webhook.repository import (
    EXECUTABLE,
    REGULAR,
    SUBMODULE,
    SYMLINK,
    File,
    Objects,
    Tree,
    content_of,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))
fuzz = hypothesis.settings(
    max_examples=EXAMPLES or 25, derandomize=not EXAMPLES, deadline=None, database=None
)

SIZE_LIMIT = 100 * 2**10  # bytes
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"

PLAIN_NAMES = [
    *(b"a", b"b.py", b"c.txt", b"d", b"\xc3\xa9.py", b"-rf", b" ", b"git~1", b"a\\b", b"a\nb", b"con"),
    b".airflowignore",
]
ODD_NAMES = [
    *(b".git", b".GIT", b".Git", b".gitmodules", b".gitignore", b"..", b".", b"\xe9.py", b"\xff", b"n" * 255),
    *(b"n" * 256, b"HEAD.lock", b".g\xe2\x80\x8cit", b"\xed\xb3\xa9", b"{{ x }}", b"<b>", b'"', b"\x1b[31m"),
]
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [
            *(b"", b"a = 1\n", b"a = 1\r\n", b"a\rb\n\r\n", b"$Id$\n", b"$Id: 1234 $\r\n", b"$Format:%H$\n"),
            *("é\r\n".encode("utf-16"), "é\n".encode("utf-16-le"), b"\xe9\n", b"\0\r\n", b"\xef\xbb\xbf\r\n"),
            b"x\r\n" * (SIZE_LIMIT // 3),
        ]
    ),
)
PATTERNS = [b"*", b"*.py", b"*.txt", b"a", b"dags/**", b"/b.py", b"[attr]m", b"!x", b'"a b"', b"\xff"]
STATES = [
    *(b"text", b"-text", b"!text", b"text=auto", b"eol=crlf", b"eol=lf", b"crlf", b"-crlf", b"crlf=input"),
    *(b"working-tree-encoding=UTF-16", b"working-tree-encoding=no-such", b"working-tree-encoding"),
    *(b"ident", b"binary", b"filter=lfs", b"filter", b"m", b"export-ignore", b"export-subst", b"diff=x"),
    *(b"merge=union", b"whitespace=cr-at-eol"),
]
ATTRIBUTES = st.lists(
    st.tuples(st.sampled_from(PATTERNS), st.lists(st.sampled_from(STATES), max_size=4)),
    min_size=1,
    max_size=4,
).map(lambda lines: File(b"\n".join(b" ".join([pattern, *states]) for pattern, states in lines)))


def paths(names: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda top, rest: b"/".join([*top, *rest]),
        st.sampled_from([(), (b"dags",), (b"dags", b"utils")]),
        st.lists(names, min_size=1, max_size=3),
    )


PLAIN_FILES = st.builds(File, CONTENTS, st.sampled_from([REGULAR, EXECUTABLE]))
ODD_FILES = st.one_of(
    st.builds(File, st.just(LFS) | st.just(b"x" * (SIZE_LIMIT + 1))),
    st.just(File(b"", SUBMODULE)),
    st.builds(
        File,
        st.lists(st.sampled_from([b"..", b"a", b"dags", b".", b"", b".git", b"\xff"]), max_size=4).map(
            b"/".join
        )
        | st.sampled_from([b"/etc/passwd", b"a\0b", b"x" * 4096, b"x" * 300, b"/"])
        | st.binary(max_size=20),
        st.just(SYMLINK),
    ),
)
NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"_"))


def without_clashes(files: Tree) -> dict[bytes, File]:
    """Leave out what is in a folder that is a file as well."""
    return {
        path: file
        for path, file in files.items()
        if not any(path[:end] in files for end in range(len(path)) if path[end : end + 1] == b"/")
    }


FOLDERS = st.sampled_from([b"", b"dags/", b"dags/utils/"])
PLAIN = st.builds(
    lambda files, attributes: without_clashes({b"dags/one.py": File(b"one = 1\r\n"), **files, **attributes}),
    st.dictionaries(paths(st.sampled_from(PLAIN_NAMES)), PLAIN_FILES, max_size=6),
    st.dictionaries(FOLDERS.map(lambda folder: folder + b".gitattributes"), ATTRIBUTES, max_size=3),
)
ODD = st.builds(
    lambda plain, files: {**plain, **files},
    PLAIN | st.just({}),
    st.dictionaries(
        paths(st.sampled_from(PLAIN_NAMES) | st.sampled_from(ODD_NAMES) | NAMES),
        ODD_FILES | PLAIN_FILES,
        max_size=5,
    ),
)


@dataclass
class Host:
    """A host with a sync and a status page, and the repository that it follows."""

    settings: Settings
    objects: Objects
    page: FlaskClient
    head: str

    @property
    def live(self) -> Path:
        return (self.settings.trees_dir / "current").resolve()

    def push(self, files: Tree) -> Outcome:
        """Push a commit of these files, sync, and check what has to be true whatever they are."""
        before = self.live
        self.head = self.objects.push(self.objects.commit(files, [self.head]))
        result = Syncer(self.settings).sync("test")
        assert result.commit == self.head, result.detail
        if result.outcome is Outcome.SWITCHED:
            assert self.live.name == self.head
            assert content_of(self.live) == files
            assert Syncer(self.settings).sync("test").outcome is Outcome.UNCHANGED
        else:
            assert result.outcome is Outcome.REFUSED, result.detail
            told = {reason.path for reason in result.reasons if reason.kind != "layout"}
            assert told or not any(path.startswith(b"dags/") for path in files)
            assert told <= {printable(os.fsdecode(path)) for path in files}
            assert self.live == before
        assert [path.name for path in (self.settings.trees_dir / "worktrees").iterdir()] == [self.live.name]
        assert self.page.get("/", headers={"Accept": "text/html"}).status_code == 200
        return result.outcome


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("fuzz")
    remote = Remote(folder / "remote")
    head = remote.commit({"dags/one.py": ""})
    with GateDouble(folder / "gate.sock", folder / "trees") as gate:
        settings = Settings(
            environment="development",  # nothing runs beside the test
            trees_dir=folder / "trees",
            state_dir=folder / "state",
            repository=RepositorySettings(
                url=str(remote.path), branch="production", deploy_key=None, known_hosts=None, timeout=60
            ),
            gate_socket=gate.path,
            blob_limit=SIZE_LIMIT,
            airflow_url="http://127.0.0.1:9",
        )
        page = create_app({"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()}).test_client()
        settings = replace(settings, keep_trees_seconds=0, keep_trees_count=0)
        assert Syncer(settings).sync("test").outcome is Outcome.SWITCHED
        yield Host(settings, Objects(remote.path), page, head)


@fuzz
@given(files=PLAIN)
def test_commit_of_plain_files_goes_live(host: Host, files: Tree) -> None:
    """Whatever their content, and whatever attributes are set for them."""
    assert host.push(files) is Outcome.SWITCHED


@fuzz
@given(files=ODD)
def test_odd_commit_is_live_or_refused_and_keeps_nothing_up(host: Host, files: Tree) -> None:
    host.push(files)
    assert host.push({b"dags/one.py": File(b"one = 1\n")}) is Outcome.SWITCHED
