"""A host with two releases, whose images are virtual environments with the real Airflow of each version.

`bin/test` makes them in .cache/. Where one is missing, what needs it is skipped and says so; in CI it fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_release import cli
from airflow_release.core.host import Host as ReleaseHost
from airflow_release.report.release_folder import ReleaseFolder

from tests.missing import missing

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache"
DOUBLE = Path(__file__).with_name("docker_double.py")
SECRET = "do-not-tell-anybody"

Json = dict[str, Any]


def needs(*versions: str) -> None:
    """Skip the test where a version's environment is missing, or have CI fail."""
    for version in versions:
        if not (CACHE / f"airflow-{version}/bin/python").exists():
            missing(f"bin/test makes .cache/airflow-{version}")


class Host:
    """/srv/airflow with its live tree, and releases/next."""

    def __init__(self, folder: Path, old: str, new: str) -> None:
        self.directory, self.next = folder / "airflow", folder / "airflow/releases/next"
        self.output = self.next / "report.json"
        self.log = folder / "docker.log"
        self.next.mkdir(parents=True)
        self.tree = self.directory / "trees/worktrees/0123abc"
        (self.tree / "dags").mkdir(parents=True)
        (self.directory / "trees/current").symlink_to("worktrees/0123abc")
        for release, version in ((self.directory, old), (self.next, new)):
            (release / ".env").write_text(
                "# Ansible managed\n"
                f"AIRFLOW_VERSION={version}\nAIRFLOW_IMAGE=airflow-platform/airflow:{version}-0123456789ab\n"
            )
            self.set(release, {})

    def set(self, release: Path, settings: dict[str, str]) -> None:
        """Give these variables to a release's Airflow services, beside a secret."""
        environment = {"HOME": "/home/airflow", "AIRFLOW__CORE__FERNET_KEY": SECRET, **settings}
        services = {
            "airflow-scheduler": {"environment": environment},
            "airflow-worker": {"environment": environment},
            "weather": {"environment": None},
            "redis": {},
        }
        (release / "project.json").write_text(json.dumps({"name": "airflow", "services": services}))

    def write(self, name: str, text: str) -> None:
        """Put a file into the live tree."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *options: str) -> int:
        """Run the command and return its status. Raises ReleaseError, which `cli` turns into words."""
        arguments = cli.parser().parse_args(["report", *options])
        return int(arguments.run(ReleaseHost(self.directory), arguments))

    def report(self, *options: str) -> Json:
        """Run the command and return its document."""
        assert self.run(*options) == 0
        return dict(json.loads(self.output.read_text()))


@pytest.fixture
def make_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    """Return a maker of hosts, with the double of `docker` on PATH."""
    use_double(tmp_path, monkeypatch)

    def make(old: str = "2.6.1", new: str = "2.6.1") -> Host:
        needs(old, new)
        return Host(tmp_path, old, new)

    return make


def use_double(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the double of `docker` on PATH."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "docker").symlink_to(DOUBLE)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_DOUBLE_ENVIRONMENTS", str(CACHE))
    monkeypatch.setenv("DOCKER_DOUBLE_GATE", str(ROOT / "webhook/src/gate_check"))
    monkeypatch.setenv("DOCKER_DOUBLE_LOG", str(folder / "docker.log"))


@pytest.fixture(scope="session")
def ask_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Json]]:
    """Return a function that asks a version's image once: for its facts, or what it says of some files."""
    known: dict[tuple[object, ...], Json] = {}

    def ask(version: str, files: dict[str, str] | None = None) -> Json:
        needs(version)
        key = (version, *(files or {}).items())
        if key not in known:
            host = Host(tmp_path_factory.mktemp("host"), version, version)
            for name, text in (files or {}).items():
                host.write(name, text)
            release = ReleaseFolder(ReleaseHost(host.directory), host.directory)
            known[key] = release.facts() if files is None else release.parse(release.live_tree())
        return known[key]

    with pytest.MonkeyPatch.context() as monkeypatch:
        use_double(tmp_path_factory.mktemp("double"), monkeypatch)
        yield ask
