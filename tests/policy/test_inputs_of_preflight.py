"""What each playbook gives to the role preflight, which checks it before the host is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.policy.conftest import ROOT, ansible, load

PLAYS = {
    f"{path.stem} {number}": play
    for path in sorted((ROOT / "playbooks").glob("*.yml"))
    for number, play in enumerate(load(path), start=1)
    if "preflight" in play.get("roles", [])
}


@pytest.mark.parametrize("play", PLAYS)
def test_preflight_can_be_given_its_options_first(tmp_path: Path, play: str) -> None:
    """No option may need what a later role provides, such as a secret: Ansible reads all of them first.

    rollback.yml once named the smoke test's account by a secret, and an account of that name was refused.
    """
    options = load(ROOT / "roles/preflight/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    wiring = load(ROOT / "playbooks/group_vars/all/wiring.yml")
    given = {name: f"{{{{ {name} }}}}" for name in options if name in wiring}
    assert given
    playbook = [
        {
            "name": "Take the options",
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {**PLAYS[play].get("vars", {}), **OPERATORS},
            "tasks": [
                {
                    "name": "Check them",
                    "ansible.builtin.validate_argument_spec": {
                        "argument_spec": {name: options[name] for name in given},
                        "provided_arguments": given,
                    },
                }
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(playbook))
    (tmp_path / "group_vars").symlink_to(ROOT / "playbooks/group_vars")
    run = ansible("ansible-playbook", "--inventory=localhost,", str(tmp_path / "play.yml"))
    assert run.returncode == 0, run.stdout + run.stderr


OPERATORS = {"environment_name": "development", "op_connect": "", "op_api_token": "", "op_vault_id": ""}
"""What only an inventory says."""
