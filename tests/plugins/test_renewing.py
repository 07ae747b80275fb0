"""Renewing secrets: the outdated value is replaced once and kept, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from ansible.module_utils.onepassword_connect import ConnectError, ConnectVault, FieldPath
from ansible.module_utils.onepassword_connect_writer import ConnectWriter, previous

from tests.served import TOKEN, VAULT_ID, Fault, FaultyServer

PASSWORD = FieldPath("Database", "password", "production")
OTHER = FieldPath("Database", "other", "production")
OLD = "sentinel-of-the-old-value"
OUTDATED = {PASSWORD: OLD}
Makers = dict[FieldPath, Callable[[], str]]


@pytest.fixture
def wanted() -> Makers:
    """Return a maker for each field; every call of one makes another value."""
    numbers = count(1)
    return {path: lambda: f"new value {next(numbers)}" for path in (PASSWORD, OTHER)}


@pytest.fixture(params=["PUT", "PATCH"], ids=["first time", "again"])
def old(request: pytest.FixtureRequest, put: Any) -> str:
    """An item with an outdated value, and how it is renewed: alone where no field is to be added."""
    method: str = request.param
    kept = [("production", "password (previous)", "older")] if method == "PATCH" else []
    put(
        "Database",
        ("production", "password", OLD),
        *kept,
        ("production", "other", "stays"),
        ("development", "password", OLD),
    )
    return method


AFTERWARDS = {
    "production/password": "new value 1",
    "production/password (previous)": OLD,
    "production/other": "stays",
    "development/password": OLD,
}


@pytest.mark.usefixtures("old")
def test_replaces_the_outdated_value_and_keeps_it(vault: ConnectVault, wanted: Makers, stored: Any) -> None:
    assert ConnectWriter(vault, outdated=OUTDATED).ensure(wanted) == {PASSWORD: True}
    assert stored("Database") == [AFTERWARDS]
    assert vault.value(PASSWORD) == "new value 1"
    assert vault.value(previous(PASSWORD)) == OLD


@pytest.mark.usefixtures("old")
def test_second_run_writes_nothing(
    open_vault: Callable[..., ConnectVault], server: FaultyServer, wanted: Makers, stored: Any
) -> None:
    """The host keeps the old value when a run did not finish: the next one asks for the same."""
    ConnectWriter(open_vault(), outdated=OUTDATED).ensure(wanted)
    server.requests.clear()
    assert ConnectWriter(open_vault(), outdated=OUTDATED).ensure(wanted) == {}
    assert stored("Database") == [AFTERWARDS]
    assert {method for method, _ in server.requests} == {"GET"}


def test_leaves_what_a_person_has_entered(vault: ConnectVault, wanted: Makers, put: Any, stored: Any) -> None:
    put("Database", ("production", "password", "entered by hand"), ("production", "other", "stays"))
    assert ConnectWriter(vault, outdated=OUTDATED).ensure(wanted) == {}
    assert stored("Database") == [
        {"production/password": "entered by hand", "production/other": "stays"},
    ]


@pytest.mark.usefixtures("old")
def test_next_rotation_keeps_the_last_value(
    open_vault: Callable[..., ConnectVault], wanted: Makers, stored: Any
) -> None:
    ConnectWriter(open_vault(), outdated=OUTDATED).ensure(wanted)
    assert ConnectWriter(open_vault(), outdated={PASSWORD: "new value 1"}).ensure(wanted) == {PASSWORD: True}
    assert stored("Database") == [
        {
            **AFTERWARDS,
            "production/password": "new value 2",
            "production/password (previous)": "new value 1",
        }
    ]


def test_without_section_and_beside_an_absent_field(vault: ConnectVault, put: Any, stored: Any) -> None:
    key, absent = FieldPath("Keys", "key"), FieldPath("Keys", "absent")
    put("Keys", (None, "key", OLD))
    written = ConnectWriter(vault, outdated={key: OLD}).ensure({key: lambda: "new", absent: lambda: "made"})
    assert written == {key: True, absent: False}
    assert stored("Keys") == [{"/key": "new", "/key (previous)": OLD, "/absent": "made"}]


@pytest.mark.usefixtures("old")
def test_looking_writes_nothing(
    vault: ConnectVault, wanted: Makers, server: FaultyServer, stored: Any
) -> None:
    before = stored("Database")
    assert ConnectWriter(vault, outdated=OUTDATED).due(wanted) == {PASSWORD: True}
    assert stored("Database") == before
    assert {method for method, _ in server.requests} == {"GET"}


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize(
    "status", ["429 Too Many Requests", "500 Internal Server Error", "504 Gateway Timeout"]
)
def test_a_write_that_fails_is_repeated_but_renews_once(
    vault: ConnectVault, server: FaultyServer, wanted: Makers, stored: Any, old: str, status: str, after: bool
) -> None:
    """Twice in a row, so that the repetition of a lost answer is lost, too."""
    server.faults.extend([Fault(status, b"<html>", method=old, after=after)] * 2)
    assert ConnectWriter(vault, outdated=OUTDATED).ensure(wanted) == {PASSWORD: True}
    assert stored("Database") == [AFTERWARDS]


def test_an_answer_lost_for_good_still_renews_once(
    vault: ConnectVault, server: FaultyServer, wanted: Makers, stored: Any, old: str
) -> None:
    """Every try of the client's own is taken and none is answered: only a look tells that it was."""
    server.faults.extend([Fault("503 Service Unavailable", method=old, after=True)] * 7)
    assert ConnectWriter(vault, outdated=OUTDATED).ensure(wanted) == {PASSWORD: True}
    assert stored("Database") == [AFTERWARDS]


