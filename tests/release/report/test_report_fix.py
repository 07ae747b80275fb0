"""fix.patch: what it changes, that `git apply` takes it, and that both real Airflows parse the result."""

from __future__ import annotations

import ast
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_release.core.host import Host as ReleaseHost
from airflow_release.report import commands, fix, image_edits
from airflow_release.report.release_folder import ReleaseFolder
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.release.report.conftest import ROOT, Host, Json
from tests.release.report.example_dags import DOCKER, FILES, GOOD
from tests.releases import TESTED

MakeHost = Callable[..., Host]
REPORT = ROOT / "release/src/airflow_release/report"
MOVED = {
    "airflow.hooks.base_hook.BaseHook": "airflow.hooks.base.BaseHook",
    "airflow.operators.dummy_operator.DummyOperator": "airflow.operators.empty.EmptyOperator",
    "airflow.operators.python_operator.PythonOperator": "airflow.operators.python.PythonOperator",
    "airflow.operators.sql.BranchSQLOperator": "airflow.providers.common.sql.operators.sql.BranchSQLOperator",
    "airflow.operators.gone.Gone": "airflow.providers.gone.Gone",
}

# A helper that many DAGs share, as teams have them; it is no DAG file itself.
HELPER = """
from airflow.operators.docker_operator import DockerOperator

def task(name):
    return DockerOperator(task_id=name, image="alpine", auto_remove=True)
"""
USES_HELPER = """
from datetime import datetime
from airflow import DAG
from helpers.docker import task

with DAG("{dag_id}", start_date=datetime(2024, 1, 1), schedule=None):
    task("run")
"""
# Edits would mend them, and something else keeps them from both images.
UNMENDED = """
import airflow
if airflow.__version__.startswith("2.11."):
    raise RuntimeError("not here")
"""
REFUSES_EDITS = """
assert "schedule_interval" in open(__file__).read()
"""


def edited(content: bytes | str) -> str | None:
    """Return the new text of a file, None when nothing is changed."""
    raw = content.encode() if isinstance(content, str) else content
    result = image_edits.edited(raw, MOVED, lambda name: ".gone" not in name)
    return result and result[0].decode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DockerOperator(auto_remove = True)", 'DockerOperator(auto_remove = "success")'),
        (
            "d.DockerOperator(task_id='a', auto_remove=False)",
            "d.DockerOperator(task_id='a', auto_remove='never')",
        ),
        (
            "DockerSwarmOperator.partial(auto_remove=True)",
            'DockerSwarmOperator.partial(auto_remove="success")',
        ),
        (
            "from airflow.providers.docker.operators.docker import DockerOperator as D\nD(auto_remove=False)",
            "from airflow.providers.docker.operators.docker import DockerOperator as D\n"
            'D(auto_remove="never")',
        ),
        ("@task.docker(auto_remove=True)\ndef f(): ...", '@task.docker(auto_remove="success")\ndef f(): ...'),
        ("f(default_args=dict(auto_remove=True))", 'f(default_args=dict(auto_remove="success"))'),
        (
            "default_args = {'auto_remove': True, 'a': 'b'}",
            "default_args = {'auto_remove': 'success', 'a': 'b'}",
        ),
        (
            "from airflow import DAG\nDAG('é', schedule_interval=(  # why\n    '@daily'))",
            "from airflow import DAG\nDAG('é', schedule=(  # why\n    '@daily'))",
        ),
        (
            "import airflow as a\nx = 'é'; a.DAG('d', schedule_interval=None)",
            "import airflow as a\nx = 'é'; a.DAG('d', schedule=None)",
        ),
        (
            "from airflow.decorators import dag\n@dag(schedule_interval=None)\ndef f(): ...",
            "from airflow.decorators import dag\n@dag(schedule=None)\ndef f(): ...",
        ),
        (
            "from airflow.operators.dummy_operator import (  # keep\r\n    DummyOperator,\r\n)\r\n",
            "from airflow.operators.empty import (  # keep\r\n    EmptyOperator as DummyOperator,\r\n)\r\n",
        ),
        (
            "from airflow.operators.dummy_operator import DummyOperator as D",
            "from airflow.operators.empty import EmptyOperator as D",
        ),
        (
            "if x:\r\n\tfrom airflow.operators.sql import BranchSQLOperator, Other as O\r\n",
            "if x:\r\n\tfrom airflow.providers.common.sql.operators.sql import BranchSQLOperator\r\n"
            "\tfrom airflow.operators.sql import Other as O\r\n",
        ),
    ],
)
def test_edit(old: str, new: str) -> None:
    """Nothing but the place itself changes."""
    assert edited(old) == new


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "client.containers.run('alpine', auto_remove=True)",  # Docker's own client
        "DockerOperator(auto_remove=flag)",
        "settings = {'auto_remove': True}",
        "DAG(schedule_interval=None)",  # whose DAG?
        "from airflow import DAG\nDAG('d', schedule_interval=None, timetable=t)",
        "from airflow.operators.gone import Gone",  # the new image has not got its new place
        "from airflow.operators.sql import BranchSQLOperator, Other  # why",
        "from airflow.operators.sql import (BranchSQLOperator,  # why\n    Other)",
        "x = 'from airflow.hooks.base_hook import BaseHook'  # auto_remove=True",
        "from .base_hook import BaseHook",
        "def",
        "# coding: latin-1\0",
        "# coding: no-such-encoding\nDockerOperator(auto_remove=True)",
    ],
)
def test_left_alone(text: str) -> None:
    assert edited(text) is None


