"""Who may call: the one-time key and the signature, with 1Password near and away."""

import contextlib
import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onepasswordconnectsdk.models import Item
from webhook.keys import (
    Keys,
    KeyUnavailableError,
    MalformedError,
    ReplayError,
    UnauthorizedError,
    signature,
)
from webhook.settings import ConnectSettings
from webhook.store import Store, StoreError
from webhook.vault import ConnectVault, VaultUnavailableError
from werkzeug.datastructures import Headers

from sandbox import connect
from tests.served import TOKEN, VAULT_ID, served
from tests.webhook.doubles import VaultDouble, wait_until
from webhook import keys as keys_module
from webhook import vault as vault_module

WINDOW = 300
NOW = 1_800_000_000.0
BODY = b'{"ref": "refs/heads/production", "number": 1}'


@dataclass
class Clock:
    """Time that a test sets."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A `Keys` that can be restarted on the same disk."""

    folder: Path
    vault: VaultDouble = field(default_factory=VaultDouble)
    clock: Clock = field(default_factory=Clock)

    def keys(self) -> Keys:
        store = Store(self.folder / "store.sqlite3")
        return Keys(self.vault, self.folder / "key", store, WINDOW, self.clock)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # Asked anew each time: how seldom it is asked has a test of its own.
    monkeypatch.setattr(keys_module, "ASK_AGAIN_SECONDS", 0)
    monkeypatch.setattr(keys_module, "ASK_AGAIN_AFTER_FAILURE_SECONDS", 0)
    return Bench(tmp_path)


def by_key(key: str) -> Headers:
    return Headers({"X-Webhook-Key": key})


def by_signature(key: str, body: bytes = BODY, nonce: str | None = None, timestamp: float = NOW) -> Headers:
    """Sign as the documentation of `webhook.keys` tells a caller to, without its code."""
    nonce = nonce or secrets.token_urlsafe(16)
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    message = f"{timestamp:.0f}\n{nonce}\n{canonical}"
    digest = hmac.new(key.encode(), message.encode(), hashlib.sha256).hexdigest()
    return Headers(
        {
            "X-Webhook-Timestamp": f"{timestamp:.0f}",
            "X-Webhook-Nonce": nonce,
            "X-Webhook-Signature": f"sha256={digest}",
        }
    )


def call(keys: Keys, headers: Headers, body: bytes = BODY) -> None:
    keys.use(keys.verify(headers, body))


def test_key_opens_once_and_is_replaced(bench: Bench) -> None:
    keys = bench.keys()
    call(keys, by_key("first-key"))
    with pytest.raises(ReplayError):
        call(keys, by_key("first-key"))
    assert keys.rotate_if_used()
    assert bench.vault.key != "first-key"
    assert len(bench.vault.key) >= 40
    with pytest.raises(ReplayError):
        call(keys, by_key("first-key"))
    call(keys, by_key(bench.vault.key))


def test_verifying_alone_uses_nothing_up(bench: Bench) -> None:
    keys = bench.keys()
    keys.verify(by_key("first-key"), BODY)
    call(keys, by_key("first-key"))


def test_unused_key_is_not_rotated(bench: Bench) -> None:
    assert not bench.keys().rotate_if_used()
    assert bench.vault.key == "first-key"


@pytest.mark.parametrize("key", ["", "wrong", "first-ke", "first-key ", "FIRST-KEY", "x" * 100_000, "\xff"])
def test_wrong_key_is_refused(bench: Bench, key: str) -> None:
    with pytest.raises(UnauthorizedError):
        bench.keys().verify(by_key(key), BODY)


def test_replay_is_known_after_a_restart(bench: Bench) -> None:
    call(bench.keys(), by_key("first-key"))
    with pytest.raises(ReplayError):
        call(bench.keys(), by_key("first-key"))


def test_of_two_simultaneous_calls_one_gets_through(bench: Bench) -> None:
    keys = bench.keys()
    credentials = [keys.verify(by_key("first-key"), BODY) for _ in range(8)]
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def use(number: int) -> None:
        barrier.wait()
        try:
            keys.use(credentials[number])
            outcomes.append("used")
        except ReplayError:
            outcomes.append("replay")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["replay"] * 7 + ["used"]


