"""The sandbox's Connect server for one test, and a way to put items into its vault."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.connect import create_app

VAULT_ID = "testsvault0000000000000000"
TOKEN = "made-up token of the tests"


class Vault:
    """A running Connect server."""

    def __init__(self, url: str) -> None:
        self.url, self.token, self.vault_id = url, TOKEN, VAULT_ID

    def add(self, title: str, fields: list[tuple[str | None, str, str | None]]) -> None:
        """Create an item with `fields`: (label of the section or None, label, value or None for empty)."""
        sections = dict.fromkeys(section for section, _, _ in fields if section)
        document = {
            "title": title,
            "vault": {"id": VAULT_ID},
            "category": "API_CREDENTIAL",
            "sections": [{"id": f"section{n}", "label": label} for n, label in enumerate(sections)],
            "fields": [
                {
                    "id": f"field{n}",
                    "type": "CONCEALED",
                    "label": label,
                    **({} if value is None else {"value": value}),
                    **({"section": {"id": f"section{list(sections).index(section)}"}} if section else {}),
                }
                for n, (section, label, value) in enumerate(fields)
            ],
        }
        response = requests.post(
            f"{self.url}/v1/vaults/{VAULT_ID}/items",
            json=document,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=10,
        )
        assert response.ok, response.text


class _SilentHandler(WSGIRequestHandler):
    def log(self, *arguments: object, **options: object) -> None:
        """Stay silent."""


@contextmanager
def serve_vault(state_dir: Path) -> Iterator[Vault]:
    """Serve a vault with the sandbox's items for as long as the context lasts."""
    app = create_app(state_dir, TOKEN, VAULT_ID)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_SilentHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield Vault(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    thread.join()
