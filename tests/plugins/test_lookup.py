"""The lookup `onepassword_connect` inside Ansible: its options, their sources, and absent values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader

from tests.plugins.conftest import ROOT
from tests.served import TOKEN, VAULT_ID, FaultyServer

Lookup = Callable[..., list[str]]


@pytest.fixture
def lookup(server: FaultyServer, put: Any, monkeypatch: pytest.MonkeyPatch) -> Lookup:
    put(
        "Login",
        ("production", "password", "s3cret"),
        ("production", "user", "ada"),
        ("development", "user", "bob"),
    )
    monkeypatch.setenv("OP_CONNECT", server.url)
    monkeypatch.setenv("OP_API_TOKEN", TOKEN)
    monkeypatch.setenv("OP_VAULT_ID", VAULT_ID)
    lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))

    def run(*terms: Any, variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        found: list[str] = lookup_loader.get("onepassword_connect").run(
            list(terms), variables or {}, **options
        )
        return found

    return run


def test_reads_a_field(lookup: Lookup) -> None:
    values = lookup("Login", field="password", section="production")
    assert values == ["s3cret"]
    assert type(values[0]) is str


def test_reads_several_in_order_with_one_question_for_the_item(lookup: Lookup, server: FaultyServer) -> None:
    terms = [{"item": "Login", "field": "user"}, {"item": "Login", "field": "password"}]
    terms.append({"item": "Login", "field": "user", "section": "development"})
    assert lookup(*terms, section="production") == ["ada", "s3cret", "bob"]
    assert lookup("Login", field="user", section="production") == ["ada"]
    assert len(server.requests) == 2


def test_settings_come_from_options_before_variables_before_nothing(
    lookup: Lookup, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OP_CONNECT", "OP_API_TOKEN", "OP_VAULT_ID"):
        monkeypatch.delenv(name)
    variables = {
        "onepassword_connect_url": server.url,
        "onepassword_connect_token": "wrong",
        "onepassword_connect_vault_id": VAULT_ID,
    }
    assert lookup("Login", field="password", section="production", variables=variables, token=TOKEN) == [
        "s3cret"
    ]
    with pytest.raises(AnsibleError, match="OP_API_TOKEN"):
        lookup("Login", field="password", section="production", variables=variables)
    with pytest.raises(AnsibleError, match="url"):
        lookup("Login", field="password", section="production")


@pytest.mark.parametrize(
    ("term", "options", "expected"),
    [
        ({"required": False}, {}, ""),
        ({"required": False, "default": "none"}, {}, "none"),
        ({}, {"required": False, "default": "none"}, "none"),
        ({"generate": "password"}, {"placeholders": True}, "placeholder-no-such-field"),
        ({"generate": "none", "required": False}, {"placeholders": True}, ""),
    ],
)
def test_stands_in_for_what_is_absent(
    lookup: Lookup, term: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    term = {"item": "Login", "field": "no such field", "section": "production", **term}
    assert lookup(term, **options) == [expected]


@pytest.mark.parametrize(
    ("term", "options", "message"),
    [
        ({"item": "Login", "field": "absent"}, {}, 'field "absent".*item "Login"'),
        ({"item": "Absent", "field": "x"}, {}, 'no item "Absent"'),
        ({"item": "Login", "field": "x", "generate": "password"}, {}, 'field "x"'),
        ({"item": "Login", "field": "x", "generate": "none"}, {"placeholders": True}, 'field "x"'),
        ({"item": "Login", "field": "user"}, {"required": False}, "2 fields"),
        ({"item": "Login", "feild": "user"}, {}, "unknown keys: feild"),
        ({"item": "Login"}, {}, "label of a field"),
        ({"field": "user"}, {}, "title of an item"),
        ("", {"field": "user"}, "title of an item"),
    ],
)
def test_refuses(lookup: Lookup, term: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleError, match=message) as caught:
        lookup(term, **options)
    assert TOKEN not in str(caught.value)
    assert "s3cret" not in str(caught.value)