def test_cached_key_serves_while_the_vault_is_away(bench: Bench) -> None:
    bench.keys().verify(by_key("first-key"), BODY)
    bench.vault.away = True
    restarted = bench.keys()
    call(restarted, by_key("first-key"))
    assert (bench.folder / "key").stat().st_mode & 0o777 == 0o600


def test_no_key_at_all_is_said(bench: Bench) -> None:
    bench.vault.away = True
    keys = bench.keys()
    with pytest.raises(KeyUnavailableError):
        keys.verify(by_key("first-key"), BODY)
    with pytest.raises(UnauthorizedError):
        keys.verify(Headers(), BODY)
    bench.vault.away = False
    call(keys, by_key("first-key"))


def test_key_rotated_by_hand_counts_at_once(bench: Bench) -> None:
    keys = bench.keys()
    keys.verify(by_key("first-key"), BODY)
    bench.vault.key = "by-hand"
    with pytest.raises(UnauthorizedError):
        keys.verify(by_key("first-key"), BODY)
    call(keys, by_key("by-hand"))


def test_flood_asks_the_vault_once_a_second(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    keys = bench.keys()
    started = time.monotonic()
    for number in range(300):
        with pytest.raises(UnauthorizedError):
            keys.verify(by_key(f"wrong-{number}"), BODY)
    assert bench.vault.reads <= 1 + (time.monotonic() - started)


def test_rotation_happens_by_itself_and_survives_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "ROTATION_RETRY_SECONDS", (0.01, 0.02))
    keys = bench.keys()
    keys.start()
    try:
        credential = keys.verify(by_key("first-key"), BODY)
        bench.vault.away = True
        keys.use(credential)
        reads = bench.vault.reads
        wait_until(lambda: bench.vault.reads > reads + 2)
        assert bench.vault.key == "first-key"
        bench.vault.away = False
        wait_until(lambda: bench.vault.key != "first-key")
        call(keys, by_key(bench.vault.key))
    finally:
        keys.close()


def test_rotation_left_undone_is_done_at_the_next_start(bench: Bench) -> None:
    call(bench.keys(), by_key("first-key"))  # and killed before the rotation
    keys = bench.keys()
    keys.start()
    wait_until(lambda: bench.vault.key != "first-key")
    keys.close()


@pytest.fixture
def rotating(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """Keys that are rotated in the background, once the first key was used and replaced."""
    monkeypatch.setattr(keys_module, "ROTATION_RETRY_SECONDS", (0.01, 0.02))
    keys = bench.keys()
    keys.start()
    call(keys, by_key("first-key"))
    wait_until(lambda: bench.vault.key != "first-key", what="the rotation")
    call(keys, by_signature(bench.vault.key))
    yield keys
    keys.close()


@pytest.mark.parametrize(
    "headers",
    [by_key("first-key"), by_key("wrong"), by_signature("first-key")],
    ids=["replay", "wrong", "signed"],
)
def test_spent_key_that_another_writer_put_back_is_replaced_when_it_is_seen(
    bench: Bench, rotating: Keys, headers: Headers
) -> None:
    bench.vault.key = "first-key"  # as somebody's PUT of the whole item does
    with pytest.raises((ReplayError, UnauthorizedError, KeyUnavailableError)):
        call(rotating, headers)
    wait_until(lambda: bench.vault.key != "first-key", what="another key in the vault")
    call(rotating, by_key(bench.vault.key))


def test_spent_key_is_looked_for_without_a_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "LOOK_SECONDS", 0.02, raising=False)
    keys = bench.keys()
    keys.start()
    call(keys, by_key("first-key"))
    wait_until(lambda: bench.vault.key != "first-key")
    bench.vault.key = "first-key"
    wait_until(lambda: bench.vault.key != "first-key", what="another key in the vault")
    keys.close()


def test_flood_of_replays_asks_the_vault_once_a_second(tmp_path: Path) -> None:
    vault = VaultDouble()
    keys = Bench(tmp_path, vault).keys()
    keys.start()
    call(keys, by_key("first-key"))
    wait_until(lambda: vault.key != "first-key")
    started, reads = time.monotonic(), vault.reads
    for _ in range(300):
        with pytest.raises(ReplayError):
            keys.verify(by_key("first-key"), BODY)
    keys.close()
    assert vault.reads - reads <= 3 * (1 + time.monotonic() - started)


