"""The lookup `onepassword_connect_outage`: what counts as an outage of Connect, and what is an answer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.module_utils.onepassword_connect import ConnectVault
from ansible.plugins.loader import lookup_loader

from tests.plugins.conftest import IMPATIENCE, ROOT
from tests.served import TOKEN, VAULT_ID, Fault, FaultyServer


@pytest.fixture
def asked(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that asks with an address and a token."""
    vaults: list[ConnectVault] = []

    def impatient(url: str, token: str, vault_id: str, process: int) -> ConnectVault:
        vaults.append(ConnectVault(url, token, vault_id, IMPATIENCE))
        return vaults[-1]

    lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))
    lookup = lookup_loader.get("onepassword_connect_outage")
    monkeypatch.setitem(type(lookup).run.__globals__, "shared_vault", impatient)

    def ask(url: str = server.url, token: str = TOKEN) -> str:
        [said] = lookup.run([], {}, url=url, token=token, vault_id=VAULT_ID)
        return str(said)

    yield ask
    for vault in vaults:
        vault.client.session.close()


def test_connect_that_answers_is_not_away(asked: Any) -> None:
    assert asked() == ""


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"]
)
def test_fault_of_connects_own_is_an_outage(asked: Any, server: FaultyServer, status: str) -> None:
    server.always = Fault(status)
    assert f"(HTTP {status[:3]})" in asked()


def test_no_answer_is_an_outage(asked: Any) -> None:
    said = asked("http://127.0.0.1:9")
    assert "no answer (ConnectError)" in said
    assert TOKEN not in said


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "429 Too Many"])
def test_answer_is_no_outage(asked: Any, server: FaultyServer, status: str) -> None:
    server.always = Fault(status)
    with pytest.raises(AnsibleError, match=rf"HTTP {status[:3]}") as caught:
        asked()
    assert TOKEN not in str(caught.value)


def test_page_of_something_else_is_no_outage(asked: Any, server: FaultyServer) -> None:
    server.always = Fault("200 OK", b"<html>Log in to the network</html>")
    with pytest.raises(AnsibleError, match="not one of Connect's"):
        asked()


@pytest.mark.parametrize("changes", [{"token": "a b"}, {"url": "connect.example"}, {"url": ""}])
def test_value_that_cannot_be_sent_is_no_outage(asked: Any, changes: dict[str, str]) -> None:
    with pytest.raises(AnsibleError, match="1Password Connect"):
        asked(**changes)
