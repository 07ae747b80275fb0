"""Copies elsewhere, by the real rclone: to a directory here, which to rclone is a remote like others."""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow_release.backup import backups, bundle, restore, retention, status, store
from airflow_release.backup.offhost import Remote
from airflow_release.core import records
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.records import Release
from airflow_release.core.settings import Settings, load

from tests.missing import missing

CONFIG = "[offsite]\ntype = alias\nremote = {}/elsewhere\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A remote `offsite:`, whose root is a directory."""
    if not shutil.which("rclone"):
        missing("no rclone here: run bin/setup --database")
    config = tmp_path / "rclone.conf"
    config.write_text(CONFIG.format(tmp_path))
    return Settings(
        remote="offsite:airflow", remote_config=config, keep_days=7, keep_count=2, host="atd-data03"
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the remote has its files."""
    return tmp_path / "elsewhere/airflow"


@pytest.fixture
def nightly(host: Host, settings: Settings) -> Callable[[], Path]:
    """Take a backup and copy it, as the timer does."""

    def take() -> Path:
        taken = backups.take(host, settings=settings, reason="timer")
        store.copy_off_host(host, settings)
        return taken

    return take


def earlier(host: Host, taken: Path) -> Path:
    """Keep a backup under the name of the day before."""
    made = retention.created(taken.name)
    assert made
    name = taken.name.replace(f"{made:%Y%m%d}", f"{made - timedelta(days=1):%Y%m%d}")
    return taken.rename(host.backups / name)


def test_remote_is_reached_through_the_proxy(host: Host, settings: Settings, tmp_path: Path) -> None:
    """The command gets it from its settings, whoever calls it: the timer, a playbook, a person."""
    asked: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    settings.remote_config.write_text("[offsite]\ntype = http\nurl = http://backup.invalid/\n")
    file = tmp_path / "settings.json"
    proxies = {"http_proxy": f"http://127.0.0.1:{server.server_port}", "no_proxy": "localhost"}
    values = {
        "keep_days": 1,
        "keep_count": 1,
        "remote": "offsite:airflow",
        "fernet_key": {},
        "proxies": proxies,
    }
    file.write_text(json.dumps(values))
    assert Remote(host, dataclasses.replace(load(file), remote_config=settings.remote_config)).sizes() == {}
    server.shutdown()
    server.server_close()
    assert asked
    assert [address for address in asked if not address.startswith("http://backup.invalid/")] == []


class Cloud:
    """A store whose access tokens last a second, and whose refresh tokens are good for one use."""

    def __init__(self) -> None:
        self.refresh_token = "1"
        cloud = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                if asked["refresh_token"] != [cloud.refresh_token]:
                    self._answer(400, {"error": "invalid_grant"})
                    return
                cloud.refresh_token = str(int(cloud.refresh_token) + 1)
                token = {"token_type": "Bearer", "access_token": "a", "expires_in": 1}
                self._answer(200, {**token, "refresh_token": cloud.refresh_token})

            def do_GET(self) -> None:
                self._answer(200, {"kind": "storage#objects", "items": []})

            def _answer(self, status: int, document: object) -> None:
                text = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def configuration(self, refresh_token: str) -> str:
        """Return what `rclone config` writes after a login."""
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        token = {"access_token": "a", "refresh_token": refresh_token, "expiry": "2020-01-01T00:00:00Z"}
        return (
            "[offsite]\ntype = google cloud storage\nbucket_policy_only = true\n"
            "client_id = a\nclient_secret = a\n"
            f"endpoint = {address}/\ntoken_url = {address}/token\ntoken = {json.dumps(token)}\n"
        )


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud()
    thread = threading.Thread(target=cloud.server.serve_forever)
    thread.start()
    yield cloud
    cloud.server.shutdown()
    cloud.server.server_close()
    thread.join()


def test_refreshed_token_is_kept(host: Host, settings: Settings, cloud: Cloud) -> None:
    """The next run of `site.yml` writes the inventory's text again, whose token is used up."""
    given = cloud.configuration("1")
    for uses in range(1, 4):
        settings.remote_config.write_text(given)
        assert Remote(host, settings).sizes() == {}
        assert cloud.refresh_token == str(1 + uses)
    # The nightly backup may not write there (ProtectSystem=strict).
    assert settings.remote_config.read_text() == given
    [kept] = (host.releases / "rclone").iterdir()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_new_login_replaces_the_token(host: Host, settings: Settings, cloud: Cloud) -> None:
    """After a login anew, what rclone had kept of the one before is worth nothing."""
    settings.remote_config.write_text(cloud.configuration("1"))
    Remote(host, settings).sizes()
    cloud.refresh_token = "8"
    settings.remote_config.write_text(cloud.configuration("8"))
    assert Remote(host, settings).sizes() == {}
    assert len(list((host.releases / "rclone").iterdir())) == 1


def test_missing_configuration_is_named(host: Host, settings: Settings) -> None:
    settings.remote_config.unlink()
    with pytest.raises(ReleaseError, match=r"configuration cannot be prepared.*rclone\.conf"):
        Remote(host, settings).sizes()


def test_backup_is_copied_and_compared(host: Host, nightly: Callable[[], Path], place: Path) -> None:
    taken = nightly()
    assert status.read(host)["last_failure"] is None
    assert [file.name for file in place.iterdir()] == [taken.name]
    assert (place / taken.name).read_bytes() == taken.read_bytes()
    state = json.loads((host.status / "backup.json").read_text())
    assert state["last_good"]["off_host"] is True
    assert state["last_copied"] == {"name": taken.name, "at": state["last_good"]["at"]}


def test_age_of_the_last_copy_outlasts_the_next_backup(host: Host, settings: Settings) -> None:
    """Whose own copy fails: then it says how old the data is that would be left without this host."""
    copied = {"name": "airflow-1.tar", "at": 1.8e9}
    host.backups.mkdir(parents=True, exist_ok=True)
    status.record(
        host, last_copied=copied, last_good={"name": "airflow-2.tar", "at": 1.9e9, "off_host": False}
    )
    settings.remote_config.unlink()
    with pytest.raises(ReleaseError):
        store.copy_off_host(host, settings)
    assert status.read(host)["last_copied"] == copied
    assert status.read(host)["last_failure"]["copying"]


def test_switch_waits_for_no_remote(host: Host, settings: Settings, nightly: Callable[[], Path]) -> None:
    """Its backup is taken while scheduling stands still; the next night's run brings it there."""
    settings.remote_config.write_text("")
    of_switch = earlier(host, backups.take(host, settings=settings, reason="before an upgrade"))
    state = status.read(host)
    assert state["last_failure"] is None
    assert state["last_good"]["off_host"] is False
    settings.remote_config.write_text(CONFIG.format(settings.remote_config.parent))
    taken = nightly()
    assert set(Remote(host, settings).sizes()) == {of_switch.name, taken.name}


def test_copy_that_differs_is_an_error(
    host: Host, nightly: Callable[[], Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone = Remote._rclone

    def lossy(self: Remote, *arguments: str, doing: str, stdout: object = None) -> str:
        output = rclone(self, *arguments, doing=doing)
        if arguments[0] == "copyto":
            [copy] = place.iterdir()
            with copy.open("r+b") as file:
                file.write(b"x")
        return output

    monkeypatch.setattr(Remote, "_rclone", lossy)
    with pytest.raises(ReleaseError, match="comparing airflow-"):
        nightly()
    [taken] = host.backups.glob("airflow-*.tar")
    assert bundle.verify(taken)
    state = status.read(host)
    assert "comparing airflow-" in state["last_failure"]["reason"]
    assert state["last_good"]["off_host"] is False
    assert state["last_failure"]["at"] >= state["last_good"]["at"]


def test_remote_that_is_away_leaves_a_good_backup(
    host: Host, settings: Settings, nightly: Callable[[], Path]
) -> None:
    """The failure is told until a copy has succeeded, however many good backups there are here meanwhile."""
    settings.remote_config.write_text("")
    with pytest.raises(ReleaseError, match="copying"):
        nightly()
    [taken] = host.backups.glob("airflow-*.tar")
    failure = status.read(host)["last_failure"]
    assert "copying" in failure["reason"]
    assert "didn't find section in config file" in failure["reason"], "what rclone says, too"
    assert backups.check(host, taken).counts == bundle.verify(taken).counts
    earlier(host, taken)
    backups.take(host, settings=settings, reason="before an upgrade")
    assert status.read(host)["last_failure"] == failure
    settings.remote_config.write_text(CONFIG.format(settings.remote_config.parent))
    store.copy_off_host(host, settings)
    assert status.read(host)["last_failure"] is None
    assert len(Remote(host, settings).sizes()) == 2


def test_interrupted_copy_is_made_again(host: Host, nightly: Callable[[], Path], place: Path) -> None:
    old = earlier(host, nightly())
    content = old.read_bytes()
    for file in place.iterdir():
        file.unlink()
    (place / old.name).write_bytes(content[:5000])
    nightly()
    assert (place / old.name).read_bytes() == content


def test_damaged_file_does_not_replace_its_copy(host: Host, nightly: Callable[[], Path], place: Path) -> None:
    old = earlier(host, nightly())
    content = old.read_bytes()
    (place / old.name).write_bytes(content)
    old.write_bytes(content[:5000])
    nightly()
    assert (place / old.name).read_bytes() == content


def test_old_copies_go_as_here(nightly: Callable[[], Path], place: Path) -> None:
    place.mkdir(parents=True)
    names = [f"airflow-production-atd-data03-202001{day:02}T000000Z-2.5.3.tar" for day in range(1, 4)]
    for name in [*names, "notes.txt"]:
        (place / name).write_text("x")
    taken = nightly()
    assert sorted(file.name for file in place.iterdir()) == sorted([taken.name, names[2], "notes.txt"])


def test_way_back_stays_there_as_here(host: Host, nightly: Callable[[], Path], place: Path) -> None:
    first = nightly()
    needed, *others = (
        first.name.replace(first.name[-26:-10], f"2020010{day}T000000Z") for day in range(1, 4)
    )
    for name in (needed, *others):
        shutil.copy(first, host.backups / name)
        shutil.copy(first, place / name)
    records.save(host, Release("left", "2.5.3", 1, bundle=str(host.backups / needed)))
    taken = earlier(host, first)
    nightly()
    assert (place / needed).exists()
    assert (host.backups / needed).exists()
    assert not any((folder / others[0]).exists() for folder in (place, host.backups))
    assert taken.exists()


def neighbours(taken: Path, place: Path, of: dict[str, Any]) -> list[str]:
    """Put bundles of another host there, one of each kind of name, all newer than what was taken."""
    manifest = dataclasses.replace(bundle.describe(taken), created="2099-01-01T00:00:00Z", members={}, **of)
    names = [manifest.name, re.sub(r"airflow-.*(?=-2099)", "airflow", manifest.name)]
    for name in names:
        bundle.write(place / name, manifest, {bundle.DUMP: b"PGDMP of a neighbour"})
    return names


@pytest.mark.parametrize(
    "of", [{"host": "atd-data04"}, {"environment": "staging"}], ids=["host", "environment"]
)
def test_neighbours_backups_are_not_touched(
    host: Host, settings: Settings, nightly: Callable[[], Path], place: Path, of: dict[str, str]
) -> None:
    """Two hosts share the remote; `latest` and retention know only their own."""
    taken = nightly()
    names = neighbours(taken, place, of)
    settings = dataclasses.replace(settings, keep_days=0, keep_count=1)
    store.copy_off_host(host, settings)
    assert {file.name for file in place.iterdir()} == {taken.name, *names}
    assert restore.find(host, settings, "latest") == taken
    taken.unlink()
    assert restore.find(host, settings, "latest") == taken, "from the remote"
    for name in names:
        found = restore.find(host, settings, name)
        assert bundle.verify(found).created == "2099-01-01T00:00:00Z"
    assert restore.find(host, settings, "latest") == taken, "also once a neighbour's was fetched"
    for file in place.glob(f"*{taken.name}"):
        file.unlink()
    taken.unlink()
    with pytest.raises(ReleaseError, match=r"is `latest`: .* nor another host's.*airflow-"):
        restore.find(host, settings, "latest")


def test_earlier_names_of_this_host_are_its_own(
    host: Host, settings: Settings, nightly: Callable[[], Path], place: Path
) -> None:
    taken = nightly()
    old = re.sub(r"airflow-.*(?=-20)", "airflow", taken.name)
    taken.rename(host.backups / old)
    (place / taken.name).rename(place / old)
    assert restore.find(host, settings, "latest").name == old
    (host.backups / old).unlink()
    assert restore.find(host, settings, "latest").name == old, "from the remote, by its manifest"


def test_latest_there_is_not_what_a_restore_replaced(host: Host, settings: Settings) -> None:
    taken = earlier(host, backups.take(host, settings=settings, reason="timer"))
    backups.take(host, settings=settings, reason="before 20261122T023456Z-restore-2.6.1")
    store.copy_off_host(host, settings)
    shutil.rmtree(host.backups)
    assert restore.find(host, settings, "latest").name == taken.name


def test_an_empty_host_gets_its_backup_from_there(
    host: Host, settings: Settings, nightly: Callable[[], Path]
) -> None:
    taken = nightly()
    content = taken.read_bytes()
    for wanted in ("latest", taken.name):
        shutil.rmtree(host.backups)
        assert restore.find(host, settings, wanted) == taken
        assert taken.read_bytes() == content
    assert [file.name for file in host.backups.iterdir()] == [taken.name]


def test_a_copy_damaged_elsewhere_does_not_come_in(
    host: Host, settings: Settings, nightly: Callable[[], Path], place: Path
) -> None:
    taken = nightly()
    taken.unlink()
    copy = place / taken.name
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match="not a complete backup"):
        restore.find(host, settings, "latest")
    assert list(host.backups.iterdir()) == []


@pytest.mark.parametrize("way", ["copy", "fetch"])
def test_copy_has_the_time_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A bundle of some hundred GB takes longer than six hours; silence is what ends it."""
    limits: list[object] = []

    def run(host: Host, command: list[str], *, timeout: float | None = 600, **_: object) -> str:
        limits.append(timeout)
        assert "--timeout=5m" in command
        return ""

    monkeypatch.setattr(Host, "run", run)
    config = tmp_path / "rclone.conf"
    config.write_text("")
    remote = Remote(Host(tmp_path / "srv"), Settings(remote="offsite:airflow", remote_config=config))
    if way == "copy":
        remote.copy(tmp_path / "a.tar")
    else:
        remote.fetch("a.tar", tmp_path / "a.tar")
    assert set(limits) == {None}
