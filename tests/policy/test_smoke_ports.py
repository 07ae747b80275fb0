"""The smoke test's look at the ports, on a host that answers on them as its services are."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.policy.conftest import ROOT, ansible

HEALTH = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}
PLAY = {
    "name": "Look",
    "hosts": "localhost",
    "gather_facts": False,
    "tasks": [
        {
            "name": "Look at the ports",
            "ansible.builtin.include_role": {"name": "smoke", "tasks_from": "doors"},
        }
    ],
}


class Answers(BaseHTTPRequestHandler):
    """HAProxy, before an Airflow that is well and two services that are not."""

    def do_GET(self) -> None:
        """Answer as HAProxy does where a service is ill."""
        well = self.path == "/health"
        self.send_response(200 if well else 503)
        self.end_headers()
        self.wfile.write(json.dumps(HEALTH).encode() if well else b"503 Service Unavailable")

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_port_of_what_was_ill_before_is_not_asked(address: str, tmp_path: Path) -> None:
    """Asked, it would end a restore that has brought Airflow back."""
    (tmp_path / "play.yml").write_text(yaml.safe_dump([PLAY]))
    variables = {
        "smoke_airflow_url": address,
        "smoke_webhook_url": address,
        "smoke_flower_url": address,
        "smoke_airflow_version": "2.6.1",
        "smoke_secrets": {"flower_username": "a", "flower_password": "b"},
        "smoke_ill_services": ["webhook", "flower"],
    }
    run = ansible(
        "ansible-playbook",
        f"--extra-vars={json.dumps(variables)}",
        str(tmp_path / "play.yml"),
        environment={
            "ANSIBLE_ROLES_PATH": f"{ROOT}/roles",
            "ANSIBLE_LIBRARY": f"{ROOT}/plugins/modules",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
    )
    assert run.returncode == 0, run.stdout + run.stderr
