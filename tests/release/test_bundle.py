"""A bundle shows by itself whether a byte of it is missing or another, and any `tar` can unpack it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from airflow_release.backup import bundle
from airflow_release.backup.bundle import DUMP, SEAL_SIZE, Manifest
from airflow_release.core.errors import ReleaseError
from hypothesis import given
from hypothesis import strategies as st

MANIFEST = Manifest(
    created="2026-11-22T14:40:25Z",
    reason="by hand",
    host="atd-data03",
    environment="production",
    airflow_version="2.6.1",
    postgres_version="15.14",
    schema_revision="98ae134e6fff",
    counts={"dag_run": 3},
    newest_run="",
    database_size=8_000_000,
    dag_commit="",
    images={},
    fernet_key={"fingerprints": ["0123456789abcdef"]},
)
CONTENT = {DUMP: b"PGDMP\x01\x0e" * 70, "config/.env": b"AIRFLOW_VERSION=2.6.1\n"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small bundle."""
    path = tmp_path_factory.mktemp("bundle") / "a.tar"
    bundle.write(path, MANIFEST, CONTENT)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a changed bundle is written."""
    return tmp_path_factory.mktemp("changed") / "a.tar"


def is_refused(place: Path, content: bytes) -> bool:
    """Tell whether a file of this content is refused."""
    place.write_bytes(content)
    try:
        bundle.verify(place)
    except ReleaseError:
        return True
    return False


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(CONTENT[DUMP])
    written = bundle.write(tmp_path / "a.tar", MANIFEST, {**CONTENT, DUMP: tmp_path / "dump"})
    read = bundle.verify(tmp_path / "a.tar")
    assert read == written == bundle.describe(tmp_path / "a.tar")
    assert dataclasses.replace(read, members={}) == MANIFEST
    assert {name: member["size"] for name, member in read.members.items()} == {
        name: len(content) for name, content in CONTENT.items()
    }
    dump = bundle.extract(tmp_path / "a.tar", DUMP, tmp_path)
    assert dump.read_bytes() == CONTENT[DUMP]
    assert dump.stat().st_mode & 0o777 == (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o600


def test_any_tar_unpacks_it(tmp_path: Path) -> None:
    bundle.write(tmp_path / "a.tar", MANIFEST, CONTENT)
    subprocess.run(["tar", "--extract", f"--directory={tmp_path}", f"--file={tmp_path}/a.tar"], check=True)
    assert (tmp_path / DUMP).read_bytes() == CONTENT[DUMP]
    assert json.loads((tmp_path / "manifest.json").read_text())["host"] == "atd-data03"
    sealed = (tmp_path / "a.tar").read_bytes()[:-SEAL_SIZE]
    digest = subprocess.run(["sha256sum"], input=sealed, capture_output=True, check=True).stdout
    assert digest.split()[0].decode() == (tmp_path / "SEAL").read_text().strip()


def test_name_says_whose_when_and_which_version() -> None:
    assert MANIFEST.name == "airflow-production-atd-data03-20261122T144025Z-2.6.1.tar"


@given(environment=st.text(max_size=20), host=st.text(min_size=1, max_size=20))
def test_name_can_be_taken_apart_again(environment: str, host: str) -> None:
    """Whatever an inventory calls a host: no two hosts are taken for one by their dashes."""
    found = bundle.NAME.fullmatch(dataclasses.replace(MANIFEST, environment=environment, host=host).name)
    assert found
    assert found["environment"] == (bundle.name_part(environment, "_") or "unknown")
    assert found["host"] == bundle.name_part(host)
    assert found["created"] == "20261122T144025Z"


def test_manifest_can_be_read_from_the_end_alone(whole: bytes) -> None:
    assert bundle.read_end(whole[-20 * bundle.BLOCK :]) == bundle.read_end(whole)
    assert dataclasses.replace(bundle.read_end(whole) or MANIFEST, members={}) == MANIFEST
    assert bundle.read_end(whole[:-1]) is None
    assert bundle.read_end(b"") is None


def test_every_single_byte_counts(whole: bytes, place: Path) -> None:
    """Also those that `tar` itself does not look at: padding, owners, the end."""
    accepted = [
        position
        for position in range(len(whole))
        if not is_refused(place, whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1 :])
    ]
    assert accepted == []
    assert not is_refused(place, whole)


@given(st.data())
def test_any_change_is_noticed(whole: bytes, place: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    changed = whole[:start] + data.draw(st.binary(max_size=600)) + whole[end:]
    assert is_refused(place, changed) == (changed != whole)


def test_every_truncation_is_noticed(whole: bytes, place: Path) -> None:
    assert [length for length in range(len(whole)) if not is_refused(place, whole[:length])] == []


@pytest.mark.parametrize("added", [b"\0", bytes(512), bytes(10240), b"x"])
def test_what_is_appended_is_noticed(whole: bytes, place: Path, added: bytes) -> None:
    assert is_refused(place, whole + added)


def test_message_names_the_file_and_what_is_wrong(whole: bytes, place: Path) -> None:
    place.write_bytes(whole[:-1])
    with pytest.raises(ReleaseError, match=r"a\.tar is not a complete backup: it was cut off or altered"):
        bundle.verify(place)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"cannot be read: No such file"):
        bundle.verify(tmp_path / "absent.tar")
    (tmp_path / "empty.tar").touch()
    with pytest.raises(ReleaseError, match="not a complete backup"):
        bundle.verify(tmp_path / "empty.tar")
    with tarfile.open(tmp_path / "plain.tar", "w"):
        pass
    with pytest.raises(ReleaseError, match="not a complete backup"):
        bundle.verify(tmp_path / "plain.tar")


def test_later_format_is_refused(tmp_path: Path) -> None:
    bundle.write(tmp_path / "a.tar", dataclasses.replace(MANIFEST, format=2), CONTENT)
    with pytest.raises(ReleaseError, match="has format 2; this version reads 1"):
        bundle.verify(tmp_path / "a.tar")


def test_sealed_file_without_a_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MANIFEST", "other.json")
    bundle.write(tmp_path / "a.tar", MANIFEST, CONTENT)
    monkeypatch.undo()
    with pytest.raises(ReleaseError, match="not one of this platform's backups"):
        bundle.verify(tmp_path / "a.tar")


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("precious")
    with pytest.raises(FileExistsError):
        bundle.write(tmp_path / "a.tar", MANIFEST, CONTENT)
    assert (tmp_path / "a.tar").read_text() == "precious"


def test_fingerprints_tell_keys_apart_and_are_no_keys() -> None:
    one, other = bundle.fingerprints("first-key, second-key")
    assert one != other
    assert bundle.fingerprints("first-key") == [one]
    assert "first" not in one
    assert len(one) == 16
    assert bundle.fingerprints("") == []
