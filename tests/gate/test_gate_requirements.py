"""Requirements: the gate takes what pip takes, and refuses what the image has not."""

from __future__ import annotations

import pytest

from tests.gate.gate_server import Server, Tree

PATH = "images/airflow/requirements.txt"
HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    "content",
    [
        "# the team's\n--prefer-binary\n\n  Jinja2>=2  # used\nonly-there; python_version < '3'\n",
        "git+https://git.example.org/team/tools.git@main\n",
        "git+https://git.example.org/team/tools.git#egg=jinja2\n",
        "git+ssh://git@git.example.org/team/tools.git#subdirectory=a&egg=Jinja2\n",
        "jinja2 @ git+https://git.example.org/team/tools.git\njinja2@https://example.org/jinja2.zip\n",
        "https://${USER}:${TOKEN}@example.org/tools.tar.gz\n",
        f"jinja2>=2 \\\n    {HASH} \\\n    {HASH}\n",
        f"jinja2>=2 \\\r\n    {HASH}\r\n",
        "./wheels/tools.zip\nfile:///wheels/tools\nwheels/tools.tar.gz\n",
        "tools-1.0.tar.gz\n",
        "-e ./tools\n-r more.txt\n--editable git+https://example.org/a.git\n-c constraints.txt\n",
        "jinja2[i18n]>=2\njinja2>=2 ; extra == 'none'\n",
        "jinja2 --config-settings=key=value\n",
        "jinja2\n".encode("utf-16"),
        b"\xef\xbb\xbfjinja2\n",
        b"# -*- coding: latin-1 -*-\njinja2 # \xfc\n",
    ],
)
def test_what_pip_takes_passes(server: Server, tree: Tree, content: str | bytes) -> None:
    tree.write(PATH, content)
    assert server.check(tree)["problems"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("surely-not-there==1.0  # new\n", "lacks surely-not-there==1.0"),
        (f"surely-not-there==1.0 {HASH}\n", "lacks surely-not-there==1.0"),
        ("packaging==0.1\n", "not packaging==0.1"),
        ("what is this\n", "'what is this' is not a requirement"),
        ("./wheels/packaging-0.1-py3-none-any.whl\n", "not packaging==0.1"),
        (
            "https://example.org/surely_not_there-2.0-py3-none-any.whl#sha256=0\n",
            "lacks surely-not-there==2.0",
        ),
        ("git+https://example.org/a.git#egg=surely-not-there\n", "lacks surely-not-there"),
        ("surely-not-there @ git+https://example.org/a.git\n", "lacks surely-not-there"),
        (b"jinja2 # \xff\n", "encoding is not UTF-8"),
    ],
)
def test_what_the_image_has_not_is_refused(
    server: Server, tree: Tree, content: str | bytes, message: str
) -> None:
    tree.write(PATH, content)
    (problem,) = server.check(tree)["problems"]
    assert (problem["kind"], problem["path"]) == ("requirement", PATH)
    assert message in problem["message"]
