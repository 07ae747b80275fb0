"""What ansible-doc prints of the plugins and modules that talk to 1Password Connect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.conftest import ROOT

SHARED = ("url", "token", "vault_id")
"""Options that the fragment in plugins/doc_fragments documents for all of them."""


def documented(kind: str, name: str) -> dict[str, Any]:
    """Return what ansible-doc knows, found by ansible.cfg as an operator's commands find it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "--json", "--type", kind, name],
        cwd=ROOT,
        env=environment | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)[name]["doc"]
    return document


@pytest.mark.parametrize(
    ("kind", "name", "own"),
    [
        ("lookup", "onepassword_connect", "placeholders"),
        ("lookup", "onepassword_connect_outage", "_terms"),
        ("module", "onepassword_connect_items", "outdated"),
    ],
)
def test_options_of_the_server_are_documented_everywhere(kind: str, name: str, own: str) -> None:
    """A user of one of them does not have to look at another."""
    options = documented(kind, name)["options"]
    assert own in options
    for option in SHARED:
        assert (options[option]["type"], options[option]["required"]) == ("str", True)
        assert options[option]["description"]


def test_plugin_adds_its_own_to_a_shared_option() -> None:
    """The lookup also takes its settings from the environment; the module needs a token with more rights."""
    options = documented("lookup", "onepassword_connect")["options"]
    assert [options[option]["env"][0]["name"] for option in SHARED] == [
        "OP_CONNECT",
        "OP_API_TOKEN",
        "OP_VAULT_ID",
    ]
    assert (
        "create and edit"
        in documented("module", "onepassword_connect_items")["options"]["token"]["description"]
    )