@pytest.mark.parametrize("away", [True, False], ids=["vault away", "put back"])
@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "running"])
def test_spent_key_does_not_sign(bench: Bench, away: bool, restarted: bool) -> None:
    """Whoever has read the channel knows it."""
    keys = bench.keys()
    call(keys, by_key("first-key"))
    bench.vault.away = away
    with pytest.raises(KeyUnavailableError, match="being replaced"):
        call(bench.keys() if restarted else keys, by_signature("first-key"))


class ContestedVault(VaultDouble):
    """Right after a write somebody else writes, too, each time with the next of `others`."""

    def __init__(self, *others: str) -> None:
        super().__init__()
        self.others = list(others)

    def write(self, key: str) -> None:
        super().write(self.others.pop(0) if self.others else key)


def test_write_that_another_one_undid_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "ROTATION_RETRY_SECONDS", (0.01, 0.02))
    vault = ContestedVault("first-key", "first-key")
    keys = Bench(tmp_path, vault).keys()
    keys.start()
    call(keys, by_key("first-key"))
    wait_until(lambda: not vault.others and vault.key != "first-key", what="another key in the vault")
    keys.close()
    call(keys, by_signature(vault.key))


def test_key_that_another_writer_chose_counts(tmp_path: Path) -> None:
    vault = ContestedVault("by-hand")
    keys = Bench(tmp_path, vault).keys()
    call(keys, by_key("first-key"))
    assert keys.rotate_if_used()
    vault.away = True
    call(keys, by_signature("by-hand"))


