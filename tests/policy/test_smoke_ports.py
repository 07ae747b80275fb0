"""The smoke test without its DAG, on a host that answers on its endpoints as its services are."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from tests.endpoints import ENDPOINTS
from tests.policy.conftest import ROOT, ansible

AIRFLOW = next(endpoint for endpoint in ENDPOINTS if endpoint["name"] == "airflow")
OTHERS = [endpoint["service"].partition(":")[0] for endpoint in ENDPOINTS if endpoint != AIRFLOW]
"""The services that are ill on this host."""
HEALTH = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}
PAGE = """<p id="forecast">Sun</p><img id="camera"><p id="secret">shown</p><p id="environment">development</p>
<time id="executed-at" datetime="2026-11-26T10:00:00+0000"></time>"""


class Answers(BaseHTTPRequestHandler):
    """HAProxy, before an Airflow that is well and services that are not."""

    def do_GET(self) -> None:
        """Answer as HAProxy does where a service is ill."""
        known = {AIRFLOW["health"]: json.dumps(HEALTH), "/": PAGE}
        self.send_response(200 if self.path in known else 302 if self.path == AIRFLOW["private"] else 503)
        self.end_headers()
        self.wfile.write(known.get(self.path, "503 Service Unavailable").encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def smoke(address: str, folder: Path, tasks_from: str, **variables: object) -> CompletedProcess[str]:
    """Run a part of the role on a host of which Airflow alone is well."""
    task = {
        "name": "Prove it",
        "ansible.builtin.include_role": {"name": "smoke", "tasks_from": tasks_from},
    }
    play = {"name": "Look", "hosts": "localhost", "gather_facts": False, "tasks": [task]}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    variables = {
        "smoke_endpoints": ENDPOINTS,
        "smoke_addresses": {endpoint["name"]: address for endpoint in ENDPOINTS},
        "smoke_airflow_version": "2.6.1",
        "smoke_environment": "development",
        "smoke_password": "any",
        "smoke_base_url": "https://airflow.test",
        "smoke_secrets": {"flower_username": "a", "flower_password": "b"},
        "smoke_ill_services": OTHERS,
        "smoke_directory": str(folder),
        **variables,
    }
    return ansible(
        "ansible-playbook",
        f"--extra-vars={json.dumps(variables)}",
        str(folder / "play.yml"),
        environment={
            "ANSIBLE_ROLES_PATH": f"{ROOT}/roles",
            "ANSIBLE_LIBRARY": f"{ROOT}/plugins/modules",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
    )


def test_endpoint_of_what_was_ill_before_is_not_asked(address: str, tmp_path: Path) -> None:
    """Asked, it would end a restore that has brought Airflow back."""
    run = smoke(address, tmp_path, "endpoints")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("proof", ["", "an earlier stack's", "this stack's"])
def test_stack_is_not_called_proven_while_connect_is_away(address: str, tmp_path: Path, proof: str) -> None:
    """Not by a run on another stack either. What the DAG made earlier has to be there, if it ever ran."""
    if proof:
        fingerprint = "new" if proof == "this stack's" else "old"
        record = {"fingerprint": fingerprint, "run": "smoke__1", "seconds": 9}
        (tmp_path / "smoke.json").write_text(json.dumps(record))
    run = smoke(address, tmp_path, "main", smoke_fingerprint="new", smoke_dag_possible=False)
    assert run.returncode == 0, run.stdout + run.stderr
    proven = proof == "this stack's"
    assert ("run smoke__1 succeeded in 9 s" in run.stdout) == proven
    assert ("NOT RUN weather-checker" in run.stdout) != proven
    assert ("page | Fetch the weather page" in run.stdout) == bool(proof)


def test_page_of_something_else_is_not_shown(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not is named, and where to look; the secret that is on it is not printed."""
    monkeypatch.setattr(f"{__name__}.PAGE", PAGE.replace('id="camera"', "").replace("development", "staging"))
    run = smoke(address, tmp_path, "page")
    said = " ".join(run.stdout.split())
    assert run.returncode != 0
    assert f"The page at {address} is not what weather-checker makes: it has no picture, environment." in said
    assert "https://airflow.test/dags/weather-checker/grid" in said
    assert ">shown<" not in run.stdout
