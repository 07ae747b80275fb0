"""The Ansible plugins against the served sandbox, through 1Password's own SDK, with faults in between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from ansible.plugins.loader import fragment_loader
from flask import Flask

from sandbox.connect import create_app
from sandbox.vault_store import VaultStore
from tests.served import TOKEN, VAULT_ID, FaultyServer, served

ROOT = Path(__file__).parents[2]
# As AnsiballZ and the lookup do it.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))
sys.path.append(str(ROOT / "plugins" / "modules"))
# As ansible.cfg does it; a lookup's options are those of its documentation.
fragment_loader.add_directory(str(ROOT / "plugins" / "doc_fragments"))

from ansible.module_utils.onepassword_connect import PATIENCE, ConnectVault  # noqa: E402 - needs the path above

# Ansible finds a filter beside a playbook; unlike a module it needs no process of its own.
WRITER = """\
from pathlib import Path


class FilterModule:
    def filters(self):
        return {"written_to": lambda text, path: Path(path).write_text(text) > 0}
"""

# The same retries, without the waiting.
IMPATIENCE = PATIENCE.copy_with(backoff_factor=0.001, max_backoff_wait=0.01)


def write(value: str, path: str, folder: Path) -> dict[str, Any]:
    """Return a task for a playbook in `folder` that writes a value to a path, both expressions, as JSON."""
    plugins = folder / "filter_plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "written_to.py").write_text(WRITER)
    assertion = {"that": f"{value} | to_json | written_to({path})", "quiet": True}
    return {"name": "Write it down for the test", "ansible.builtin.assert": assertion, "no_log": True}


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app(tmp_path / "state", TOKEN, VAULT_ID)


@pytest.fixture
def server(app: Flask) -> Iterator[FaultyServer]:
    faulty = FaultyServer(app)
    with served(faulty) as faulty.url:
        yield faulty


@pytest.fixture
def open_vault(server: FaultyServer) -> Iterator[Callable[..., ConnectVault]]:
    """Return a maker of vault objects with their own connections, which end with the test."""
    opened: list[ConnectVault] = []

    def make(**changes: str) -> ConnectVault:
        settings = {"url": server.url, "token": TOKEN, "vault_id": VAULT_ID, **changes}
        opened.append(ConnectVault(**settings, patience=IMPATIENCE))
        return opened[-1]

    yield make
    for vault in opened:
        vault.client.session.close()


@pytest.fixture
def vault(open_vault: Callable[..., ConnectVault]) -> ConnectVault:
    return open_vault()


Put = Callable[..., dict[str, Any]]


@pytest.fixture
def put(app: Flask) -> Put:
    """Return a function that puts an item into the vault: title and (section, label, value) of fields."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"

    def create(title: str, *fields: tuple[str | None, str, str]) -> dict[str, Any]:
        sections = sorted({section for section, _, _ in fields if section})
        document = {
            "title": title,
            "vault": {"id": VAULT_ID},
            "category": "API_CREDENTIAL",
            "sections": [{"id": f"id of {section}", "label": section} for section in sections],
            "fields": [
                {
                    "label": label,
                    "value": value,
                    **({"section": {"id": f"id of {section}"}} if section else {}),
                }
                for section, label, value in fields
            ],
        }
        response = client.post(f"/v1/vaults/{VAULT_ID}/items", json=document)
        assert response.status_code == 200, response.text
        item: dict[str, Any] = response.get_json()
        return item

    return create


Items = Callable[[str], list[dict[str, str]]]


@pytest.fixture
def stored(tmp_path: Path, server: FaultyServer) -> Items:
    """Return a function that reads the vault: for each item with a title, its values by section/label."""

    def read(title: str) -> list[dict[str, str]]:
        items = VaultStore(tmp_path / "state" / "connect.json", VAULT_ID).items()
        found = []
        for item in items:
            labels = {section["id"]: section["label"] for section in item["sections"]}
            values = {}
            for entry in item["fields"]:
                section = labels.get(entry.get("section", {}).get("id"), "")
                values[f"{section}/{entry['label']}"] = entry.get("value", "")
            if item["title"] == title:
                found.append(values)
        return found

    return read