@pytest.mark.parametrize(
    "content",
    [
        b"# coding: latin-1\nx = '\xe9'\nDockerOperator(auto_remove=True)",
        b"\xef\xbb\xbfx = '\xc3\xa9'\r\nDockerOperator(auto_remove=True)\r\n",
        b"\x0cDockerOperator(auto_remove=True)\n\x0c# page\n",
    ],
)
def test_bytes_around_an_edit_stay(content: bytes) -> None:
    result = image_edits.edited(content, {}, lambda name: True)
    assert result is not None
    assert result[0] in (content.replace(b"True", word) for word in (b'"success"', b"'success'"))


lines = st.lists(
    st.sampled_from([b"a", b"b\n", b"\r\n", b"\xe9\r", b"--- x\n", b"\n", b"c" * 50 + b"\n"]), max_size=12
)


@given(
    lines.map(b"".join),
    lines.map(b"".join),
    st.sampled_from(["dags/a.py", "dags/a b.py", 'dags/"a\\.py', "dags/é/ü.py", "dags/a\tb.py"]),
)
@settings(max_examples=60, deadline=None)
def test_git_applies_any_patch(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes, name: str
) -> None:
    """Whatever the line ends, the last line and the name are."""
    if not old or not new or old == new:
        return
    folder = tmp_path_factory.mktemp("tree")
    file = folder / name
    file.parent.mkdir(parents=True)
    file.write_bytes(old)
    (folder / "fix.patch").write_bytes(image_edits.patch(name, old, new))
    subprocess.run(["git", "apply", "--whitespace=nowarn", "fix.patch"], cwd=folder, check=True, timeout=60)
    assert file.read_bytes() == new


def changed(host: Host) -> list[str]:
    return [file["path"] for file in json.loads(host.output.read_text())["fix"]["files"]]


@pytest.mark.parametrize("old", ["2.5.3", "2.6.1"])
def test_what_the_patch_mends_is_no_longer_in_the_way(
    make_host: MakeHost, capsys: pytest.CaptureFixture[str], old: str
) -> None:
    """Its files work on both images, the running one included; the live tree stays as it is."""
    host = make_host(old, "2.11.2")
    for number in range(16):
        text = DOCKER.format(dag_id=f"load-{number}", auto_remove="True")
        host.write(f"dags/load_{number:02}.py", text.replace("\n", "\r\n"))
    host.write("dags/helpers/docker.py", HELPER)
    for dag_id in ("first", "second"):
        host.write(f"dags/{dag_id}.py", USES_HELPER.format(dag_id=dag_id))
    host.write("dags/unmended.py", UNMENDED + DOCKER.format(dag_id="unmended", auto_remove="True"))
    host.write("dags/refuses.py", DOCKER.format(dag_id="refuses", auto_remove="'success'") + REFUSES_EDITS)
    host.write("dags/good.py", GOOD)
    before = {path: path.read_bytes() for path in host.tree.rglob("*") if path.is_file()}

    report = host.report()
    assert {path: path.read_bytes() for path in host.tree.rglob("*") if path.is_file()} == before
    assert list(host.directory.glob("releases/.fix-*")) == []
    loads = [f"dags/load_{number:02}.py" for number in range(16)]
    assert sorted(report["fix"]["mends"]) == ["dags/first.py", *loads, "dags/second.py"]
    assert changed(host) == ["dags/helpers/docker.py", *loads]
    most, other = report["verdict"]["blocking"]
    assert (most["count"], other["files"][0]["path"]) == (18, "dags/unmended.py")
    said = capsys.readouterr().out.splitlines()
    assert sum("auto_remove" in line for line in said) == 2  # the explanation, and the hint
    assert "       and 3 more in the report" in said
    assert said[-2] == "fix.patch repairs 18 of 19 files: git apply fix.patch"

    apply = ["git", "apply", "--whitespace=nowarn", str(host.next / "fix.patch")]
    subprocess.run(apply, cwd=host.tree, check=True, timeout=60)
    here = ReleaseHost(host.directory)
    for directory, broken in ((host.directory, []), (host.next, ["dags/unmended.py"])):
        gate = ReleaseFolder(here, directory).parse(host.tree)
        assert [problem["path"] for problem in gate["problems"]] == broken
        assert [gate["files"][path]["dag_ids"] for path in loads] == [[f"load-{n}"] for n in range(16)]


