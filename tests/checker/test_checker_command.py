"""The command on a host of doubles: Docker's socket, the programs of systemd and Compose, Slack."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest
from airflow_checker import cli, files, lights, memory, report
from airflow_checker.facts import Disk
from airflow_checker.gather import everything, host
from airflow_checker.gather.docker import Docker
from airflow_checker.settings import Settings, SettingsError, load

from tests.checker.test_checker_parsers import CONTAINER, HOST

ROOT = Path(__file__).resolve().parents[2]
SERVICES = (
    *("postgres", "redis", "haproxy", "webhook", "docker-socket-proxy"),
    *("airflow-scheduler", "airflow-triggerer", "airflow-worker"),
)
ANSWER = {
    "size": 8_000_000,
    "scheduler_age": 2,
    "triggerer_age": 2,
    "parsed_age": 10,
    "running": 1,
    "queued": 0,
    "oldest_queued": {},
    "overdue": {},
}
REFUSALS = """\
docker_policy_requests_total{operation="ping",answer="2xx"} 40
# TYPE docker_policy_refusals_total counter
docker_policy_refusals_total{field="HostConfig.Privileged"} 3
docker_policy_refusals_total{field="Image"} 12
docker_policy_connections 0
"""
HOUR = 3600


class Engine(BaseHTTPRequestHandler):
    """Docker's API, as far as it is asked."""

    protocol_version = "HTTP/1.1"
    ill: ClassVar[set[str]] = set()
    out_of_memory: ClassVar[set[str]] = set()
    """Services of which Docker says so until their container is started again."""
    events: ClassVar[list[tuple[str, float]]] = []
    """Services that ran out of memory, and when."""
    outcomes: ClassVar[dict[str, Any]] = {}
    info: ClassVar[dict[str, Any]] = {"DockerRootDir": "/"}
    since: ClassVar[list[int]] = []
    """From when on each question for the outcomes of tasks has asked."""

    def log_message(self, *arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/info":
            return self.answer(self.info)
        if path == "/events":
            return self.send("".join(self.asked_events()).encode())
        if path == "/containers/json":
            return self.answer([{"Id": name} for name in [*SERVICES, "gone"]])
        if path in ("/exec/e/json", "/exec/outcomes/json", "/exec/refusals/json"):
            return self.answer({"ExitCode": 0})
        name = path.split("/")[2]
        return self.answer(self.container(name)) if name in SERVICES else self.answer({}, 404)

    def asked_events(self) -> Iterator[str]:
        """Docker's stream of events, which ends because a time is named: one document a line."""
        asked = dict(parse_qsl(self.path.partition("?")[2]))
        labels = ["com.docker.compose.project=airflow", "com.docker.compose.oneoff=False"]
        assert json.loads(asked["filters"]) == {"event": ["oom"], "label": labels}
        for service, at in self.events:
            if float(asked["since"]) <= at <= float(asked["until"]):
                actor = {"Attributes": {"com.docker.compose.service": service, "name": "any"}}
                yield json.dumps({"Action": "oom", "Actor": actor, "timeNano": int(at * 1e9)}) + "\n"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path.endswith("/start"):
            answer = self.outcomes if self.path == "/exec/outcomes/start" else ANSWER
            text = json.dumps(answer).encode() + b"\n"
            if self.path == "/exec/refusals/start":
                text = REFUSALS.encode()
            return self.send(b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text)
        if body["Cmd"] == ["python3", "-m", "docker_policy", "metrics"]:
            return self.answer({"Id": "refusals"}, 201)
        if asked := re.search(r"end_date >= to_timestamp\((\d+)\)", body["Cmd"][-1]):
            self.since.append(int(asked[1]))
        return self.answer({"Id": "outcomes" if asked else "e"}, 201)

    def container(self, name: str) -> dict[str, Any]:
        ill = name in self.ill
        health: dict[str, Any] = {
            "Status": "unhealthy" if ill else "healthy",
            "FailingStreak": 5 if ill else 0,
            "Log": [],
        }
        labels = {"com.docker.compose.service": name, "com.docker.compose.depends_on": ""}
        command = ["airflow", "celery", "worker"] if name == "airflow-worker" else [name]
        return {
            **CONTAINER,
            "Id": name,
            "State": {**CONTAINER["State"], "Health": health, "OOMKilled": name in self.out_of_memory},
            "Config": {"Image": "i:1", "Cmd": command, "Env": [], "Labels": labels},
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "127.0.0.1"}}},
        }

    def answer(self, document: object, status: int = 200) -> None:
        self.send(json.dumps(document).encode(), status)

    def send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Redis(socketserver.StreamRequestHandler):
    """Answers what the checker asks."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            names = (b"default", b"celery.pidbox")
            bound = b"*2\r\n" + b"".join(
                b"$%d\r\n_kombu.binding.%s\r\n" % (len(name) + 15, name) for name in names
            )
            lists = b"*2\r\n$1\r\n0\r\n*1\r\n$7\r\ndefault\r\n"
            answers = {b"AUTH": b"+OK\r\n", b"LLEN": b":0\r\n", b"SCAN": lists}
            self.wfile.write(answers.get(words[0], bound))


class Outside(BaseHTTPRequestHandler):
    """Slack, Connect, the heartbeat's address, and the webhook."""

    calls: ClassVar[list[tuple[str, str]]] = []
    lights: ClassVar[tuple[int, str]] = (200, '{"lights": []}')
    """The webhook's answer to `/lights`."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.calls.append((self.path, body))
        status, text = self.lights if self.path == "/lights" else (200, "")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def outside() -> Iterator[str]:
    Outside.calls = []
    Outside.lights = (200, '{"lights": []}')
    with ThreadingHTTPServer(("127.0.0.1", 0), Outside) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """Docker's socket."""
    Engine.ill, Engine.out_of_memory, Engine.events = set(), set(), []
    Engine.outcomes, Engine.since = {}, []
    path = str(tmp_path / "docker.sock")
    with socketserver.ThreadingUnixStreamServer(path, Engine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from airflow_checker.gather import redis

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redis) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask = redis.queues
        port = server.server_address[1]
        monkeypatch.setattr(redis, "queues", lambda *given: ask(*given, port=port))
        yield
        server.shutdown()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, outside: str) -> None:
    """The webhook is where everything of the outside is."""
    from airflow_checker.gather import webhook

    ask = webhook.ask
    port = int(outside.rpartition(":")[2])
    monkeypatch.setattr(webhook, "ask", lambda *given: ask(*given, port=port))