def test_a_look_that_shows_the_time_before_renews_once(
    vault: ConnectVault,
    wanted: Makers,
    server: FaultyServer,
    stored: Any,
    old: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connect may show a write late; the repetition then writes the same value."""
    item_id = vault.titled("Database")[0].id
    before, fetch, looks = vault.fetch(item_id, "the item"), vault.fetch, count(1)
    late = 5  # the looks before the first write and after it, and those before the second

    def show_late(item_id: str, what: str) -> Any:
        return deepcopy(before) if next(looks) <= late else fetch(item_id, what)

    monkeypatch.setattr(vault, "fetch", show_late)
    assert ConnectWriter(vault, visible_seconds=0, outdated=OUTDATED).ensure(wanted) == {PASSWORD: True}
    assert server.count(old) > 1
    assert stored("Database") == [AFTERWARDS]


def test_a_write_that_is_refused_for_good_says_so_without_the_values(
    vault: ConnectVault, server: FaultyServer, wanted: Makers, stored: Any, old: str
) -> None:
    before = stored("Database")
    server.faults.append(Fault("400 Bad Request", f'{{"message": "{OLD}"}}'.encode(), method=old))
    with pytest.raises(ConnectError, match=r'write to item "Database".*HTTP 400') as caught:
        ConnectWriter(vault, outdated=OUTDATED).ensure(wanted)
    assert not any(value in str(caught.value) for value in (OLD, "new value", TOKEN))
    assert stored("Database") == before


def test_what_another_changes_meanwhile_stays(vault: ConnectVault, put: Any, stored: Any) -> None:
    """As when the webhook replaces a used key, and the relay's token in the same item is rotated."""
    item = put(
        "Database",
        ("production", "password", OLD),
        ("production", "password (previous)", "older"),
        ("production", "other", "used"),
    )
    [other] = [field["id"] for field in item["fields"] if field["label"] == "other"]

    def make() -> str:  # is asked for when the item was read, and is not written yet
        change = [{"op": "replace", "path": f"/fields/{other}/value", "value": "new"}]
        path = f"/v1/vaults/{VAULT_ID}/items/{item['id']}"
        assert vault.client.build_request("PATCH", path, change).is_success
        return "made"

    assert ConnectWriter(vault, outdated=OUTDATED).ensure({PASSWORD: make}) == {PASSWORD: True}
    assert stored("Database") == [
        {"production/password": "made", "production/password (previous)": OLD, "production/other": "new"}
    ]


@pytest.mark.usefixtures("old")
def test_runs_at_the_same_moment_never_lose_the_old_value(
    open_vault: Callable[..., ConnectVault], stored: Any
) -> None:
    """All have looked before the first writes: one of their values stays, and the old one beside it."""
    runs = 4
    together = Barrier(runs)

    def run(number: int) -> dict[FieldPath, bool]:
        vault = open_vault()
        assert vault.value(PASSWORD) == OLD
        together.wait()
        maker = {PASSWORD: lambda: f"value of run {number}"}
        return dict(ConnectWriter(vault, outdated=OUTDATED).ensure(maker))

    with ThreadPoolExecutor(runs) as pool:
        assert {PASSWORD: True} in list(pool.map(run, range(runs)))
    (item,) = stored("Database")
    assert item["production/password"] in {f"value of run {number}" for number in range(runs)}
    assert item["production/password (previous)"] == OLD
