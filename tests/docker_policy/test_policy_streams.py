"""Answers that take as long as a task: attach, logs, pull and wait, by hand and by the Docker SDK."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound
from docker_policy.server import Status
from docker_policy.settings import OWNER_LABEL

from docker_policy import cli
from tests.docker_policy.attacks import EVIL
from tests.docker_policy.conftest import LIMITS, OWNED, Wired, read_answer
from tests.docker_policy.fake_docker import OUTPUT, serve

ATTACH = b"POST /v1.41/containers/own/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
UPGRADE = ATTACH + b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


@pytest.fixture(autouse=True)
def closed_connections() -> Iterator[None]:
    """Close what the Docker SDK leaves open: the connections of its streams."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def read_head(stream: io.BufferedIOBase) -> list[str]:
    lines = iter(stream.readline, b"\r\n")
    return [line.decode().strip() for line in lines]


@pytest.mark.parametrize("tty", [True, False])
def test_attach_becomes_a_stream_after_101(wired: Wired, tty: bool) -> None:
    own = wired.docker.put("own", OWNED, tty=tty)
    with wired.connect() as client, client.makefile("rb") as stream:
        client.sendall(UPGRADE)
        # The head is there before the container has said anything.
        head = read_head(stream)
        assert head[0] == "HTTP/1.1 101 UPGRADED"
        assert {"Connection: Upgrade", "Upgrade: tcp"} <= set(head)
        own.started.set()
        assert stream.read().endswith(OUTPUT)


def test_attach_without_an_upgrade_is_a_raw_stream(wired: Wired) -> None:
    own = wired.docker.put("own", OWNED)
    with wired.connect() as client, client.makefile("rb") as stream:
        client.sendall(ATTACH + b"\r\n")
        head = read_head(stream)
        assert head[0] == "HTTP/1.1 200 OK"
        assert not any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in head)
        own.started.set()
        assert stream.read().endswith(OUTPUT)


def test_nothing_that_a_client_sends_into_a_stream_arrives(wired: Wired) -> None:
    own = wired.docker.put("own", OWNED)
    with wired.connect() as client, client.makefile("rb") as stream:
        client.sendall(UPGRADE)
        read_head(stream)
        client.sendall(EVIL)
        own.started.set()
        assert stream.read().endswith(OUTPUT)
    assert all(EVIL not in received for received in wired.docker.received)


def test_failed_attach_becomes_no_stream(wired: Wired) -> None:
    wired.docker.put("own", OWNED)
    wired.docker.refuse_attach = True
    with wired.connect() as client:
        client.sendall(UPGRADE)
        answer = read_answer(client)
        assert (answer.status, answer.headers["connection"]) == (409, "close")
        with contextlib.suppress(BrokenPipeError):
            client.sendall(EVIL)
    assert all(EVIL not in received for received in wired.docker.received)


def test_stream_ends_when_its_client_is_gone(wired: Wired) -> None:
    """The task was killed: neither Docker nor the filter is left with a connection that nobody reads."""
    wired.docker.put("own", OWNED)
    with wired.connect() as client, client.makefile("rb") as stream:
        client.sendall(UPGRADE)
        read_head(stream)
    assert wired.docker.streams_ended.acquire(timeout=20)


def test_client_may_end_its_own_side(wired: Wired) -> None:
    """As a program does that has nothing more to send; it still reads."""
    own = wired.docker.put("own", OWNED)
    with wired.connect() as client, client.makefile("rb") as stream:
        client.sendall(UPGRADE)
        client.shutdown(1)
        read_head(stream)
        own.started.set()
        assert stream.read().endswith(OUTPUT)


@pytest.fixture
def sdk(wired: Wired) -> Iterator[docker.APIClient]:
    """The Docker SDK, as DockerOperator uses it."""
    client = docker.APIClient(base_url=f"unix:/{wired.path}", version="auto", timeout=20)
    yield client
    client.close()


def create(sdk: docker.APIClient, **options: Any) -> str:
    """Create a container as DockerOperator does."""
    config = sdk.create_host_config(
        auto_remove=False, mounts=[], cpu_shares=1024, log_config=docker.types.LogConfig(config={}), **options
    )
    made = sdk.create_container(
        "atddocker/etl:production", "python etl.py", host_config=config, environment={"A": "1"}
    )
    return str(made["Id"])


def test_sdk_runs_a_container_to_its_end(wired: Wired, sdk: docker.APIClient) -> None:
    """In the order of DockerOperator: attach, start, read, wait, remove."""
    assert sdk.ping()
    container = create(sdk)
    output = sdk.attach(container=container, stdout=True, stderr=True, stream=True)
    sdk.start(container)
    assert b"".join(output) == OUTPUT
    assert sdk.wait(container) == {"StatusCode": 0}
    sdk.remove_container(container, force=True)
    assert wired.docker.calls[-1] == f"DELETE /v1.45/containers/{container}?v=1&force=1"
    [document] = wired.docker.created
    assert document["Labels"][OWNER_LABEL] == "true"
    assert document["Cmd"] == ["python", "etl.py"]