@pytest.fixture
def settings(tmp_path: Path, outside: str) -> Settings:
    directory = tmp_path / "airflow"
    (directory / "env").mkdir(parents=True)
    (directory / "status").mkdir()
    (directory / ".env").write_text("AIRFLOW_VERSION=2.11.2\n")
    (directory / "docker-compose.yaml").write_text("services: {}\n")
    (directory / "env/onepassword.env").write_text(
        f"OP_CONNECT='{outside}'\nOP_API_TOKEN='opaque'\nOP_VAULT_ID='v'\n"
    )
    (directory / "status/backup.json").write_text(json.dumps({"last_good": {"at": time.time()}}))
    return Settings(
        directory=directory,
        backups=tmp_path,
        state=tmp_path / "state",
        runtime=tmp_path / "run",
        environment="production",
        host="atd-data03",
        slack=f"{outside}/services/secret",
        heartbeat=f"{outside}/alive",
    )


class Programs:
    """systemctl, docker compose and apt-get."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.units = "Id=docker.service\nLoadState=loaded\nActiveState=active\n"
        self.refuses = False
        """Whether systemd starts nothing."""

    def __call__(self, command: Sequence[str], timeout: float) -> str:
        self.commands.append(list(command))
        if command[:2] == ["docker", "compose"]:
            return json.dumps({"services": {name: {"image": "i:1"} for name in SERVICES}})
        if command[:2] == ["systemctl", "show"]:
            return self.units
        if command[:2] == ["systemctl", "start"] and self.refuses:
            raise OSError("refused")
        return ""

    def restarted(self) -> list[str]:
        return [command[-1] for command in self.commands if "start" in command]


@pytest.fixture
def programs(
    monkeypatch: pytest.MonkeyPatch, engine: str, broker: None, asked: None, tmp_path: Path
) -> Programs:
    """A host where only what the test breaks is broken."""
    observe = everything.observe
    monkeypatch.setattr(
        everything,
        "observe",
        lambda settings, memory, run: observe(settings, memory, Docker(engine), run),
    )
    # This machine's own disk, clock and updates are not the test's.
    monkeypatch.setattr(host, "disks", lambda paths: [])
    monkeypatch.setattr(host, "clock_synchronised", lambda: True)
    monkeypatch.setattr(everything, "REBOOT", tmp_path / "none")
    return Programs()


def health(settings: Settings) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(settings.health.read_text())
    return document


def test_platform_that_is_well(settings: Settings, programs: Programs) -> None:
    assert cli.check(settings, programs) == 0
    document = health(settings)
    assert document["findings"] == []
    assert (document["overall"], document["state"], document["schema"]) == ("ok", "running", 1)
    assert [row["name"] for row in document["services"]] == sorted(SERVICES)
    assert {row["health"] for row in document["services"]} == {"healthy"}
    assert document["figures"]["database_bytes"] == 8_000_000
    assert document["figures"]["queues"]["default"] == 0
    assert document["figures"]["refusals"] == {"HostConfig.Privileged": 3, "Image": 12}
    assert document["figures"]["workers"] == [
        {"service": "airflow-worker", "queues": ["default"], "slots": 16}
    ]
    assert (document["environment"], document["host"]) == ("production", "atd-data03")
    assert document["airflow_version"] == "2.11.2"
    assert settings.health.stat().st_mode & 0o777 == 0o644
    assert [path for path, _ in Outside.calls if path == "/alive"] == ["/alive"]
    assert not [path for path, _ in Outside.calls if "secret" in path]


def test_fault_goes_to_the_file_to_slack_and_to_systemd(settings: Settings, programs: Programs) -> None:
    Engine.ill = {"airflow-worker"}
    cli.check(settings, programs)
    # The database says that a task runs, so that the worker may be about to stop.
    kept = json.loads(settings.memory.read_text())
    kept["episodes"]["service-unhealthy airflow-worker"]["since"] -= 700
    settings.memory.write_text(json.dumps(kept))
    assert programs.restarted() == []
    cli.check(settings, programs)
    cli.check(settings, programs)
    document = health(settings)
    [finding] = document["findings"]
    assert (finding["id"], finding["severity"], finding["subject"]) == (
        "service-unhealthy",
        "critical",
        "airflow-worker",
    )
    assert finding["anchor"] == "light-service-unhealthy"
    assert document["overall"] == "critical"
    [message] = [json.loads(body)["text"] for path, body in Outside.calls if path == "/services/secret"]
    assert "airflow-worker failed its health check 5 times in a row" in message
    assert "*production atd-data03*" in message
    assert programs.restarted() == ["airflow-restart@airflow-worker.service"]
    assert not [path for path, _ in Outside.calls if path == "/alive"]


def lit(settings: Settings, programs: Programs) -> list[str]:
    """Look, and return the findings that are there then."""
    cli.check(settings, programs)
    return [" ".join((finding["id"], finding["subject"])) for finding in health(settings)["findings"]]


def forget_an_hour(settings: Settings) -> None:
    """Have all that the checker knows of memory that ran out be an hour older."""
    kept = json.loads(settings.memory.read_text())
    times = kept["notes"]["out of memory"]["times"]
    kept["notes"]["out of memory"]["times"] = {service: at - HOUR for service, at in times.items()}
    settings.memory.write_text(json.dumps(kept))


def test_container_that_ran_out_of_memory_and_was_started_again(
    settings: Settings, programs: Programs
) -> None:
    """Docker's events have it, and the container knows nothing of it any more."""
    assert lit(settings, programs) == []
    Engine.events = [("redis", time.time())]
    assert lit(settings, programs) == ["service-out-of-memory redis"]
    # Docker has forgotten its events.
    Engine.events = []
    assert lit(settings, programs) == ["service-out-of-memory redis"]
    forget_an_hour(settings)
    assert lit(settings, programs) == []


