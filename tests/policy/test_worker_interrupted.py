"""A run that ends between the files of a worker host and its start: the next one makes up for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.missing import needs
from tests.policy.conftest import Rendered
from tests.policy.operations import said
from tests.policy.test_prepare_workers import Prepared
from tests.policy.test_worker_role import REPOSITORY

MODULE = """
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule
names = ("argv", "build", "profiles", "project_src", "pull", "remove_orphans")
names += ("service", "tty", "wait", "wait_timeout")
module = AnsibleModule({{name: {{"type": "raw"}} for name in names}})
with open("{folder}/calls", "a") as calls:
    print("{name}", file=calls)
module.exit_json(changed=False, rc=0, stdout="", stderr="")
"""
RELOAD, START = "docker_compose_v2_exec", "docker_compose_v2"


def tasks(folder: Path, *parts: str) -> str:
    """Return a file that runs these parts of the role, without what would be this machine's."""
    own = {"docker_engine_available": True, "__worker_units_done": {"changed": False}}
    text = [
        {
            "name": f"Run {part}",
            "ansible.builtin.include_role": {"name": "worker", "tasks_from": part},
            "vars": own,
        }
        for part in parts
    ]
    (folder / "tasks.yml").write_text(yaml.safe_dump(text))
    return str(folder / "tasks.yml")


@needs(root=True)
def test_tunnel_learns_of_files_that_an_earlier_run_has_left(
    tmp_path: Path, rendered: dict[str, Rendered]
) -> None:
    """Else it would ask for the release before for ever, and the gateway let it nowhere."""
    hosts = Prepared(tmp_path, rendered[REPOSITORY])
    modules = tmp_path / "collections/ansible_collections/community/docker/plugins/modules"
    for name in (RELOAD, START):
        (modules / f"{name}.py").write_text(MODULE.format(name=name, folder=tmp_path))
    program = tmp_path / "bin/docker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (hosts.platform / "tunnel").mkdir()
    (hosts.platform / "tunnel/worker.pem").touch()
    (hosts.platform / "release.json").write_text(json.dumps({"name": "1-a"}))
    interrupted = hosts.run(tasks(tmp_path, "main_host", "files"))
    assert interrupted.returncode == 0, said(interrupted)
    assert not (tmp_path / "calls").exists()
    for expected in ([RELOAD, START], [START]):
        run = hosts.run(tasks(tmp_path, "main_host", "files", "start"))
        assert run.returncode == 0, said(run)
        assert (tmp_path / "calls").read_text().split() == expected
        (tmp_path / "calls").unlink()


@needs(root=True)
@pytest.mark.parametrize("named", [None, "1-a", "1-a-before-a-rotation"])
def test_worker_with_other_secrets_ends_before_the_tunnel_leads_anywhere(
    tmp_path: Path, rendered: dict[str, Rendered], named: str | None
) -> None:
    """Its image may be the same: with an earlier Fernet key it would store what nobody else can read."""
    hosts = Prepared(tmp_path, rendered[REPOSITORY])
    program = tmp_path / "bin/docker"
    program.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\n')
    program.chmod(0o755)
    (hosts.platform / "tunnel").mkdir()
    (hosts.platform / "tunnel/worker.pem").touch()
    (hosts.platform / ".env").write_text((hosts.main / ".env").read_text())
    if named is not None:
        (hosts.platform / "release.json").write_text(json.dumps({"name": named}))
    run = hosts.run(tasks(tmp_path, "main_host", "files"))
    assert run.returncode == 0, said(run)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert ("label=com.docker.compose.service=airflow-worker" in asked[0]) == (named != "1-a")
    assert json.loads((hosts.platform / "release.json").read_text())["name"] == "1-a"