def test_sdk_follows_a_log_line_by_line(wired: Wired, sdk: docker.APIClient) -> None:
    own = wired.docker.put("own", OWNED)
    lines = sdk.logs(own.identity, stream=True)
    assert next(lines) == b"one\n"
    wired.docker.log_may_end.set()
    assert list(lines) == [b"two\n"]


def test_sdk_reads_a_pull_as_it_comes(wired: Wired, sdk: docker.APIClient) -> None:
    """It needs the answer to be chunked."""
    statuses = [each["status"] for each in sdk.pull("atddocker/etl:production", stream=True, decode=True)]
    assert statuses == ["Pulling", "Done"]
    assert wired.docker.calls[-1].endswith("fromImage=docker.io%2Fatddocker%2Fetl&tag=production")


def test_sdk_logs_in_lists_and_copies(wired: Wired, sdk: docker.APIClient) -> None:
    own = wired.docker.put("own", OWNED)
    login = sdk.login("city", "secret", registry="https://index.docker.io/v1/:80", reauth=True)
    assert login["Status"] == "Login Succeeded"
    assert list(sdk.pull("atddocker/etl", stream=True, decode=True))
    assert sdk.images(name="atddocker/etl:production") == []
    assert [each["Id"] for each in sdk.containers(all=True, filters={"name": "own"})] == [own.identity]
    assert sdk.inspect_container(own.identity)["Name"] == "own"
    data, stat = sdk.get_archive(own.identity, "/tmp/x")
    assert (b"".join(data), stat["size"]) == (b"tar", 3)
    sdk.stop(own.identity, timeout=1)
    sdk.kill(own.identity, signal="SIGINT")
    sdk.resize(own.identity, 24, 80)
    sdk.remove_container(own.identity)


def test_sdk_mounts_a_volume_in_either_way(wired: Wired, sdk: docker.APIClient) -> None:
    config = sdk.create_host_config(binds={"knack": {"bind": "/data", "mode": "rw"}})
    sdk.create_container("atddocker/etl", volumes=["/data"], host_config=config)
    mount = docker.types.Mount("/data", "knack", type="volume")
    sdk.create_container("atddocker/etl", host_config=sdk.create_host_config(mounts=[mount]))
    one, other = (document["HostConfig"]["Mounts"] for document in wired.docker.created)
    assert one == other


def test_sdk_shows_a_refusal_in_the_tasks_log(sdk: docker.APIClient) -> None:
    path = "/tmp/airflowtmpx1y2z3"
    config = sdk.create_host_config(mounts=[docker.types.Mount("/tmp/airflow", path, type="bind")])
    with pytest.raises(APIError, match=path):
        sdk.create_container("atddocker/etl", host_config=config)
    with pytest.raises(APIError, match=r"HostConfig\.Privileged: .*no setting of the inventory"):
        create(sdk, privileged=True)
    with pytest.raises(NotFound):
        sdk.inspect_container("airflow-postgres-1")


def test_many_containers_at_once(wired: Wired) -> None:
    """Each gets its own answer."""
    results: list[bytes] = []

    def run() -> None:
        client = docker.APIClient(base_url=f"unix:/{wired.path}", version="1.41", timeout=60)
        container = create(client)
        output = client.attach(container=container, stdout=True, stderr=True, stream=True)
        client.start(container)
        results.append(b"".join(output))
        client.close()

    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [OUTPUT] * 12


def test_health_and_metrics_have_a_socket_of_their_own(
    wired: Wired, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = wired.path.with_name("status.sock")
    document = {name: list(value) if isinstance(value, tuple) else value for name, value in LIMITS.items()}
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({**document, "status_socket": str(path)}))

    def command(name: str) -> tuple[int, str]:
        return cli.main([name, f"--settings={file}"]), capsys.readouterr().out

    assert command("check") == (0, "")
    status, text = command("health")
    assert (status, text.partition(":")[0]) == (1, "the filter does not answer")
    with serve(Status(path, wired.filter)):
        assert command("health") == (0, "ok\n")
        assert "docker_policy_connections 0" in command("metrics")[1].splitlines()
        wired.path.with_name("docker.sock").unlink()
        assert command("health") == (1, "Docker does not answer\n")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"images": 1}', '{"cgroup_parent": 1}'])
def test_unusable_settings_are_said(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.json").write_text(text)
    assert cli.main(["check", f"--settings={tmp_path}/policy.json"]) == 2
    assert capsys.readouterr().err.startswith("docker-policy: ")