def test_container_that_goes_on_is_told_once_for_each_time(settings: Settings, programs: Programs) -> None:
    """A process of it was ended: Docker says so for as long as the container runs."""
    Engine.out_of_memory = {"airflow-worker"}
    assert lit(settings, programs) == ["service-out-of-memory airflow-worker"]
    forget_an_hour(settings)
    assert lit(settings, programs) == []
    Engine.events = [("airflow-worker", time.time())]
    assert lit(settings, programs) == ["service-out-of-memory airflow-worker"]


def told() -> list[str]:
    return [json.loads(body)["text"] for path, body in Outside.calls if path == "/services/secret"]


def look_much_later(settings: Settings, programs: Programs, memory: Path, failure: str = "") -> None:
    """Look once more, as if what is known stood for some minutes."""
    document = json.loads(memory.read_text())
    for episode in document["episodes"].values():
        episode["since"] -= 700
        episode["last"] -= 700
    memory.write_text(json.dumps(document))
    if failure:
        with pytest.raises(OSError, match=failure):
            cli.check(settings, programs)
    else:
        cli.check(settings, programs)


def test_disk_that_takes_no_file_is_told_once(
    settings: Settings, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the checker itself keeps is on that disk, too."""
    cli.check(settings, programs)
    full = files.replace_json

    def replace(path: Path, document: object, mode: int = 0o600) -> None:
        if path != settings.spare_memory:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        full(path, document, mode)

    monkeypatch.setattr(cli, "replace_json", replace)
    monkeypatch.setattr(memory, "replace_json", replace)
    monkeypatch.setattr(host, "disks", lambda paths: [Disk("/", 1000, 500, 100, 0)])
    with pytest.raises(OSError, match="No space"):
        cli.check(settings, programs)
    for _ in range(3):
        look_much_later(settings, programs, settings.spare_memory, "No space")
    assert len(told()) == 1
    assert "0 of 100 inodes free" in told()[0]
    monkeypatch.undo()
    assert len(memory.load(settings.memory, settings.spare_memory).episodes) == 1


def test_restart_that_systemd_refuses_is_told(settings: Settings, programs: Programs) -> None:
    """And counts as one, so that it is not asked for again and again."""
    Engine.ill = {"webhook"}
    programs.refuses = True
    with pytest.raises(OSError, match="refused"):
        cli.check(settings, programs)
    for _ in range(2):
        look_much_later(settings, programs, settings.memory)
    assert len(told()) == 1
    assert programs.restarted() == ["airflow-restart@webhook.service"]


def test_heartbeat_is_not_called_while_the_platform_is_stopped(
    settings: Settings, programs: Programs
) -> None:
    """All is well with a platform that stop.yml stopped, but no task would run."""
    programs.units = "Id=airflow.service\nLoadState=loaded\nActiveState=inactive\nUnitFileState=disabled\n"
    cli.check(settings, programs)
    document = health(settings)
    assert (document["overall"], document["state"]) == ("ok", "stopped")
    assert report.screen(document, time.time()).startswith("stopped: the platform is stopped on purpose")
    assert report.needs_a_look(document, time.time())
    assert "/alive" not in [path for path, _ in Outside.calls]


@pytest.mark.parametrize(
    ("answer", "lit", "overall"),
    [
        ((200, '{"lights": [{"id": "commit-refused", "what": "It."}]}'), "commit-refused", "warning"),
        ((404, ""), "", "ok"),
        ((503, ""), "check-failed", "warning"),
        ((200, "<html>"), "check-failed", "warning"),
    ],
)
def test_webhook_is_asked_what_only_it_knows(
    settings: Settings, programs: Programs, answer: tuple[int, str], lit: str, overall: str
) -> None:
    """404 is the answer of an earlier release, which is not ill."""
    Outside.lights = answer
    cli.check(settings, programs)
    document = health(settings)
    assert [finding["id"] for finding in document["findings"]] == [lit] * bool(lit)
    assert document["overall"] == overall


def test_worker_hosts_are_heard_of(settings: Settings, programs: Programs) -> None:
    """And shown; a document with an unexpected value says nothing, not even of the webhook's own lights."""
    Outside.lights = (200, json.dumps({"lights": [], "workers": [HOST]}))
    assert lit(settings, programs) == []
    assert health(settings)["figures"]["worker_hosts"] == [HOST]
    Outside.lights = (200, json.dumps({"lights": [], "workers": [{**HOST, "state": "silent"}]}))
    (settings.directory / ".env").write_text("AIRFLOW_VERSION=2.11.2\nWORKER_RELEASE=2-5-3-0\n")
    assert lit(settings, programs) == ["worker-host-differs atd-worker01"]
    Outside.lights = (200, json.dumps({"lights": [], "workers": [{**HOST, "slots": -1}]}))
    assert lit(settings, programs) == ["check-failed webhook"]
    assert health(settings)["figures"]["worker_hosts"] is None


def test_webhook_that_is_ill_is_not_asked(settings: Settings, programs: Programs) -> None:
    """That it is ill is told; and it may take long to answer."""
    Engine.ill = {"webhook"}
    cli.check(settings, programs)
    assert [finding["id"] for finding in health(settings)["findings"]] == ["service-unhealthy"]
    assert "/lights" not in [path for path, _ in Outside.calls]


def test_refused_commit_is_told_by_the_webhook_alone(settings: Settings, programs: Programs) -> None:
    Outside.lights = (200, '{"lights": [{"id": "commit-refused", "what": "It."}]}')
    cli.check(settings, programs)
    kept = json.loads(settings.memory.read_text())
    kept["episodes"]["commit-refused"]["since"] -= 7 * 86_400
    settings.memory.write_text(json.dumps(kept))
    cli.check(settings, programs)
    assert not [path for path, _ in Outside.calls if "secret" in path]


def test_inventory_that_asks_for_another_version_is_drift(settings: Settings, programs: Programs) -> None:
    """The file is the role's (roles/airflow_checker/tasks/pin.yml)."""
    (settings.directory / "status/inventory.json").write_text('{"airflow_version": "2.6.1"}\n')
    cli.check(settings, programs)
    [finding] = health(settings)["findings"]
    assert finding["what"] == "The inventory asks for Airflow 2.6.1, and 2.11.2 runs."


def test_docker_that_is_away_is_one_fault(settings: Settings, programs: Programs, engine: str) -> None:
    cli.check(settings, programs)
    Path(engine).unlink()
    cli.check(settings, programs)
    assert [finding["id"] for finding in health(settings)["findings"]] == ["docker-down"]


def test_edited_file_is_drift_until_it_is_recorded(settings: Settings, programs: Programs) -> None:
    assert everything.record(settings, {})
    assert not everything.record(settings, {})
    (settings.directory / ".env").write_text("AIRFLOW_VERSION=2.11.2\nEDITED=1\n")
    cli.check(settings, programs)
    assert [finding["id"] for finding in health(settings)["findings"]] == ["files-differ"]
    everything.record(settings, {})
    cli.check(settings, programs)
    assert health(settings)["findings"] == []


@pytest.mark.parametrize(
    ("state", "accepted"), [("succeeded", True), ("reverted", True), ("prepared", False)]
)
def test_files_of_an_operation_that_is_over_are_no_drift(
    settings: Settings, programs: Programs, state: str, accepted: bool
) -> None:
    everything.record(settings, {"id": "one", "state": "succeeded"})
    (settings.directory / ".env").write_text("AIRFLOW_VERSION=2.11.2\nOTHER=1\n")
    (settings.directory / "releases").mkdir()
    operation = {"id": "two", "state": state, "touched": time.time()}
    (settings.directory / "releases/operation.json").write_text(json.dumps(operation))
    cli.check(settings, programs)
    assert (health(settings)["findings"] == []) == accepted


@pytest.mark.parametrize(
    ("info", "root", "lit"),
    [
        ({"DockerRootDir": "/data/docker", "LiveRestoreEnabled": True}, "/data/docker", []),
        (
            {"DockerRootDir": "/data/docker", "LiveRestoreEnabled": False},
            "/data/docker",
            ["live-restore-off"],
        ),
        ({}, "/var/lib/docker", []),
    ],
)
def test_docker_says_where_images_are_and_whether_containers_outlive_it(
    settings: Settings,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    info: dict[str, Any],
    root: str,
    lit: list[str],
) -> None:
    """Images are in containerd's place, too, which may be a disk of its own."""
    asked: list[Path] = []
    monkeypatch.setattr(Engine, "info", info)

    def disks(paths: Iterable[Path]) -> list[Disk]:
        asked.extend(paths)
        return []

    monkeypatch.setattr(host, "disks", disks)
    cli.check(settings, programs)
    assert [str(path) for path in asked[:1]] == [root]
    assert Path("/var/lib/containerd") in asked
    assert [finding["id"] for finding in health(settings)["findings"]] == lit


def test_compose_is_asked_when_its_files_change(settings: Settings, programs: Programs) -> None:
    for _ in range(3):
        cli.check(settings, programs)
    asked = [command for command in programs.commands if command[0] == "docker"]
    assert len(asked) == 1
    (settings.directory / "docker-compose.yaml").write_text("services: {a: {}}\n")
    cli.check(settings, programs)
    assert len([command for command in programs.commands if command[0] == "docker"]) == 2


def test_note_of_an_earlier_version_is_not_read(settings: Settings, programs: Programs) -> None:
    """It has the services' images alone."""
    cli.check(settings, programs)
    memory = json.loads(settings.memory.read_text())
    note = memory["notes"]["project"]
    note.update(stamp=note["stamp"][1:], services=dict.fromkeys(SERVICES, "i:1"))
    settings.memory.write_text(json.dumps(memory))
    cli.check(settings, programs)
    assert len([command for command in programs.commands if command[0] == "docker"]) == 2
    assert health(settings)["findings"] == []


def outcomes(document: dict[str, Any]) -> list[tuple[int, int]]:
    return [(hour["succeeded"], hour["failed"]) for hour in document["figures"]["hours"]]


class Clock:
    """Stands for the module `time`, with an hour of the test's own."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """At half past an hour."""
    clock = Clock(time.time() // HOUR * HOUR + 1800)
    monkeypatch.setattr(everything, "time", clock)
    return clock


def test_outcomes_are_counted_by_hour_and_only_anew_where_they_change(
    settings: Settings, programs: Programs, clock: Clock
) -> None:
    """The first question is for the whole day, and the next, after five minutes, for the last hour alone."""
    this = int(clock.now - 1800)
    rest = (70.0, 9.5)
    Engine.outcomes = {
        str(this - 23 * HOUR): [7, 0, *rest],
        str(this): [12, 1, *rest],
        str(this - 24 * HOUR): [99, 99, *rest],
    }
    cli.check(settings, programs)
    cli.check(settings, programs)
    assert Engine.since == [this - 23 * HOUR]
    assert outcomes(health(settings)) == [(7, 0), *[(0, 0)] * 22, (12, 1)]
    clock.now += 301
    Engine.outcomes = {str(this): [15, 2, *rest]}
    cli.check(settings, programs)
    assert Engine.since[1:] == [this]
    assert outcomes(health(settings)) == [(7, 0), *[(0, 0)] * 22, (15, 2)]
    clock.now += 1800
    Engine.outcomes = {str(this): [16, 2, *rest], str(this + HOUR): [1, 0, *rest]}
    cli.check(settings, programs)
    assert Engine.since[2:] == [this]
    assert outcomes(health(settings)) == [*[(0, 0)] * 22, (16, 2), (1, 0)]


def test_figures_have_durations_and_ages(settings: Settings, programs: Programs, clock: Clock) -> None:
    this = int(clock.now - 1800)
    Engine.outcomes = {str(this): [12, 1, 70.0, 9.5]}
    cli.check(settings, programs)
    figures = health(settings)["figures"]
    assert {name: figures["hours"][-1][name] for name in ("seconds", "longest")} == {
        "seconds": 70.0,
        "longest": 9.5,
    }
    assert {name: figures["hours"][0][name] for name in ("succeeded", "seconds")} == {
        "succeeded": 0,
        "seconds": 0.0,
    }
    assert (figures["queue_ages"], figures["overdue"]) == ({}, {})


def test_outcomes_that_an_earlier_version_kept_are_asked_for_anew(
    settings: Settings, programs: Programs, clock: Clock
) -> None:
    """It kept no durations."""
    this = int(clock.now - 1800)
    note = {"at": clock.now - 60, "hours": {str(this): [7, 0]}}
    settings.memory.parent.mkdir(exist_ok=True)
    settings.memory.write_text(json.dumps({"notes": {"outcomes": note}}))
    Engine.outcomes = {str(this): [8, 0, 70.0, 9.5]}
    cli.check(settings, programs)
    assert Engine.since == [this - 23 * HOUR]
    assert outcomes(health(settings))[-1] == (8, 0)


def test_outcomes_of_a_clock_that_went_back_are_asked_for_anew(
    settings: Settings, programs: Programs, clock: Clock
) -> None:
    cli.check(settings, programs)
    clock.now -= 5 * HOUR
    cli.check(settings, programs)
    assert Engine.since[1] == Engine.since[0] - 5 * HOUR


def test_outcomes_that_cannot_be_counted_are_said_and_tried_again(
    settings: Settings, programs: Programs
) -> None:
    Engine.outcomes = {"this is": "no answer"}
    cli.check(settings, programs)
    document = health(settings)
    assert [finding["subject"] for finding in document["findings"]] == ["task outcomes"]
    assert document["figures"]["hours"] is None
    Engine.outcomes = {}
    cli.check(settings, programs)
    document = health(settings)
    assert (document["findings"], len(document["figures"]["hours"])) == ([], 24)


def test_no_secret_is_in_any_file(settings: Settings, programs: Programs) -> None:
    cli.check(settings, programs)
    files = [settings.health, settings.memory]
    assert [
        file for file in files for secret in ("opaque", "services/secret") if secret in file.read_text()
    ] == []


def command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, with settings that name a directory of the test's own."""
    file = tmp_path / "settings.json"
    values: dict[str, Any] = {"directory": str(tmp_path), "backups": "/", "environment": "", "host": ""}
    file.write_text(json.dumps({**values, "status_page": "", "backup_remote": False, "never_restart": []}))
    return subprocess.run(
        [sys.executable, "-m", "airflow_checker", "--settings", str(file), *arguments],
        env={"PYTHONPATH": str(ROOT / "checker/src")},
        capture_output=True,
        text=True,
        check=False,
    )


def written(tmp_path: Path, overall: str, age: float = 0, **more: Any) -> None:
    (tmp_path / "status").mkdir(exist_ok=True)
    document = {
        "overall": overall,
        "generated": report.iso(time.time() - age),
        "state": "running",
        "doing": "",
        "findings": [],
        "services": [{"name": "redis", "state": "exited", "health": "", "since": None, "restarts": 0}],
        "figures": {
            "refusals": {"Image": 1, "HostConfig.Binds": 2},
            "workers": [{"service": "airflow-worker", "queues": ["default", "slow"], "slots": 16}],
            "worker_hosts": [
                {
                    **{"name": "atd-worker01", "state": "live", "release": "2-11-2-d4", "commit": "ab" * 20},
                    **{"queues": ["default", "gpu"], "slots": 8, "heard_seconds_ago": 3.2},
                },
                {
                    **{"name": "atd-worker02", "state": "silent", "release": "", "commit": "", "queues": []},
                    **{"slots": 0, "heard_seconds_ago": None},
                },
            ],
            "queues": {"default": 7},
            "dag_commit": "0123456789abcdef",
            "disks": [{"path": "/", "size": 100, "free": 40, "days_until_full": 30.0}],
            "hours": [
                {"from": None, "succeeded": 2, "failed": 1},
                {"from": None, "succeeded": 3, "failed": 0},
            ],
        },
        **more,
    }
    (tmp_path / "status/health.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("overall", "age", "code", "first"),
    [
        ("ok", 0, 0, "ok: the platform is running"),
        ("ok", 100, 0, "ok"),
        ("ok", 200, 2, "unknown: the checker is silent"),
        ("warning", 0, 2, "warning"),
        ("critical", 0, 2, "critical"),
    ],
)
def test_status_is_one_screen_and_an_exit_code(
    tmp_path: Path, overall: str, age: float, code: int, first: str
) -> None:
    light = lights.Finding("disk-low", "/", "The disk is low.").document("2026-01-01T00:00:00Z")
    written(tmp_path, overall, age, findings=[light])
    done = command(tmp_path, "status")
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(first)
    line = "docs/when-something-is-wrong.md#light-disk-low"
    for part in ("The disk is low.", "Free some space", line, "40% free"):
        assert part in done.stdout
    for part in (
        *("in 2 hours 5 succeeded, 1 failed", "airflow-worker: 16 slots, consumes default, slow"),
        *("queue default: 7 waiting", "DAG commit: 0123456789abcdef"),
        "ago, release 2-11-2-d4, commit abababababab, 8 slots, consumes default, gpu",
        "worker host atd-worker02: silent, not heard yet\n",
        "DAGs were refused of Docker: HostConfig.Binds 2, Image 1; see",
    ):
        assert part in done.stdout
    assert json.loads(command(tmp_path, "status", "--json").stdout)["overall"] == overall


@pytest.mark.parametrize(("state", "code"), [("switching", 1), ("prepared", 0), ("succeeded", 0), (None, 0)])
def test_restart_waits_for_no_switch_but_does_not_happen_in_one(
    tmp_path: Path, state: str | None, code: int
) -> None:
    """Between the check and the unit that restarts, an operation may have begun."""
    if state:
        (tmp_path / "releases").mkdir()
        (tmp_path / "releases/operation.json").write_text(json.dumps({"state": state}))
    assert command(tmp_path, "may-restart").returncode == code


def test_status_without_a_check_needs_a_look(tmp_path: Path) -> None:
    done = command(tmp_path, "status")
    assert done.returncode == 2
    assert "written nothing yet" in done.stdout


@pytest.mark.parametrize("text", ["{", "[]", '{"directory": "/"}'])
def test_settings_that_cannot_be_understood(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(SettingsError, match=r"run site\.yml"):
        load(tmp_path / "settings.json", {})


def test_shares_of_free_disk_are_those_of_the_inventory(tmp_path: Path) -> None:
    """An earlier version's file has none."""
    values: dict[str, Any] = dict.fromkeys(("environment", "host", "status_page"), "")
    values |= {"directory": "/", "backups": "/", "backup_remote": False, "never_restart": []}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(values))
    assert (load(file).disk_low_percent, load(file).disk_full_percent) == (10, 5)
    file.write_text(json.dumps({**values, "disk_low_percent": 30, "disk_full_percent": "20"}))
    assert (load(file).disk_low_percent, load(file).disk_full_percent) == (30, 20)


def test_shares_of_free_disk_reach_the_judge(
    settings: Settings, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "disks", lambda paths: [Disk("/", 1000, 290, 100, 90)])
    for full, light in ((30, "disk-full"), (20, "disk-low")):
        changed = dataclasses.replace(settings, disk_low_percent=30, disk_full_percent=full)
        assert lit(changed, programs) == [f"{light} /"]
    assert lit(settings, programs) == []


def test_queues_of_untold_worker_hosts_are_those_of_the_inventory(tmp_path: Path) -> None:
    """An earlier version's file has none, and nor has one of a platform without such hosts."""
    values: dict[str, Any] = dict.fromkeys(("environment", "host", "status_page"), "")
    values |= {"directory": "/", "backups": "/", "backup_remote": False, "never_restart": []}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(values))
    assert load(file).worker_queues == {}
    file.write_text(json.dumps({**values, "worker_queues": {"atd-worker01": ["default", "large"]}}))
    assert load(file).worker_queues == {"atd-worker01": {"default", "large"}}
    file.write_text(json.dumps({**values, "worker_queues": ["atd-worker01"]}))
    with pytest.raises(SettingsError, match=r"run site\.yml"):
        load(file)


