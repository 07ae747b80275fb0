"""Generating secrets: only what is absent, once, whoever else does the same and whatever the network does."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from ansible.module_utils.onepassword_connect import ConnectError, ConnectVault, FieldPath
from ansible.module_utils.onepassword_connect_writer import ConnectWriter
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from onepassword_connect_items import generator

from tests.served import TOKEN, Fault, FaultyServer

USERNAME = FieldPath("Login", "username", "production")
PASSWORD = FieldPath("Login", "password", "production")
SENTINEL = "sentinel-value-that-nobody-may-print"


def values(*paths: FieldPath) -> dict[FieldPath, Callable[[], str]]:
    numbers = count(1)
    return {path: lambda: f"{SENTINEL} {next(numbers)}" for path in paths}


def test_creates_an_item_with_all_its_fields(vault: ConnectVault, stored: Any) -> None:
    assert ConnectWriter(vault).ensure(values(USERNAME, PASSWORD)) == {USERNAME: False, PASSWORD: False}
    (item,) = stored("Login")
    assert item == {"production/username": f"{SENTINEL} 1", "production/password": f"{SENTINEL} 2"}
    assert vault.value(PASSWORD) == f"{SENTINEL} 2"


def test_second_run_writes_nothing(
    open_vault: Callable[..., ConnectVault], server: FaultyServer, stored: Any
) -> None:
    ConnectWriter(open_vault()).ensure(values(USERNAME, PASSWORD))
    before = stored("Login")
    server.requests.clear()
    assert ConnectWriter(open_vault()).ensure(values(USERNAME, PASSWORD)) == {}
    assert stored("Login") == before
    assert {method for method, _ in server.requests} == {"GET"}


def test_adds_only_what_is_absent(vault: ConnectVault, put: Any, stored: Any) -> None:
    put("Login", ("production", "username", "ada"), ("development", "password", "dev"), (None, "note", "n"))
    assert ConnectWriter(vault).ensure(values(USERNAME, PASSWORD)) == {PASSWORD: False}
    assert stored("Login") == [
        {
            "production/username": "ada",
            "development/password": "dev",
            "/note": "n",
            "production/password": f"{SENTINEL} 1",
        }
    ]


def test_adds_the_section_of_a_new_environment(vault: ConnectVault, put: Any, stored: Any) -> None:
    put("Login", ("development", "password", "dev"))
    assert ConnectWriter(vault).ensure(values(PASSWORD)) == {PASSWORD: False}
    assert stored("Login") == [{"development/password": "dev", "production/password": f"{SENTINEL} 1"}]


def test_fills_an_emptied_field_in_place(vault: ConnectVault, put: Any, stored: Any) -> None:
    """Emptying a field is how an operator asks for a new value."""
    put("Login", ("production", "password", ""))
    assert ConnectWriter(vault).ensure(values(PASSWORD)) == {PASSWORD: False}
    assert stored("Login") == [{"production/password": f"{SENTINEL} 1"}]


def test_looking_writes_nothing(vault: ConnectVault, server: FaultyServer, stored: Any) -> None:
    assert ConnectWriter(vault).due(values(USERNAME, PASSWORD)) == {USERNAME: False, PASSWORD: False}
    assert stored("Login") == []
    assert {method for method, _ in server.requests} == {"GET"}


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize(("method", "exists"), [("POST", False), ("PUT", True)])
def test_a_write_that_fails_is_repeated_but_not_doubled(
    vault: ConnectVault, server: FaultyServer, put: Any, stored: Any, method: str, exists: bool, after: bool
) -> None:
    if exists:
        put("Login", ("production", "username", "ada"))
    server.faults.append(Fault("504 Gateway Timeout", b"<html>", method=method, after=after))
    assert PASSWORD in ConnectWriter(vault).ensure(values(USERNAME, PASSWORD)) or after
    (item,) = stored("Login")
    assert set(item) == {"production/username", "production/password"}


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
def test_a_write_that_is_refused_for_good_says_so_without_the_value(
    vault: ConnectVault, server: FaultyServer, status: str
) -> None:
    server.faults.append(Fault(status, f'{{"message": "{SENTINEL}"}}'.encode(), method="POST"))
    with pytest.raises(ConnectError, match=f'create item "Login".*HTTP {status[:3]}') as caught:
        ConnectWriter(vault).ensure(values(PASSWORD))
    assert SENTINEL not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_reports_an_item_that_never_shows(vault: ConnectVault, server: FaultyServer) -> None:
    made = (
        b'{"id": "made0000000000000000000000", "title": "Login", "vault": {"id": "x"}, "category": "LOGIN"}'
    )
    server.faults.append(Fault("200 OK", made, method="POST"))
    with pytest.raises(ConnectError, match="does not list it"):
        ConnectWriter(vault, visible_seconds=0.2).ensure(values(PASSWORD))


def test_real_twins_are_left_alone(vault: ConnectVault, put: Any, stored: Any) -> None:
    for value in ("one", "two"):
        put("Login", ("production", "username", value))
    with pytest.raises(ConnectError, match="2 items"):
        ConnectWriter(vault, visible_seconds=0.2).ensure(values(PASSWORD))
    assert len(stored("Login")) == 2


def test_deletes_nothing_that_it_did_not_make(vault: ConnectVault, put: Any, stored: Any) -> None:
    """A person makes an item of the same title while fields are added to the one that was there."""
    put("Login", ("production", "username", "one"))

    def generate() -> str:
        put("Login", ("production", "username", "two"))
        return "generated"

    with pytest.raises(ConnectError, match="2 items"):
        ConnectWriter(vault, visible_seconds=0.2).ensure({PASSWORD: generate})
    assert sorted(item["production/username"] for item in stored("Login")) == ["one", "two"]


def test_runs_at_the_same_moment_agree_on_one_item(
    open_vault: Callable[..., ConnectVault], server: FaultyServer, stored: Any
) -> None:
    """All have looked before the first writes, so each creates the item."""
    runs = 4
    together = Barrier(runs)

    def run(number: int) -> str:
        vault = open_vault()
        assert vault.item("Login") is None
        together.wait()
        ConnectWriter(vault, visible_seconds=10).ensure({PASSWORD: lambda: f"value of run {number}"})
        vault.forget()
        return str(vault.value(PASSWORD))

    with ThreadPoolExecutor(runs) as pool:
        read = list(pool.map(run, range(runs)))
    assert server.count("POST", "/items") == runs
    (item,) = stored("Login")
    assert set(read) == {item["production/password"]}


@pytest.mark.parametrize("length", [32, 40, 64])
def test_passwords_are_safe_in_addresses_and_env_files(length: int) -> None:
    made = {generator("password", length)() for _ in range(50)}
    assert len(made) == 50
    assert all(len(value) == length and value.isascii() and value.isalnum() for value in made)


def test_fernet_keys_are_32_bytes_in_urlsafe_base64() -> None:
    key = generator("fernet", 40)()
    assert len(key) == 44
    assert len(base64.urlsafe_b64decode(key)) == 32


def test_private_keys_are_on_p_256_and_all_different() -> None:
    keys = [load_pem_private_key(generator("ec_private_key", 40)().encode(), None) for _ in range(2)]
    assert [key.curve.name for key in keys if isinstance(key, EllipticCurvePrivateKey)] == ["secp256r1"] * 2
    assert keys[0].private_numbers() != keys[1].private_numbers()  # type: ignore[union-attr]