class SlowVault(VaultDouble):
    """Answers a read, with the key as it was at its beginning, when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.answer.set()

    def read(self) -> str:
        key = super().read()
        self.asked.set()
        assert self.answer.wait(60)
        return key


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Bench]:
    vault = SlowVault()
    yield Bench(tmp_path, vault)
    vault.answer.set()


def asking(keys: Keys, vault: SlowVault) -> threading.Thread:
    """Return a caller who waits for the vault's answer."""
    vault.asked.clear()
    vault.answer.clear()
    keys._ask_again_at = 0

    def ask() -> None:
        with contextlib.suppress(UnauthorizedError, KeyUnavailableError):
            keys.verify(by_key("the first to ask"), BODY)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert vault.asked.wait(60)
    return thread


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        (by_key("wrong"), UnauthorizedError),
        (by_signature("wrong"), UnauthorizedError),
        (by_key("first-key"), None),
        (by_signature("first-key"), None),
    ],
    ids=["wrong key", "wrong signature", "key", "signature"],
)
def test_slow_vault_keeps_one_caller_waiting(
    slow: Bench, headers: Headers, outcome: type[Exception] | None
) -> None:
    """Sixteen callers would keep all threads of the webhook busy."""
    assert isinstance(slow.vault, SlowVault)
    keys = slow.keys()
    keys.verify(by_key("first-key"), BODY)
    first = asking(keys, slow.vault)
    outcomes: list[type[Exception] | None] = []

    def verify() -> None:
        try:
            keys.verify(headers, BODY)
            outcomes.append(None)
        except UnauthorizedError as error:
            outcomes.append(type(error))

    others = [threading.Thread(target=verify, daemon=True) for _ in range(16)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(5)
    assert outcomes == [outcome] * 16
    assert first.is_alive()
    slow.vault.answer.set()
    first.join()


def test_while_the_first_answer_is_awaited_nobody_is_verified(slow: Bench) -> None:
    assert isinstance(slow.vault, SlowVault)
    keys = slow.keys()
    first = asking(keys, slow.vault)
    with pytest.raises(KeyUnavailableError):
        keys.verify(by_key("first-key"), BODY)
    slow.vault.answer.set()
    first.join()


def test_answer_from_before_a_rotation_does_not_count_after_it(slow: Bench) -> None:
    assert isinstance(slow.vault, SlowVault)
    keys = slow.keys()
    call(keys, by_key("first-key"))
    first = asking(keys, slow.vault)
    slow.vault.read = lambda: slow.vault.key  # type: ignore[method-assign]
    assert keys.rotate_if_used()
    slow.vault.answer.set()
    first.join()
    slow.vault.away = True
    call(keys, by_key(slow.vault.key))
    assert (slow.folder / "key").read_text() == slow.vault.key


def test_rotation_survives_whatever_happens_in_it(
    bench: Bench, rotating: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [
        sqlite3.OperationalError("database or disk is full"),
        TypeError("a defect"),
        StoreError("locked"),
    ]
    is_used = Store.is_used

    def fail(store: Store, digest: str) -> bool:
        if threading.current_thread().name == "key-rotation" and failures:
            raise failures.pop(0)
        return is_used(store, digest)

    monkeypatch.setattr(Store, "is_used", fail)
    spent = bench.vault.key
    call(rotating, by_key(spent))
    wait_until(lambda: bench.vault.key != spent, what="the rotation")
    assert failures == []
    assert rotating.alive


@pytest.mark.parametrize("fault", ["not text", "folder"])
def test_cache_that_cannot_be_used_stops_no_call(bench: Bench, fault: str) -> None:
    cache = bench.folder / "key"
    if fault == "folder":
        (cache / "full").mkdir(parents=True)
    else:
        cache.write_bytes(b"\xff\xfe")
    keys = bench.keys()
    keys.verify(by_key("first-key"), BODY)
    bench.vault.away = True
    call(keys, by_key("first-key"))


def test_signature_opens_once_and_spends_no_key(bench: Bench) -> None:
    keys = bench.keys()
    headers = by_signature("first-key")
    call(keys, headers)
    for attempt in (keys, bench.keys()):  # the second one after a restart
        with pytest.raises(ReplayError):
            call(attempt, headers)
    assert not keys.rotate_if_used()
    call(keys, by_signature("first-key"))


def test_signature_covers_the_meaning_of_the_body_not_its_form(bench: Bench) -> None:
    headers = by_signature("first-key", b'{"b": "\xc3\xa9", "a": [1, true, null]}')
    call(bench.keys(), headers, b'{"a":[1.0,true,null],\n "b":"\\u00e9"}')


@pytest.mark.parametrize("part", ["body", "nonce", "timestamp", "signature", "key"])
def test_signature_fails_when_anything_differs(bench: Bench, part: str) -> None:
    headers = by_signature("other" if part == "key" else "first-key")
    body = BODY
    if part == "body":
        body = BODY.replace(b"1", b"2")
    elif part == "nonce":
        headers["X-Webhook-Nonce"] = "n" * 20
    elif part == "timestamp":
        headers["X-Webhook-Timestamp"] = str(int(headers["X-Webhook-Timestamp"]) + 1)
    elif part == "signature":
        headers["X-Webhook-Signature"] = headers["X-Webhook-Signature"][:-1]
    with pytest.raises(UnauthorizedError):
        bench.keys().verify(headers, body)


@pytest.mark.parametrize("offset", [-WINDOW - 1, WINDOW + 1])
def test_old_and_future_signatures_are_refused(bench: Bench, offset: int) -> None:
    with pytest.raises(UnauthorizedError, match="from the time here"):
        bench.keys().verify(by_signature("first-key", timestamp=NOW + offset), BODY)


def test_nonce_is_remembered_for_as_long_as_its_time_stamp_counts(bench: Bench) -> None:
    """A caller whose clock is ahead: the time stamp counts for nearly two windows."""
    keys = bench.keys()
    headers = by_signature("first-key", timestamp=NOW + WINDOW)
    call(keys, headers)
    for later in (WINDOW, 2 * WINDOW):
        bench.clock.now = NOW + later
        call(keys, by_signature("first-key", timestamp=bench.clock.now))  # which forgets what has expired
        with pytest.raises(ReplayError):
            call(keys, headers)
    bench.clock.now = NOW + 2 * WINDOW + 1
    with pytest.raises(UnauthorizedError):
        call(keys, headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Webhook-Timestamp", ""),
        ("X-Webhook-Timestamp", "now"),
        ("X-Webhook-Timestamp", "١٨٠٠٠٠٠٠٠٠"),
        ("X-Webhook-Timestamp", "1e9"),
        ("X-Webhook-Timestamp", "9" * 400),
        ("X-Webhook-Nonce", ""),
        ("X-Webhook-Nonce", "short"),
        ("X-Webhook-Nonce", "x" * 129),
        ("X-Webhook-Nonce", "with space and so on"),
        ("X-Webhook-Signature", ""),
        ("X-Webhook-Signature", "é"),
    ],
)
def test_malformed_parts_are_refused(bench: Bench, name: str, value: str) -> None:
    headers = by_signature("first-key")
    headers[name] = value
    with pytest.raises(UnauthorizedError):
        bench.keys().verify(headers, BODY)


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"NaN", b"[1e400]", b"[123456789012345678901]", b"[" * 100_000, b'"\\ud800"']
)
def test_body_that_cannot_be_signed_is_malformed(bench: Bench, body: bytes) -> None:
    headers = by_signature("first-key")
    with pytest.raises(MalformedError):
        bench.keys().verify(headers, body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.text(alphabet=st.characters(codec="utf-8")),
        lambda children: (
            st.lists(children) | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), children)
        ),
    )
)
def test_canonical_form_survives_what_a_channel_does(value: object) -> None:
    """smee parses the body and writes it anew: other spaces, other escapes, the same signature."""
    sent = json.dumps(value, indent=2).encode()
    received = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert signature("key", "1", "n", sent) == signature("key", "1", "n", received)


