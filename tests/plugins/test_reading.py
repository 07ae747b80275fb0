"""Reading secrets: found where they are kept, asked for once, waited for, never quoted in an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.onepassword_connect import AbsentError, ConnectError, ConnectVault, FieldPath

from tests.served import TOKEN, VAULT_ID, Fault, FaultyServer

SENTINEL = "sentinel-value-that-nobody-may-print"
HERE = FieldPath("Item", "key", "production")


@pytest.fixture
def item(put: Any) -> dict[str, Any]:
    made: dict[str, Any] = put(
        "Item",
        ("production", "key", SENTINEL),
        ("development", "key", "another"),
        (None, "alone", "by itself"),
        ("production", "empty", ""),
        ("production", "twice", SENTINEL),
        ("production", "twice", SENTINEL),
    )
    return made


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (HERE, SENTINEL),
        (FieldPath("Item", "key", "development"), "another"),
        (FieldPath("Item", "alone"), "by itself"),
    ],
)
def test_finds_a_field(vault: ConnectVault, item: Any, path: FieldPath, value: str) -> None:
    assert vault.value(path) == value


@pytest.mark.parametrize("title", ["A & B #1 + 100%", 'The "new" one', "a" * 26, "Größe/2"])
def test_finds_any_title(vault: ConnectVault, put: Any, title: str) -> None:
    """The SDK takes 26 small letters for an id, and does not escape a title that it filters by."""
    put(title, (None, "key", "found"))
    assert vault.value(FieldPath(title, "key")) == "found"


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_takes_the_address_with_or_without_version(
    open_vault: Callable[..., ConnectVault], server: FaultyServer, item: Any, suffix: str
) -> None:
    assert open_vault(url=server.url + suffix).value(HERE) == SENTINEL


def test_asks_for_each_item_once(vault: ConnectVault, server: FaultyServer, put: Any, item: Any) -> None:
    other = put("Other", (None, "key", "x"))
    for path in [HERE, FieldPath("Item", "alone"), FieldPath("Other", "key"), HERE]:
        vault.value(path)
    assert server.count("GET", "/items") == 1
    assert server.count("GET", item["id"]) == 1
    assert server.count("GET", other["id"]) == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (FieldPath("Absent", "key"), ["Absent", "key"]),
        (FieldPath("Item", "absent", "production"), ["Item", "absent", "production"]),
        (FieldPath("Item", "key", "staging"), ["Item", "key", "staging"]),
        (FieldPath("Item", "empty", "production"), ["Item", "empty"]),
    ],
)
def test_names_what_is_absent(vault: ConnectVault, item: Any, path: FieldPath, words: list[str]) -> None:
    with pytest.raises(AbsentError) as caught:
        vault.value(path)
    message = str(caught.value)
    assert all(word in message for word in [VAULT_ID, *words])
    assert SENTINEL not in message


@pytest.mark.parametrize(
    "path",
    [FieldPath("Item", "key"), FieldPath("Item", "twice", "production"), FieldPath("Twin", "key")],
    ids=str,
)
def test_refuses_to_choose(vault: ConnectVault, item: Any, put: Any, path: FieldPath) -> None:
    for _ in range(2):
        put("Twin", (None, "key", SENTINEL))
    with pytest.raises(ConnectError, match=r"2 (items|fields)") as caught:
        vault.value(path)
    assert not isinstance(caught.value, AbsentError)
    assert SENTINEL not in str(caught.value)


FAULTS = {
    "out of scope while syncing": Fault("403 Forbidden"),
    "too many requests": Fault("429 Too Many Requests", headers=[("Retry-After", "0")]),
    "failed to initiate": Fault("500 Internal Server Error"),
    "proxy without its server": Fault("502 Bad Gateway", b"<html>Bad Gateway</html>"),
    "still syncing": Fault("503 Service Unavailable"),
    "slow": Fault("504 Gateway Timeout", b""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_waits_for_a_connect_that_is_not_ready(
    vault: ConnectVault, server: FaultyServer, item: Any, name: str
) -> None:
    server.faults.extend([FAULTS[name]] * 2)
    assert vault.value(HERE) == SENTINEL
    assert server.count("GET", "/items") == 3


@pytest.mark.parametrize(
    ("fault", "tries", "advice"),
    [
        (Fault("401 Unauthorized"), 1, "OP_API_TOKEN"),
        (Fault("403 Forbidden"), 7, "OP_VAULT_ID"),
        (Fault("404 Not Found"), 1, "OP_VAULT_ID"),
        (Fault("418 I'm a teapot"), 1, "HTTP 418"),
        (Fault("301 Moved Permanently", headers=[("Location", "http://127.0.0.1/")]), 1, "HTTP 301"),
        (Fault("500 Internal Server Error"), 7, "HTTP 500"),
        (Fault("503 Service Unavailable", b"<html>"), 7, "HTTP 503"),
        (Fault("200 OK", f'{{"value": "{SENTINEL}"'.encode()), 1, "not one of Connect's"),
        (Fault("200 OK", f'["{SENTINEL}"]'.encode()), 1, "not one of Connect's"),
        (Fault("200 OK", f'[{{"createdAt": "{SENTINEL}"}}]'.encode()), 1, "not one of Connect's"),
    ],
    ids=lambda value: value.status if isinstance(value, Fault) else None,
)
def test_gives_up_with_advice_and_without_values(
    vault: ConnectVault, server: FaultyServer, item: Any, fault: Fault, tries: int, advice: str
) -> None:
    if not fault.status.startswith("200"):
        fault = Fault(fault.status, f'{{"message": "{SENTINEL} {TOKEN}"}}'.encode(), fault.headers)
    server.always = fault
    with pytest.raises(ConnectError) as caught:
        vault.value(HERE)
    message = str(caught.value)
    assert all(word in message for word in [VAULT_ID, server.url, advice])
    assert SENTINEL not in message
    assert TOKEN not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert len(server.requests) == tries


def test_tells_what_connect_says_of_its_own_health(
    vault: ConnectVault, server: FaultyServer, app: Any
) -> None:
    health = {
        "name": "x",
        "version": "1",
        "dependencies": [{"service": "account_data", "status": "NOT_SYNCED"}],
    }
    app.view_functions["health"] = lambda: health
    server.always = Fault("500 Internal Server Error")
    with pytest.raises(ConnectError, match="account_data NOT_SYNCED"):
        vault.value(HERE)


def test_wrong_token_is_named_by_its_setting(open_vault: Callable[..., ConnectVault], item: Any) -> None:
    with pytest.raises(ConnectError, match="OP_API_TOKEN") as caught:
        open_vault(token="wrong-" + TOKEN).value(HERE)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://host.invalid"])
def test_nobody_answers(open_vault: Callable[..., ConnectVault], url: str) -> None:
    with pytest.raises(ConnectError, match="OP_CONNECT") as caught:
        open_vault(url=url).value(HERE)
    assert url in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"token": ""},
        {"token": f"{SENTINEL}\n"},
        {"token": f"{SENTINEL} x"},
        {"token": f"{SENTINEL}é"},
        {"vault_id": ""},
        {"vault_id": "a b"},
        {"url": ""},
        {"url": "connect.example:8080"},
        {"url": "ftp://connect.example"},
    ],
    ids=lambda changes: next(iter(changes.items()))[0],
)
def test_refuses_settings_that_cannot_work_before_asking(
    open_vault: Callable[..., ConnectVault], server: FaultyServer, changes: dict[str, str]
) -> None:
    """A token with a line break would otherwise end up, quoted, in httpx's own message."""
    with pytest.raises(ConnectError) as caught:
        open_vault(**changes)
    assert SENTINEL not in str(caught.value)
    assert server.requests == []
