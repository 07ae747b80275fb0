"""A dropped certificate is served if browsers would take it, and changes nothing if they would not."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from airflow_release import cli
from airflow_release.certificate import commands, pem
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.switch import haproxy

from tests.certificates import certificate

NAMES = ["airflow.example.org", "hooks.example.org"]
KEY = re.compile(r"-----BEGIN PRIVATE KEY-----.+", re.DOTALL)
ENCRYPTED = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiC1gqg2ZKfhgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEPmTmrzpZQUULWvLFRqOcwkEgZDP
-----END ENCRYPTED PRIVATE KEY-----
"""
GOOD = certificate(NAMES)
OTHER = certificate(NAMES)

BAD = {
    "key of another one": (KEY.sub("", GOOD) + "".join(KEY.findall(OTHER)), "key values mismatch"),
    "no key": (KEY.sub("", GOOD), "no certificate with its own"),
    "no certificate": ("".join(KEY.findall(GOOD)), "no certificate with its own"),
    "encrypted key": (KEY.sub("", GOOD) + ENCRYPTED, "no certificate with its own"),
    "text": ("certificate", "no certificate with its own"),
    "nothing": ("", "no certificate with its own"),
    "bytes": ("\u00fc", "no certificate with its own"),
    "ended": (certificate(NAMES, ends_in=timedelta(minutes=-1)), "certificate has expired"),
    "not yet valid": (certificate(NAMES, timedelta(days=3), issued=timedelta(days=1)), "not yet valid"),
    "other names": (certificate(NAMES[:1]), f"for {NAMES[1]}: Hostname mismatch"),
    "chain that leads elsewhere": (GOOD + KEY.sub("", OTHER), f"would refuse it for {NAMES[0]}"),
}


@pytest.mark.parametrize("names", [NAMES, ["*.example.org"]], ids=["each name", "all by a star"])
def test_good_one_is_taken(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "new.pem"
    file.write_text(certificate(names))
    assert pem.check(file, NAMES).endswith("GMT")


@pytest.mark.parametrize("bad", BAD)
def test_bad_one_is_refused_with_the_reason(tmp_path: Path, bad: str) -> None:
    text, reason = BAD[bad]
    file = tmp_path / "new.pem"
    file.write_text(text)
    with pytest.raises(ReleaseError, match=re.escape(reason)):
        pem.check(file, NAMES)


class Served(Host):
    """A host whose HAProxy checks what it is given; `refuses` is why it would not take it."""

    def run(self, command: list[str], *, input: str | None = None, **_: object) -> str:  # type: ignore[override]
        """Answer as HAProxy's own check does."""
        assert command[-3:-1] == ["bash", "-c"], command
        vars(self)["checked"] = input
        if reason := vars(self).get("refuses"):
            raise ReleaseError(reason)
        return ""


Drop = Callable[..., int]


@pytest.fixture
def host(tmp_path: Path) -> Served:
    host = Served(tmp_path / "srv", tmp_path / "backups")
    for name, text in {commands.SERVED: GOOD, "status/other.json": "", "releases/other": ""}.items():
        (host.directory / name).parent.mkdir(parents=True)
        (host.directory / name).write_text(text)
    (host.directory / commands.SERVED).chmod(0o440)
    (host.directory / "certificate").mkdir()
    return host


@pytest.fixture
def drop(host: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drop:
    """Run the command as the unit does, with what lies there."""
    reloads: list[str] = []
    vars(host)["reloads"] = reloads
    monkeypatch.setattr(cli, "Host", lambda *_: host)
    for name in ("directory", "backups"):
        monkeypatch.setattr(f"airflow_release.cli.Host.{name}", getattr(host, name), raising=False)

    def reload(host: Host) -> None:
        reloads.append((host.directory / commands.SERVED).read_text())
        if len(reloads) <= vars(host).get("silent", 0):
            raise ReleaseError("HAProxy did not take its configuration")

    monkeypatch.setattr(haproxy, "reload", reload)

    def run(text: str | None, hostnames: list[str] = NAMES) -> int:
        settings = {"keep_days": 7, "keep_count": 1, "remote": "", "fernet_key": {}, "hostnames": hostnames}
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        if text is not None:
            file = host.directory / commands.DROPPED
            file.write_text(text)
            os.utime(file, (0, 0))
        return cli.main(["certificate", f"--settings={tmp_path}/settings.json"])

    return run


def refusal(host: Host) -> str:
    """Return what the checker reads."""
    return str(json.loads((host.directory / "status/certificate.json").read_text())["refused"])


def test_good_one_is_served_and_its_file_goes(host: Served, drop: Drop) -> None:
    assert drop(OTHER) == 0
    served = host.directory / commands.SERVED
    assert served.read_text() == OTHER == vars(host)["checked"]
    assert served.stat().st_mode & 0o777 == 0o440
    assert vars(host)["reloads"] == [OTHER]
    assert not (host.directory / commands.DROPPED).exists()
    assert refusal(host) == ""


@pytest.mark.parametrize("bad", [*BAD, "by HAProxy", "without TLS"])
def test_bad_one_changes_nothing_and_is_told(
    host: Served, drop: Drop, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    text, reason = BAD.get(bad, (OTHER, {"by HAProxy": "too large", "without TLS": "no TLS"}.get(bad, "")))
    if bad == "by HAProxy":
        vars(host)["refuses"] = "the check failed: too large"
    assert drop(text, [] if bad == "without TLS" else NAMES) == cli.NOT_DONE
    assert (host.directory / commands.SERVED).read_text() == GOOD
    assert vars(host)["reloads"] == []
    assert (host.directory / commands.DROPPED).exists()
    assert reason in refusal(host)
    assert reason in capsys.readouterr().err


def test_former_one_comes_back_if_haproxy_does_not_take_it(host: Served, drop: Drop) -> None:
    vars(host)["silent"] = 1
    assert drop(OTHER) == cli.NOT_DONE
    assert (host.directory / commands.SERVED).read_text() == GOOD
    assert vars(host)["reloads"] == [OTHER, GOOD]
    assert "did not take" in refusal(host)


def test_refusal_is_over_when_the_file_is_gone(host: Served, drop: Drop) -> None:
    assert drop("bad") == cli.NOT_DONE
    (host.directory / commands.DROPPED).unlink()
    assert drop(None) == 0
    assert refusal(host) == ""


def test_file_that_is_being_written_is_waited_for(host: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd starts the unit when the file appears, and its end may come later."""
    file = host.directory / commands.DROPPED
    file.write_text("the first part")
    waits: list[float] = []

    def write_on(seconds: float) -> None:
        waits.append(seconds)
        file.write_text("all")
        os.utime(file, (0, 0) if len(waits) == 2 else None)

    monkeypatch.setattr("airflow_release.certificate.commands.time.sleep", write_on)
    assert commands._read(file) == b"all"
    assert len(waits) == 2
