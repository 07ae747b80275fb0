"""bin/audit: known vulnerabilities of what is pinned have a reason, and silence is never taken for safety.

A server on this machine speaks the protocol of OSV, with pip-audit as its real client.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from flask import Flask, request

from tests.policy.conftest import ROOT
from tests.served import served

HASH = f"--hash=sha256:{'0' * 64}"
LOCK = f"flask==1.0 \\\n    {HASH}\nweb-kit==2.0 ; python_full_version < '3.9' \\\n    {HASH}\n"
OTHER_LOCK = f"Flask[async]==2.0 \\\n    {HASH}\nweb.kit==2.00 \\\n    {HASH}\n"


class Database:
    """A database of vulnerabilities that tests fill, and that counts what it is asked."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        """Packages for which it answers with an error."""
        self.url = ""
        self.add("pycrypto", "2.6.1", "PYSEC-2018-97", "CVE-2018-6594")
        self.app = Flask(__name__)
        self.app.add_url_rule("/v1/query", view_func=self.answer, methods=["POST"])

    def add(self, package: str, version: str, *ids: str, fixed: str = "") -> None:
        """Know one more vulnerability, by its own name and those that others give it."""
        events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
        affected = {
            "package": {"name": package, "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        entry = {"id": ids[0], "aliases": list(ids[1:]), "summary": "a fault", "affected": [affected]}
        self.known.setdefault((package, version), []).append(entry)

    def answer(self) -> Any:
        """Answer one question as OSV does; what is not known has an empty document."""
        question = json.loads(request.get_data())
        pin = question["package"]["name"], question["version"]
        self.asked.append(pin)
        if pin[0] in self.broken:
            return {"code": 13}, 500
        return {"vulns": self.known[pin]} if pin in self.known else {}


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    with served(database.app) as address:
        database.url = f"{address}/v1/query"
        yield database


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two lock files, one beside it that is no part of it, and nothing accepted."""
    for name, text in {
        "requirements.lock": LOCK,
        "image/locks/1.txt": OTHER_LOCK,
        "notes.txt": "flask is pinned elsewhere\n",
        ".config/accepted-findings.yml": "[]\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    (tmp_path / "untracked.lock").write_text("jinja2==1.0\n")
    return tmp_path


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """bin/audit as a module."""
    loader = importlib.machinery.SourceFileLoader("audit", str(ROOT / "bin/audit"))
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Its data classes look there for the names in their annotations.
    sys.modules["audit"] = module
    loader.exec_module(module)
    return module


def audit(project: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run bin/audit with the real pip-audit, which takes more than a second for each start."""
    command = [sys.executable, str(ROOT / "bin/audit"), f"--project={project}", f"--osv-url={url}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass
class Compared:
    """What bin/audit makes of given findings, without pip-audit; `run` returns status, output and errors."""

    program: ModuleType
    project: Path
    capsys: pytest.CaptureFixture[str]
    findings: list[tuple[str, ...]] = field(default_factory=list)
    """Package, version and names of each vulnerability."""

    def run(self) -> tuple[int, str, str]:
        status = self.program.main([f"--project={self.project}", "--osv-url=http://127.0.0.1:1/"])
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    def ask(self, service: list[str], pins: list[Any], cache: Path) -> set[Any]:
        """Stand in the place of pip-audit."""
        return {
            self.program.Finding(package, version, tuple(ids), ("9.9",))
            for package, version, *ids in self.findings
            if self.program.Pin(package, version) in pins
        }


@pytest.fixture
def compared(
    program: ModuleType, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Compared:
    compared = Compared(program, project, capsys)
    monkeypatch.setattr(program, "ask", compared.ask)
    return compared


def accept(project: Path, *entries: dict[str, Any]) -> None:
    (project / ".config/accepted-findings.yml").write_text(yaml.safe_dump(list(entries)))


def accepted(
    locks: list[str], findings: dict[str, list[str]], reason: str = "no version without it"
) -> dict[str, Any]:
    return {"reason": reason, "locks": locks, "findings": findings}


def test_new_finding_fails_with_all_that_is_needed(project: Path, database: Database) -> None:
    """Package, version, name, remedy and lock file. Each pin is looked up, whichever Python it is for."""
    database.add("web-kit", "2.0", "GHSA-aaaa", "CVE-2030-1", fixed="2.1")
    # PyPI has some of them twice.
    database.add("web-kit", "2.0", "PYSEC-2030-1", "CVE-2030-1", fixed="2.1")
    database.add("flask", "1.0", "PYSEC-2030-2")
    run = audit(project, database.url)
    assert run.returncode == 1, run.stderr
    assert [line for line in run.stdout.splitlines() if line.startswith("NEW: ")] == [
        "NEW: image/locks/1.txt: web-kit 2.0: CVE-2030-1, fixed in 2.1",
        "NEW: requirements.lock: flask 1.0: PYSEC-2030-2, no version without it",
        "NEW: requirements.lock: web-kit 2.0: CVE-2030-1, fixed in 2.1",
    ]
    assert "3 versions in 2 lock files" in run.stdout
    asked = [pin for pin in database.asked if pin[0] != "pycrypto"]
    assert sorted(asked) == [("flask", "1.0"), ("flask", "2.0"), ("web-kit", "2.0")]


def test_new_finding_is_one_reason_away_from_being_accepted(compared: Compared) -> None:
    """The entry that is printed is refused as long as it has none."""
    record = compared.project / ".config/accepted-findings.yml"
    compared.findings = [("web-kit", "2.0", "CVE-2030-1"), ("flask", "1.0", "PYSEC-2030-2")]
    status, output, _ = compared.run()
    assert status == 1
    entries = output.split("with a reason:\n")[1]
    record.write_text(entries)
    assert compared.run()[0] == 2
    record.write_text(entries.replace("''", "known"))
    status, output, _ = compared.run()
    assert (status, "3 accepted findings, 0 new" in output) == (0, True)


@pytest.mark.parametrize("name", ["GHSA-aaaa", "PYSEC-2030-1", "CVE-2030-1"])
def test_accepted_finding_passes_by_any_of_its_names(compared: Compared, name: str) -> None:
    """Databases call the same vulnerability by different names."""
    compared.findings = [("web-kit", "2.0", "GHSA-aaaa", "CVE-2030-1", "PYSEC-2030-1")]
    accept(compared.project, accepted(["requirements.lock", "image/locks/1.txt"], {"web-kit": [name]}))
    status, output, _ = compared.run()
    assert (status, "2 accepted findings, 0 new" in output) == (0, True)


def test_finding_is_accepted_for_its_lock_file_only(compared: Compared) -> None:
    compared.findings = [("web-kit", "2.0", "CVE-2030-1")]
    accept(compared.project, accepted(["requirements.lock"], {"web-kit": ["CVE-2030-1"]}))
    status, output, _ = compared.run()
    assert status == 1
    assert "NEW: image/locks/1.txt: web-kit 2.0: CVE-2030-1" in output
    assert "NEW: requirements.lock" not in output


def test_accepted_finding_that_is_gone_is_reported(compared: Compared) -> None:
    accept(compared.project, accepted(["requirements.lock"], {"web-kit": ["CVE-2030-1"]}))
    status, output, _ = compared.run()
    assert status == 0
    assert output.startswith(
        "No longer found, remove it from .config/accepted-findings.yml: "
        "requirements.lock: web-kit CVE-2030-1\n"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (accepted(["requirements.lock"], {"flask": ["CVE-1"]}, reason=" "), "$[0].reason: "),
        (
            {"locks": ["requirements.lock"], "findings": {"flask": ["CVE-1"]}},
            "'reason' is a required property",
        ),
        (accepted([], {"flask": ["CVE-1"]}), "$[0].locks: "),
        (accepted(["requirements.lock"], {"flask": []}), "$[0].findings.flask: "),
        (accepted(["requirement.lock"], {"flask": ["CVE-1"]}), "requirement.lock is no lock file"),
        (accepted(["requirements.lock"], {"jinja2": ["CVE-1"]}), "requirements.lock has no package jinja2"),
        (
            {**accepted(["requirements.lock"], {"flask": ["CVE-1"]}), "until": "2030"},
            "'until' was unexpected",
        ),
    ],
)
def test_wrong_record_is_refused(compared: Compared, entry: dict[str, Any], message: str) -> None:
    accept(compared.project, entry)
    status, output, errors = compared.run()
    assert (status, output) == (2, "")
    assert message in errors


def test_finding_is_accepted_once(compared: Compared) -> None:
    """Of two reasons one would be wrong."""
    accept(compared.project, *[accepted(["requirements.lock"], {"flask": ["CVE-1"]})] * 2)
    status, _, errors = compared.run()
    assert (status, "flask CVE-1 is there twice for requirements.lock" in errors) == (2, True)


def test_answer_counts_for_the_day_and_the_locks(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of accepted findings is compared each time."""
    compared.findings = [("flask", "1.0", "CVE-2030-1")]
    first = compared.run()[1]
    asked: list[Any] = []

    def ask(service: list[str], pins: list[Any], cache: Path) -> set[Any]:
        asked.extend(pins)
        return set()

    monkeypatch.setattr(compared.program, "ask", ask)
    status, second, _ = compared.run()
    assert (status, asked) == (1, [])
    assert "earlier today" in second
    assert second.splitlines()[0] == first.splitlines()[0]
    lock = compared.project / "requirements.lock"
    lock.write_text(lock.read_text().replace("flask==1.0", "flask==1.1"))
    assert compared.run()[0] == 0
    assert compared.program.Pin("flask", "1.1") in asked


def assert_not_audited(run: subprocess.CompletedProcess[str]) -> None:
    """It says that nothing is known, and no number of findings."""
    assert run.returncode == 3, run.stdout + run.stderr
    assert run.stderr.startswith("WARNING: NOT AUDITED, no database of vulnerabilities answered:\n")
    assert run.stdout == ""


def test_silence_is_no_clean_result(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        run = audit(project, f"http://127.0.0.1:{free.getsockname()[1]}/v1/query")
    assert_not_audited(run)
    assert "Connection refused" in run.stderr


def test_database_that_knows_nothing_is_none(project: Path, database: Database) -> None:
    """As an index that has the packages without their vulnerabilities; one question is enough to see it."""
    database.known.clear()
    run = audit(project, database.url)
    assert_not_audited(run)
    assert "no vulnerability of pycrypto" in run.stderr
    assert database.asked == [("pycrypto", "2.6.1")]


def test_half_an_answer_is_none(project: Path, database: Database) -> None:
    """What was found before is not told as if it were all, and not kept."""
    database.add("flask", "1.0", "CVE-2030-1")
    database.broken = {"web-kit"}
    assert_not_audited(audit(project, database.url))
    assert not (project / ".cache/audit.json").exists()


def test_every_lock_file_of_the_project_is_found(program: ModuleType) -> None:
    """Each tracked file with hashes of packages, and what the image installs beside its lock."""
    hashes = ["grep", "--files-with-matches", "--extended-regexp", "^ +--hash=sha256:[0-9a-f]{64}"]
    tracked = ["git", "-C", str(ROOT), *hashes]
    with_hashes = subprocess.run(tracked, capture_output=True, text=True, check=True).stdout.split()
    found = program.read_locks(ROOT)
    assert set(with_hashes) < set(found)
    assert "images/airflow/requirements.txt" in found
    assert all(len(found[lock]) > 10 for lock in with_hashes)


def test_record_of_the_project_is_right(program: ModuleType) -> None:
    """Also where no database can be asked."""
    assert program.read_accepted(ROOT, program.read_locks(ROOT))


def test_no_package_of_the_project_is_the_probe(program: ModuleType) -> None:
    """Its findings would be left out."""
    pins = set().union(*program.read_locks(ROOT).values())
    assert program.PROBE.package not in {pin.package for pin in pins}
