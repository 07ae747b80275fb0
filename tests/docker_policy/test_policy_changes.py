"""What changes while the filter runs: the inventory, and Docker's socket."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_policy.server import Filter, ReplacedSocketError
from docker_policy.settings import File

from docker_policy import cli
from tests.docker_policy.attacks import operator
from tests.docker_policy.conftest import LIMITS, OWNED, Wired
from tests.docker_policy.fake_docker import OUTPUT, FakeDocker, serve
from tests.docker_policy.test_policy_streams import UPGRADE, read_head

SECONDS = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        yield Path(name)


def write(folder: Path, **changes: Any) -> Path:
    """Put a file of settings in place as Ansible does: at once."""
    sockets = {
        "socket": "dags.sock",
        "docker_socket": "docker.sock",
        "status_socket": "status.sock",
    }
    document = {**LIMITS, **{name: f"{folder}/{value}" for name, value in sockets.items()}, **changes}
    (folder / "new").write_text(json.dumps(document))
    return (folder / "new").rename(folder / "policy.json")


def test_another_image_is_allowed_while_a_task_goes_on(folder: Path) -> None:
    """Whoever lists it in the inventory does not end what runs."""
    docker, file = FakeDocker(folder / "docker.sock"), File(write(folder))
    own = docker.put("own", OWNED)
    served = Filter(file.read(), file)
    wired = Wired(folder / "dags.sock", docker, served)
    with serve(docker), serve(served), wired.connect() as client, client.makefile("rb") as stream:
        client.sendall(UPGRADE)
        read_head(stream)

        def status() -> int:
            return wired.ask("POST", "/containers/create", operator(Image="city/etl:1")).status

        assert status() == 403
        write(folder, images=["city/*"])
        deadline = time.monotonic() + SECONDS
        while status() != 201:
            assert time.monotonic() < deadline
        own.started.set()
        assert stream.read().endswith(OUTPUT)


@pytest.mark.parametrize("text", ["", "[]", '{"images": 1}'])
def test_unusable_settings_leave_the_earlier_ones(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = File(write(folder))
    with Filter(file.read(), file) as served:
        policy = served.policy
        file.path.write_text(text)
        served.service_actions()
        served.service_actions()
        assert served.policy is policy
        [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert line["event"] == "failed"
        assert line["message"].endswith("; the earlier settings stay in force")
        write(folder)
        served.service_actions()
        assert served.policy is not policy


def test_file_that_is_away_changes_nothing(folder: Path) -> None:
    file = File(write(folder))
    with Filter(file.read(), file) as served:
        policy = served.policy
        file.path.unlink()
        served.service_actions()
        assert served.policy is policy


def test_filter_ends_when_docker_has_another_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mount is the file that was there when its container started, here one that is only open."""
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    with serve(FakeDocker(folder / "docker.sock")):
        descriptor = os.open(folder / "docker.sock", os.O_PATH)
        try:
            file = File(write(folder, docker_socket=f"/proc/self/fd/{descriptor}"))
            with Filter(file.read(), file) as served:
                assert served.engine.is_up()
                served.service_actions()
                (folder / "docker.sock").unlink()
                with pytest.raises(ReplacedSocketError):
                    served.service_actions()
            assert cli.main(["serve", f"--settings={file.path}"]) == 1
        finally:
            os.close(descriptor)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["started", "stopped"]