def test_queues_of_untold_worker_hosts_reach_the_judge(
    settings: Settings, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The webhook answers, and names no worker host."""
    monkeypatch.setattr(everything, "_queues", lambda containers, directory: {"large": 1})
    assert lit(settings, programs) == ["queue-without-worker large"]
    told = dataclasses.replace(settings, worker_queues={"atd-worker01": frozenset({"large"})})
    assert lit(told, programs) == []


def test_secrets_come_from_the_environment(tmp_path: Path) -> None:
    known = load(tmp_path / "none", {"SLACK_WEBHOOK_URL": " https://a ", "HEARTBEAT_URL": ""})
    assert (known.slack, known.heartbeat) == ("https://a", "")


def test_documented_lights_are_these() -> None:
    """Edit lights.py, then paste what `airflow-checker lights` prints."""
    assert lights.table() in (ROOT / "docs/when-something-is-wrong.md").read_text(encoding="utf-8")


def test_command_explains_itself(tmp_path: Path) -> None:
    text = command(tmp_path, "--help").stdout
    for verb in ("check", "status", "record", "lights"):
        assert verb in text


def test_run_is_cheap(settings: Settings, programs: Programs) -> None:
    """Less than a third of a second of one processor, which once in 30 s is 1 %."""
    cli.check(settings, programs)
    before = time.process_time()
    cli.check(settings, programs)
    # The doubles answer in this very process, so that this is more than the checker's own share.
    assert time.process_time() - before < 0.3


CHECK = """
import functools, sys
from pathlib import Path
from airflow_checker import cli
from airflow_checker.gather import docker, everything
from airflow_checker.settings import Settings

engine, slack, *paths = sys.argv[1:]
everything.Docker = functools.partial(docker.Docker, engine)
settings = Settings(*map(Path, paths), slack=slack)
answers = {"docker": '{"services": {"missing": {"image": "i:1"}, "haproxy": {"image": "i:1"}}}'}
for look in range(3):
    cli.check(settings, lambda command, timeout: answers.get(command[0], ""))
print(Path("/proc/self/status").read_text())
"""


@pytest.mark.usefixtures("programs")
def test_check_needs_little_memory(settings: Settings, engine: str) -> None:
    """30 MiB, for a look with findings, as a process of its own; Compose's and apt's are not counted."""
    certificate = settings.directory / "haproxy/certificate.pem"
    certificate.parent.mkdir()
    certificate.write_text("damaged")
    paths = (settings.directory, settings.backups, settings.state, settings.runtime)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, engine, settings.slack, *map(str, paths)],
        env={"PYTHONPATH": str(ROOT / "checker/src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"certificate-ended", "service-down"} <= {
        finding["id"] for finding in health(settings)["findings"]
    }
    # What a process has at most is counted anew by exec, unlike ru_maxrss.
    [peak] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("VmHWM:")]
    assert int(peak) < 30 * 1024