def test_helper_whose_readers_get_worse_is_left_out(make_host: MakeHost) -> None:
    """It is no DAG file, so that only its readers can say so."""
    host = make_host("2.6.1", "2.11.2")
    host.write("dags/helpers/docker.py", HELPER.replace("True", "'success'"))
    host.write("dags/first.py", USES_HELPER.format(dag_id="first"))
    checks = 'assert "docker_operator" in open(__file__.replace("second.py", "helpers/docker.py")).read()\n'
    host.write("dags/second.py", USES_HELPER.format(dag_id="second") + checks)
    assert host.report()["fix"] == {"files": [], "mends": [], "quiets": [], "note": ""}


def test_warnings_are_mended_too(make_host: MakeHost) -> None:
    """Nothing is in the way, and the patch spares the next upgrade some work."""
    host = make_host("2.5.3", "2.6.1")
    host.write("dags/as_hinted.py", FILES["dags/as_hinted.py"])
    report = host.report()
    assert report["fix"]["files"] == [
        {"path": "dags/as_hinted.py", "rules": ["moved module", "schedule_interval"]}
    ]
    assert (report["fix"]["mends"], report["fix"]["quiets"]) == ([], ["dags/as_hinted.py"])
    patch = (host.next / "fix.patch").read_text()
    assert "+from airflow.providers.docker.operators.docker import DockerOperator" in patch
    assert [note["text"] for note in report["verdict"]["notes"] if note["kind"] == "fix"] == [
        "fix.patch removes the warnings of 1 file of DAGs."
    ]


def test_clean_dags_are_not_parsed_again(make_host: MakeHost) -> None:
    host = make_host()
    host.write("dags/good.py", GOOD)
    host.report()
    assert sum('"check"' in line for line in host.log.read_text().splitlines()) == 2
    assert (host.next / "fix.patch").read_bytes() == b""


def test_leftover_of_a_killed_report_is_removed(tmp_path: Path) -> None:
    """That of one that runs is not."""
    for number in (1, 4194305):  # process 1 is always there; Linux gives no number above 4194304
        (tmp_path / f".fix-{number}/tree").mkdir(parents=True)
    with fix.shared_folder(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {".fix-1", folder.name}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == [".fix-1"]


def test_report_stands_without_a_patch(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as on a full disk."""
    host = make_host("2.6.1", "2.11.2")
    host.write("dags/nightly_docker.py", FILES["dags/nightly_docker.py"])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    report = host.report()
    assert report["verdict"]["blocking"][0]["count"] == 1
    assert "No space left on device" in report["fix"]["note"]
    assert list(host.directory.glob("releases/.fix-*")) == []


@pytest.mark.parametrize("version", TESTED)
def test_moved_names_are_those_of_the_image(ask_image: Callable[..., Json], version: str) -> None:
    moved = ask_image(version)["moved_names"]
    assert {name: moved[name] for name in MOVED if ".gone" not in name} == {
        name: target for name, target in MOVED.items() if ".gone" not in name
    }
    assert len(moved) > 500


@pytest.mark.parametrize("name", sorted(path.name for path in REPORT.glob("*.py")))
def test_syntax_is_that_of_the_oldest_python(name: str) -> None:
    """Python 3.9 on hosts; what runs in an image keeps to 3.8, which ast knows best."""
    version = (3, 8) if name.startswith("image_") else (3, 9)
    ast.parse((REPORT / name).read_text(), feature_version=version)


def test_terminal_says_nothing_of_a_patch_that_mends_nothing(make_host: MakeHost) -> None:
    host = make_host("2.6.1", "2.11.2")
    host.write("dags/by_version.py", FILES["dags/by_version.py"])
    assert not any("fix.patch" in line for line in commands.verdict_lines(host.report()))
