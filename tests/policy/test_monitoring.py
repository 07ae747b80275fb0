"""Preflight refuses what would keep Prometheus and Alertmanager from their ports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.plugins.conftest import write
from tests.policy.conftest import ROOT, ansible
from tests.policy.test_dag_containers import preflight

PORTS = {"prometheus_port": 9090, "alertmanager_port": 9093}
SOCKETS = {
    "prometheus": ('LISTEN 0 4096 127.0.0.1:9090 0.0.0.0:* users:(("prometheus",pid=842,fd=4))', False),
    "alertmanager": ('LISTEN 0 4096 127.0.0.1:9093 0.0.0.0:* users:(("prometheus-aler",pid=8,fd=4))', False),
    "another port": ('LISTEN 0 128 127.0.0.1:19090 0.0.0.0:* users:(("java",pid=913,fd=9))', False),
    "another program": ('LISTEN 0 128 *:9090 *:* users:(("cockpit-tls",pid=913,fd=9))', True),
}
"""Lines of ss by what they show, and whether they are in the way."""


@pytest.mark.parametrize("value", [True, False, "true", "False"])
def test_switch_may_be_written_on_the_command_line(tmp_path: Path, value: bool | str) -> None:
    run = preflight(tmp_path, monitoring=value, monitoring_ports=PORTS)
    assert run.ok, run.output


def test_preflight_says_all_that_is_wrong(tmp_path: Path) -> None:
    run = preflight(tmp_path, monitoring="on and off", monitoring_ports=PORTS)
    assert "monitoring is 'on and off'; true or false is expected." in run.output
    run = preflight(tmp_path, monitoring=True, ports=[8080], monitoring_ports=dict.fromkeys(PORTS, "8080"))
    assert not run.ok
    for words in (
        "prometheus_port is 8080, which is the port of an endpoint; give it another.",
        "alertmanager_port is 8080, which is the port of an endpoint; give it another.",
        "prometheus_port and alertmanager_port are the same port; give one of them another.",
    ):
        assert words in run.output


def test_ports_do_not_matter_while_it_is_off(tmp_path: Path) -> None:
    run = preflight(tmp_path, ports=[9090], monitoring_ports=dict.fromkeys(PORTS, 9090))
    assert run.ok, run.output


def test_preflight_knows_the_programs_of_others(tmp_path: Path) -> None:
    tasks = [
        {
            **write("__preflight_monitoring_taken", f"'{tmp_path}/{number}.json'", tmp_path),
            "vars": {
                "__preflight_sockets": {"stdout_lines": [line]},
                "preflight_monitoring": True,
                "preflight_monitoring_ports": PORTS,
            },
        }
        for number, (line, _) in enumerate(SOCKETS.values())
    ]
    play = {
        "name": "Say it",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROOT / "roles/preflight/vars/main.yml")],
        "tasks": tasks,
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run = ansible("ansible-playbook", "--inventory=localhost,", str(tmp_path / "play.yml"))
    assert run.returncode == 0, run.stdout + run.stderr
    found = {
        name: bool(json.loads((tmp_path / f"{number}.json").read_text()))
        for number, name in enumerate(SOCKETS)
    }
    assert found == {name: in_the_way for name, (_, in_the_way) in SOCKETS.items()}
