"""One release's files take the place of another's: contents, modes and owners, and nothing is left over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow_release.switch.release_files import CERTIFICATE, MANAGED, install
from hypothesis import given
from hypothesis import strategies as st

NAMES = [
    ".env",
    "docker-compose.yaml",
    "env/a.env",
    "env/b.env",
    "haproxy/haproxy.cfg",
    "weather/deep/nginx.conf",
]
releases = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.binary(max_size=8), st.sampled_from([0o600, 0o644]))
)


def write(directory: Path, content: dict[str, tuple[bytes, int]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, (text, mode) in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(text)
        (directory / name).chmod(mode)


def read(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(directory)): (file.read_bytes(), file.stat().st_mode & 0o7777)
        for file in directory.rglob("*")
        if file.is_file()
    }


@given(old=releases, new=releases)
def test_install_makes_one_like_the_other(
    tmp_path_factory: object, old: dict[str, tuple[bytes, int]], new: dict[str, tuple[bytes, int]]
) -> None:
    root = tmp_path_factory.mktemp("files")  # type: ignore[attr-defined]
    write(root / "next", new)
    write(root / "live", old)
    changed = install(root / "next", root / "live")
    assert read(root / "live") == new
    assert changed == {name for name in {**old, **new} if old.get(name) != new.get(name)}
    assert install(root / "next", root / "live") == set()


def test_data_is_not_touched(tmp_path: Path) -> None:
    write(tmp_path / "next", {".env": (b"x", 0o600)})
    write(tmp_path / "live", {"logs/run.log": (b"kept", 0o644), "releases/current": (b"kept", 0o600)})
    install(tmp_path / "next", tmp_path / "live")
    assert set(read(tmp_path / "live")) == {".env", "logs/run.log", "releases/current"}


@pytest.mark.parametrize("there", [True, False])
def test_certificate_of_the_host_stays(tmp_path: Path, there: bool) -> None:
    """Somebody may have renewed it since the release was rendered, or recorded."""
    write(tmp_path / "next", {CERTIFICATE: (b"of the release", 0o440)})
    write(tmp_path / "live", {CERTIFICATE: (b"of the host", 0o440)} if there else {})
    changed = install(tmp_path / "next", tmp_path / "live")
    assert (tmp_path / "live" / CERTIFICATE).read_bytes() == (b"of the host" if there else b"of the release")
    assert changed == (set() if there else {CERTIFICATE})


def test_mounted_directory_stays_the_same_one(tmp_path: Path) -> None:
    """A container that has it mounted would go on seeing the old one."""
    write(tmp_path / "next", {"haproxy/haproxy.cfg": (b"new", 0o644)})
    write(tmp_path / "live", {"haproxy/haproxy.cfg": (b"old", 0o644)})
    before = (tmp_path / "live/haproxy").stat().st_ino
    install(tmp_path / "next", tmp_path / "live")
    assert (tmp_path / "live/haproxy").stat().st_ino == before
    assert "haproxy" in MANAGED


def test_new_directory_has_the_mode_of_its_model(tmp_path: Path) -> None:
    write(tmp_path / "next", {"env/a.env": (b"secret", 0o600)})
    (tmp_path / "next/env").chmod(0o700)
    (tmp_path / "live").mkdir()
    install(tmp_path / "next", tmp_path / "live")
    assert (tmp_path / "live/env").stat().st_mode & 0o7777 == 0o700


def test_new_names_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a directory must not have the old file again, when the journal has gone on."""
    write(tmp_path / "next", {".env": (b"new", 0o600), "haproxy/haproxy.cfg": (b"new", 0o644)})
    write(tmp_path / "live", {".env": (b"old", 0o600), "haproxy/haproxy.cfg": (b"old", 0o644)})
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    install(tmp_path / "next", tmp_path / "live")
    assert {str(tmp_path / "live"), str(tmp_path / "live/haproxy")} <= set(synced)
