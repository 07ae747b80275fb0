"""What a worker host has of the main host's plugins, and which of its images go."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.policy.conftest import ROOT, ansible, load

INTERPRETER = """#!/bin/sh
ln --symbolic --force --no-dereference {host} {platform}
export FAKE_DOCKER={host}
exec {python} "$@"
"""
"""Both hosts have the platform at the same place: whichever works here has its own folder there."""

MODULE = """
import json, os, re
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule
options = ("name", "images", "images_filters", "containers", "containers_all")
module = AnsibleModule({option: {"type": "raw"} for option in options}, supports_check_mode=True)
host = Path(os.environ["FAKE_DOCKER"])
has = json.loads((host / "docker.json").read_text())
given = module.params
"""
MODULES = {
    "docker_host_info": """
assert given["images_filters"] == {"reference": "airflow-platform/*"}
images = [{"Id": name, "RepoTags": [name]} for name in has["images"] if name.startswith("airflow-platform/")]
containers = [{"Image": name} for name in has["containers"]] if given["containers"] else []
module.exit_json(changed=False, images=[*images, {"Id": "x", "RepoTags": None}], containers=containers)
""",
    "docker_image_remove": """
has["images"].remove(given["name"])
if not module.check_mode:
    (host / "docker.json").write_text(json.dumps(has))
module.exit_json(changed=True)
""",
}


class Pair:
    """The main host and a worker on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        modules = folder / "collections/ansible_collections/community/docker/plugins/modules"
        modules.mkdir(parents=True)
        for name, text in MODULES.items():
            (modules / f"{name}.py").write_text(MODULE + text)
        inventory: dict[str, Any] = {}
        for group, name in (("airflow", "main"), ("airflow_workers", "worker")):
            (folder / name / "plugins").mkdir(parents=True)
            program = folder / f"python-of-{name}"
            program.write_text(
                INTERPRETER.format(host=folder / name, platform=folder / "srv", python=sys.executable)
            )
            program.chmod(0o755)
            host = {"ansible_connection": "local", "ansible_python_interpreter": str(program)}
            inventory[group] = {"hosts": {name: host}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def write(self, host: str, path: str, content: bytes, mode: int = 0o644) -> None:
        """Put a plugin on a host."""
        file = self.folder / host / "plugins" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)

    def plugins(self, host: str) -> dict[str, tuple[int, bytes]]:
        """Return mode and content of each file that a host has."""
        top = self.folder / host / "plugins"
        files = [path for path in top.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(top)): (path.stat().st_mode & 0o777, path.read_bytes()) for path in files
        }

    def docker(self, host: str, *images: str, containers: tuple[str, ...] = ()) -> None:
        """Let a host's Docker have these."""
        text = json.dumps({"images": images, "containers": containers})
        (self.folder / host / "docker.json").write_text(text)

    def images(self, host: str) -> list[str]:
        found: list[str] = json.loads((self.folder / host / "docker.json").read_text())["images"]
        return found

    def run(self, tasks: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a file of the role's tasks on the worker."""
        settings = "DOCKER_POLICY_IMAGE=airflow-platform/docker-policy:1\n"
        role = {"name": "worker", "tasks_from": tasks}
        play = {
            "name": "Run it",
            "hosts": "airflow_workers",
            "gather_facts": False,
            "vars": {"worker_main_host": "main", "worker_directory": str(self.folder / "srv")},
            "tasks": [
                {
                    "name": "Run the tasks",
                    "ansible.builtin.include_role": role,
                    "vars": {"__worker_main_files": {".env": settings}},
                }
            ],
        }
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        run = ansible(
            "ansible-playbook",
            f"--inventory={self.folder}/hosts.yml",
            str(self.folder / "play.yml"),
            *options,
            environment={"ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections")},
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_plugins_are_the_main_hosts(pair: Pair) -> None:
    """Whatever they have in them; everybody may read them. A second run changes nothing."""
    pair.write("main", "city/__init__.py", b"first", 0o600)
    pair.write("main", "city/static/logo.png", bytes(range(256)))
    pair.write("main", "a file's name.py", b"spaces")
    pair.write("main", "tool.sh", b"#!/bin/sh\n", 0o700)
    pair.write("main", "city/__pycache__/x.pyc", b"left by Python")
    pair.write("worker", "city/__init__.py", b"older")
    pair.write("worker", "gone.py", b"removed on the main host")
    wanted = {
        "city/__init__.py": (0o644, b"first"),
        "city/static/logo.png": (0o644, bytes(range(256))),
        "a file's name.py": (0o644, b"spaces"),
        "tool.sh": (0o755, b"#!/bin/sh\n"),
    }
    before = pair.plugins("worker")
    assert "changed=0 " not in pair.run("plugins", "--check").stdout
    assert pair.plugins("worker") == before
    pair.run("plugins")
    assert pair.plugins("worker") == wanted
    assert "changed=0 " in pair.run("plugins").stdout


def test_images_go_that_neither_the_main_host_nor_a_container_has(pair: Pair) -> None:
    """An image of somebody else stays, and so does what a DAG's container was made of."""
    ours = [f"airflow-platform/airflow:{tag}" for tag in ("2.5.3-a", "2.6.1-b", "2.11.2-c")]
    annotate, other = "airflow-platform/annotate:1-d", "atddocker/etl:production"
    pair.docker("main", *ours[1:], "airflow-platform/only-there:1")
    pair.docker("worker", *ours, annotate, other, containers=(ours[2], f"docker.io/{annotate}"))
    assert "changed=1 " in pair.run("clean", "--check").stdout
    assert pair.images("worker") == [*ours, annotate, other]
    pair.run("clean")
    assert pair.images("worker") == [*ours[1:], annotate, other]
    assert "changed=0 " in pair.run("clean").stdout


def test_images_go_once_the_new_worker_runs() -> None:
    """Before, the containers of the earlier release are still there."""
    play, _ = load(ROOT / "playbooks/workers.yml")
    [follow] = play["tasks"]
    *_, making = follow["block"]
    included = [task["ansible.builtin.include_role"] for task in making["block"]]
    steps = [role.get("tasks_from", "main") for role in included if role["name"] == "worker"]
    assert steps == ["main", "start", "clean"]
