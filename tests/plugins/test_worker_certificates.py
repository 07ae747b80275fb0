"""The role `worker_certificates`, run by the real ansible-playbook; its hosts are folders of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from onepassword_connect_items import generator

from tests.plugins.conftest import ROOT, write

AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
"""A host that refuses the connection."""
FACTS = (
    "{'pem': worker_certificates_pem | default(''), 'authority': worker_certificates_authority | default('')}"
)
DAY = timedelta(days=1)

new_key: Callable[[], str] = generator("ec_private_key", 40)


def certificate(pem: str) -> x509.Certificate:
    """Return the certificate of a text that may have a key before it."""
    return x509.load_pem_x509_certificate(pem[pem.index("-----BEGIN CERTIFICATE") :].encode())


def fingerprint(pem: str) -> str:
    return sha256(certificate(pem).public_bytes(Encoding.DER)).hexdigest()


class Hosts:
    """A main host and its worker hosts, each a folder, and runs of the role for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = new_key()
        self.main = folder / "main/worker-gateway"
        self.main.parent.mkdir()
        self.output = ""

    def file(self, worker: str) -> Path:
        """Return where a worker host has its key and certificate."""
        return self.folder / worker / "worker.pem"

    @property
    def map(self) -> list[list[str]]:
        """Return the lines of workers.map, each a fingerprint and a name."""
        return [line.split() for line in (self.main / "workers.map").read_text().splitlines()]

    def run(self, *options: str, away: str = "", key: str = "", spare: int = 30) -> dict[str, dict[str, str]]:
        """Run the role; return all facts by host, and give worker hosts their files, as their role does."""
        names = ["one", "two"]
        facts = self.folder / "facts"
        facts.mkdir(exist_ok=True)
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {
            "all": {
                "hosts": {
                    "main": local,
                    **{name: AWAY if name == away else local for name in names},
                }
            }
        }
        variables = {
            "worker_certificates_hosts": [{"name": name, "file": str(self.file(name))} for name in names],
            "worker_certificates_directory": str(self.main),
            "worker_certificates_authority_key": key or self.key,
            "__worker_certificates_owner": str(os.getuid()),
            "__worker_certificates_spare_days": spare,
        }
        plays: list[dict[str, Any]] = [
            {"hosts": "main", "roles": ["worker_certificates"], "name": "Issue", "any_errors_fatal": True},
            {
                "hosts": "all",
                "tasks": [write(FACTS, f"'{facts}/' ~ inventory_hostname", self.folder)],
                "name": "Tell",
            },
        ]
        for name, content in (("hosts.json", inventory), ("variables.json", variables)):
            (self.folder / name).write_text(json.dumps(content))
        (self.folder / "play.yml").write_text(json.dumps([{**play, "gather_facts": False} for play in plays]))
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(self.folder / "hosts.json"),
        ]
        command += ["-e", f"@{self.folder}/variables.json", "-vvv", *options, str(self.folder / "play.yml")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        found: dict[str, dict[str, str]] = {
            path.name: json.loads(path.read_text()) for path in facts.iterdir()
        }
        for name in names:
            if found[name]["pem"] and "--check" not in options:
                self.file(name).parent.mkdir(exist_ok=True)
                self.file(name).write_text(found[name]["pem"])
        return found


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def test_each_host_gets_a_certificate_and_keeps_it(hosts: Hosts) -> None:
    """In a check, which writes nothing, and in later runs. No output has a key."""
    hosts.run("--check")
    assert not hosts.main.exists()
    facts = hosts.run()
    authority = certificate((hosts.main / "authority.pem").read_text())
    names = {
        "gateway": ["*.workers.airflow.internal"],
        "one": ["one.hosts.airflow.internal", "one-copy.hosts.airflow.internal"],
        "two": ["two.hosts.airflow.internal", "two-copy.hosts.airflow.internal"],
    }
    pems = {
        "gateway": (hosts.main / "gateway.pem").read_text(),
        "one": facts["one"]["pem"],
        "two": facts["two"]["pem"],
    }
    assert (hosts.main / "gateway.pem").stat().st_mode & 0o777 == 0o440
    assert (
        facts["one"]["authority"] == facts["two"]["authority"] == (hosts.main / "authority.pem").read_text()
    )
    for name, pem in pems.items():
        issued = certificate(pem)
        issued.verify_directly_issued_by(authority)
        [common] = issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert common.value == name
        alternatives = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert alternatives.get_values_for_type(x509.DNSName) == names[name]
        usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert 364 * DAY < issued.not_valid_after_utc - datetime.now(UTC) < 366 * DAY
        assert isinstance(issued.signature_hash_algorithm, SHA256)
        key = load_pem_private_key(pem.encode(), None)
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert key.public_key().public_bytes(*form) == issued.public_key().public_bytes(*form)
        assert pem.splitlines()[1] not in hosts.output
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert 3649 * DAY < authority.not_valid_after_utc - datetime.now(UTC) < 3651 * DAY
    assert sorted(hosts.map) == sorted([fingerprint(pems[name]), name] for name in ("one", "two"))
    assert hosts.key.splitlines()[1] not in hosts.output

    before = {path: path.read_bytes() for path in hosts.main.iterdir()}
    assert hosts.run() == facts
    assert {path: path.read_bytes() for path in hosts.main.iterdir()} == before
    assert "changed=0" in hosts.output


def test_certificate_is_renewed_before_its_end_and_lets_its_host_in_until_then(hosts: Hosts) -> None:
    first = hosts.run()
    second = hosts.run(spare=400)
    old, new = fingerprint(first["one"]["pem"]), fingerprint(second["one"]["pem"])
    assert old != new
    assert [line for line in sorted(hosts.map) if line[1] == "one"] == sorted([[old, "one"], [new, "one"]])
    hosts.run()
    assert [line for line in hosts.map if line[1] == "one"] == [[new, "one"]]
    certificate(second["one"]["pem"]).verify_directly_issued_by(certificate(first["one"]["authority"]))


def test_another_authority_signs_everything_anew(hosts: Hosts) -> None:
    """What the former one has signed is worth nothing any more."""
    first = hosts.run()
    second = hosts.run(key=new_key())
    for name in ("main", "one", "two"):
        assert first[name]["authority"] != second[name]["authority"]
        certificate(second[name]["pem"]).verify_directly_issued_by(certificate(second[name]["authority"]))


def test_run_goes_on_without_a_host_that_is_down(hosts: Hosts) -> None:
    """It is let in as before, when it is back; what it has stays as it is."""
    hosts.run()
    before = sorted(hosts.map)
    facts = hosts.run(away="two")
    assert "These worker hosts cannot be reached: two." in hosts.output
    assert sorted(hosts.map) == before
    assert facts["two"]["pem"] == ""
    assert facts["one"]["pem"]


def test_damaged_file_is_replaced(hosts: Hosts) -> None:
    """As a power cut may leave it."""
    first = hosts.run()
    hosts.file("one").write_text(first["one"]["pem"][:700])
    (hosts.main / "gateway.pem").write_text("")
    second = hosts.run()
    assert fingerprint(second["one"]["pem"]) != fingerprint(first["one"]["pem"])
    assert fingerprint(second["two"]["pem"]) == fingerprint(first["two"]["pem"])
    assert sorted(name for _, name in hosts.map) == ["one", "two"]