ITEM = "Airflow webhook"


@pytest.fixture
def connect_url(tmp_path: Path) -> Iterator[str]:
    with served(connect.create_app(str(tmp_path / "connect"), TOKEN, VAULT_ID)) as url:
        yield url


def vault_at(url: str, item: str = ITEM, section_field: str = "production.key") -> ConnectVault:
    settings = ConnectSettings(url=url, token=TOKEN, vault=VAULT_ID, item=item, field=section_field)
    return ConnectVault(settings)


def create_item(url: str, title: str = ITEM) -> None:
    from onepasswordconnectsdk.client import Client
    from onepasswordconnectsdk.models import Field, FieldSection, Item, ItemVault, Section

    fields = [
        Field(label="key", value=name, type="CONCEALED", section=FieldSection(id=name))
        for name in ("production", "staging")
    ]
    sections = [Section(id=name, label=name) for name in ("production", "staging")]
    item = Item(
        title=title, category="API_CREDENTIAL", vault=ItemVault(id=VAULT_ID), fields=fields, sections=sections
    )
    Client(url, TOKEN).create_item(VAULT_ID, item)


def test_write_keeps_what_others_change_meanwhile(connect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create_item(connect_url)
    item = vault_module._Session.item
    staging = vault_at(connect_url, section_field="staging.key")

    def read(session: vault_module._Session) -> Item:
        """Read, and then be slower than somebody who enters another field by hand."""
        found = item(session)
        monkeypatch.setattr(vault_module._Session, "item", item)
        staging.write("entered meanwhile")
        return found

    monkeypatch.setattr(vault_module._Session, "item", read)
    vault_at(connect_url).write("new")
    assert (vault_at(connect_url).read(), staging.read()) == ("new", "entered meanwhile")


def test_vault_reads_and_writes_one_field(connect_url: str) -> None:
    create_item(connect_url)
    vault = vault_at(connect_url)
    assert vault.read() == "production"
    vault.write("new")
    assert vault.read() == "new"
    assert vault_at(connect_url, section_field="staging.key").read() == "staging"


@pytest.mark.parametrize("title", ["R&D feed", 'The "new" one', "100% + \\ #1", "Größe/2", "a" * 26])
def test_vault_finds_any_title(connect_url: str, title: str) -> None:
    create_item(connect_url, title)
    vault = vault_at(connect_url, item=title)
    vault.write("new")
    assert vault.read() == "new"


@pytest.mark.parametrize(
    "vault_of",
    [
        lambda url: vault_at(url, item="Nowhere"),
        lambda url: vault_at(url, section_field="production.nothing"),
        lambda url: vault_at(url, section_field="key"),
        lambda url: vault_at("http://127.0.0.1:9"),
        lambda url: vault_at("no address"),
        lambda url: vault_at(url + "/not-the-api"),
    ],
    ids=["no item", "no field", "no section", "away", "bad address", "something else"],
)
def test_vault_says_what_is_wrong_without_a_value(
    connect_url: str, vault_of: Callable[[str], ConnectVault]
) -> None:
    create_item(connect_url)
    vault = vault_of(connect_url)
    for action in (vault.read, lambda: vault.write("secret-value")):
        with pytest.raises(VaultUnavailableError) as caught:
            action()
        assert "secret-value" not in str(caught.value)
        assert TOKEN not in str(caught.value)
