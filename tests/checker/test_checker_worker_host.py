"""The checker on a worker host: it has no light of what is not there, and restarts a worker that is stuck."""

from __future__ import annotations

import dataclasses
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow_checker import cli, judge, lights, mend, report
from airflow_checker.facts import Container, Facts, Service, Unit
from airflow_checker.gather import everything, host, main_host
from airflow_checker.gather.docker import Docker
from airflow_checker.gather.redis import RedisError
from airflow_checker.judge import DAY, HOUR, Trends
from airflow_checker.lights import LIGHTS, Finding
from airflow_checker.memory import Memory
from airflow_checker.settings import Settings

from tests.checker.conftest import NOW, container, well
from tests.checker.test_checker_command import Engine, Outside, engine, outside, told
from tests.checker.test_checker_judge import FAULTS as MAIN_FAULTS

__all__ = ["engine", "outside"]

SERVICES = ("tunnel", "airflow-worker", "docker-socket-proxy", "log-server", "log-copy", "dag-follower")
NEEDS = {"airflow-worker": ("docker-socket-proxy", "tunnel"), "dag-follower": ("tunnel",)}
UNIT = Unit("airflow-worker.service", sub="exited")
TIMER = Unit("airflow-checker.timer", sub="running")
SILENT = {"main host": "the answer is cut short"}


def containers(**changes: dict[str, Any]) -> dict[str, Container]:
    """Those of a worker host; what is other for one, by its name with underscores."""
    return {
        name: container(
            name, **{"depends_on": NEEDS.get(name, ()), **changes.get(name.replace("-", "_"), {})}
        )
        for name in SERVICES
    }


def of_worker(**changes: Any) -> Facts:
    """What is observed on a worker host where nothing is wrong."""
    facts = well(
        services={name: Service("", container(name).role) for name in SERVICES},
        containers=containers(),
        units=[Unit("docker.service"), UNIT, TIMER],
        database=None,
        queues=None,
        backup={},
        certificate_ends=None,
        worker_certificate_ends=NOW + 90 * DAY,
        drained=0.0,
        recorded_version="",
    )
    return dataclasses.replace(facts, **changes)


def found(facts: Facts, trends: Trends | None = None) -> dict[str, Finding]:
    return {finding.key: finding for finding in judge.judge(facts, trends or Trends())}


FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "the main host is away": ({"drained": None, "gaps": SILENT}, {"main-host-silent"}),
    "the certificate is good": ({"worker_certificate_ends": NOW + 22 * DAY}, set()),
    "the certificate ends soon": ({"worker_certificate_ends": NOW + 20 * DAY}, {"worker-certificate-ends"}),
    "the certificate ended": ({"worker_certificate_ends": NOW - 1}, {"worker-certificate-ends"}),
    "the certificate cannot be read": (
        {"worker_certificate_ends": None, "gaps": {"certificate for worker hosts": "Permission denied"}},
        {"check-failed certificate for worker hosts"},
    ),
    "the tunnel is away": (
        {"drained": None, "containers": containers(tunnel={"state": "exited"})},
        {"service-down tunnel"},
    ),
    "the follower is ill": (
        {"containers": containers(dag_follower={"health": "unhealthy", "failing": 5})},
        {"service-unhealthy dag-follower"},
    ),
    "nothing would start it at the next boot": (
        {"units": [dataclasses.replace(UNIT, enabled="disabled")]},
        {"boot-off airflow-worker.service"},
    ),
    "a unit failed": (
        {"units": [Unit("airflow-firewall.service", active="failed", result="exit-code")]},
        {"unit-failed airflow-firewall.service"},
    ),
    "the checker's own timer is masked": (
        {"units": [dataclasses.replace(TIMER, load="masked", active="inactive")]},
        {"timer-off airflow-checker.timer"},
    ),
    "the tasks could not be counted": ({"gaps": {"tasks": "exit code 1"}}, {"check-failed tasks"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_said_and_nothing_else(fault: str) -> None:
    changes, expected = FAULTS[fault]
    assert set(found(of_worker(**changes))) == expected


@pytest.mark.parametrize("fault", MAIN_FAULTS)
@pytest.mark.parametrize("known", [True, False], ids=["", "while it is unknown what should run"])
def test_fault_of_the_main_host_is_none_here(fault: str, known: bool) -> None:
    """Not even while the Compose project cannot be read: its containers say what is here."""
    there, expected = MAIN_FAULTS[fault]
    changes = {name: value for name, value in there.items() if name not in ("services", "containers")}
    if not known:
        changes["services"] = None
    lit = {key for key in found(of_worker(**changes)) if LIGHTS[key.split()[0]].needs}
    assert lit == set(), expected


@pytest.mark.parametrize("light", [name for name, light in LIGHTS.items() if light.where == "every"])
def test_light_of_every_host_is_lit_here_by_the_same_fault(light: str) -> None:
    """So that nothing which is said of a host gets lost on this one."""
    faults = [
        there
        for there, expected in MAIN_FAULTS.values()
        if light in {key.split()[0] for key in expected}
        and not there.get("containers", there.get("services"))
    ]
    others = {
        # Each has a fault in this file, or is one of a service or a trend.
        *("service-down", "service-unhealthy", "service-restarts", "service-out-of-memory", "image-differs"),
        *("unit-restarted", "host-restarted", "boot-off", "worker-certificate-ends"),
    }
    assert faults or light in others
    for changes in faults if light not in others else ():
        if "database" in changes and light == "clock-wrong":
            continue  # by what the database knows
        assert light in {key.split()[0] for key in found(of_worker(**changes))}


ILL = containers(airflow_worker={"health": "unhealthy", "failing": 2}, dag_follower={"health": "unhealthy"})


def test_worker_is_ill_because_the_main_host_is_away() -> None:
    """One message, and not before an operation may be over."""
    findings = found(of_worker(containers=ILL, drained=None, gaps=SILENT))
    assert {key: finding.follows for key, finding in findings.items()} == {
        "main-host-silent": False,
        "service-unhealthy airflow-worker": True,
        "service-unhealthy dag-follower": True,
    }
    assert LIGHTS["main-host-silent"].patience >= HOUR


def restarted(facts: Facts) -> list[str]:
    memory = Memory(now=NOW)
    findings = judge.judge(facts, memory)
    memory.see(findings, blind=False)
    return list(mend.wanted(facts, findings, memory, ("postgres",)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tasks": 0}, ["airflow-worker", "dag-follower"]),
        ({"tasks": 1}, ["dag-follower"]),
        ({"tasks": None}, ["dag-follower"]),
        ({"tasks": 0, "drained": None, "gaps": SILENT}, []),
        ({"tasks": 0, "drained": NOW - 60}, ["dag-follower"]),
        ({"tasks": 0, "drained": NOW - 2 * DAY}, ["airflow-worker", "dag-follower"]),
    ],
    ids=["idle", "at work", "unknown", "the main host is away", "drained", "restarted since it was drained"],
)
def test_worker_that_takes_no_tasks_is_restarted(changes: dict[str, Any], expected: list[str]) -> None:
    """Such as after a restart of Redis on Airflow 2.5.3; tasks that run come before those that wait."""
    assert restarted(of_worker(containers=ILL, **changes)) == expected


def test_worker_that_works_on_is_not_restarted_later_either() -> None:
    """The main host's checker waits eleven minutes for it; here nobody knows what a drain has begun."""
    memory = Memory(now=NOW - DAY)
    facts = of_worker(containers=ILL, tasks=1)
    memory.see(judge.judge(facts, memory), blind=False)
    memory.now = NOW
    findings = judge.judge(facts, memory)
    memory.see(findings, blind=False)
    assert "airflow-worker" not in mend.wanted(facts, findings, memory, ())


def test_worker_that_was_told_to_take_no_tasks_is_not_ill() -> None:
    ill = containers(airflow_worker={"health": "unhealthy", "failing": 9})
    assert set(found(of_worker(containers=ill, drained=NOW - 60))) == set()
    assert set(found(of_worker(containers=ill, drained=NOW - 2 * DAY))) == {
        "service-unhealthy airflow-worker"
    }
    gone = containers(airflow_worker={"state": "exited"})
    assert set(found(of_worker(containers=gone, drained=NOW - 60))) == {"service-down airflow-worker"}


@pytest.mark.parametrize(
    ("unit", "stopped"),
    [
        (UNIT, False),
        (dataclasses.replace(UNIT, active="deactivating"), True),
        (dataclasses.replace(UNIT, active="inactive", enabled="disabled"), True),
    ],
)
def test_worker_that_was_stopped_on_purpose_is_not_ill(unit: Unit, stopped: bool) -> None:
    assert host.stopped([unit]) == stopped


def test_power_cut_is_noticed() -> None:
    """By the worker's own unit: it was active, and nobody told it to stop."""
    memory = Memory()
    memory.observe(of_worker(boot="one"))
    memory.observe(of_worker(boot="two"))
    assert memory.power_cut() == NOW
    assert set(found(of_worker(boot="two"), memory)) == {"host-restarted"}


def test_table_says_where_a_light_is() -> None:
    rows = {name: row for name in LIGHTS for row in lights.table().splitlines() if f"`{name}` |" in row}
    assert "| every | critical |" in rows["disk-full"]
    assert "| main | warning |" in rows["backup-old"]
    assert "| worker | critical |" in rows["main-host-silent"]


# --- What is asked


class Broker(socketserver.StreamRequestHandler):
    """Redis behind the tunnel, or a gateway that lets nobody in."""

    closed: ClassVar[bool] = False
    keys: ClassVar[dict[str, bytes]] = {}
    passwords: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        while not self.closed and (line := self.rfile.readline()):
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
            if words[0] == b"AUTH":
                self.passwords.append(words[1])
                self.wfile.write(b"+OK\r\n")
                continue
            assert words[0] == b"GET"
            value = self.keys.get(words[1].decode())
            self.wfile.write(b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value))


@pytest.fixture
def broker() -> Iterator[int]:
    """Its port."""
    Broker.closed, Broker.keys, Broker.passwords = False, {}, []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Broker) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


URL = "redis://:a%2Fpassword@redis:6379/0"


def test_redis_says_when_the_worker_was_drained(broker: int) -> None:
    assert main_host.drained("127.0.0.1", URL, "atd-worker01", port=broker) == 0.0
    assert Broker.passwords == [b"a/password"]
    Broker.keys = {f"{main_host.DRAINED}atd-worker01": b"1800000000"}
    assert main_host.drained("127.0.0.1", URL, "atd-worker01", port=broker) == 1_800_000_000.0
    assert main_host.drained("127.0.0.1", URL, "atd-worker02", port=broker) == 0.0


def test_gateway_that_lets_nobody_in_is_said(broker: int) -> None:
    Broker.closed = True
    with pytest.raises(RedisError):
        main_host.drained("127.0.0.1", URL, "atd-worker01", port=broker)


def test_drain_writes_what_the_checker_reads() -> None:
    """In the image and on the host: neither has the other's code."""
    path = Path(__file__).resolve().parents[2] / "images/airflow/bin/drain-worker"
    [name] = [line for line in path.read_text().splitlines() if line.startswith("DRAINED = ")]
    assert name == f'DRAINED = "{main_host.DRAINED}"'


def test_tasks_are_counted_by_their_processes() -> None:
    """The command finds them, and neither itself nor anything else."""
    sleeper = "import sys, time; print('.', flush=True); time.sleep(60)"
    names = ["airflow task supervisor: ['airflow', 'tasks', 'run', 'a', 'b']", "airflow task runner: a b"]

    def count() -> int:
        done = subprocess.run(main_host.TASKS, capture_output=True, text=True, check=True)
        return main_host.parse_tasks(done.stdout)

    before = count()
    begun = []
    try:
        for name in names:
            one = subprocess.Popen([sys.executable, "-c", sleeper, name], stdout=subprocess.PIPE)
            begun.append(one)
            assert one.stdout
            assert one.stdout.read(1) == b"."
        assert count() == before + 1
    finally:
        for one in begun:
            one.kill()
            one.communicate()


# --- The command


class WorkerEngine(Engine):
    """Docker on a worker host."""

    tasks: ClassVar[str] = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/containers/json":
            return self.answer([{"Id": name} for name in SERVICES])
        name = path.split("/")[2] if path.count("/") > 2 else ""
        if path == "/exec/tasks/json":
            return self.answer({"ExitCode": 0})
        if path.startswith("/containers/") and name in SERVICES:
            shown = self.container(name)
            waits = ",".join(f"{other}:service_healthy:false" for other in NEEDS.get(name, ()))
            shown["Config"]["Labels"]["com.docker.compose.depends_on"] = waits
            return self.answer(shown)
        return super().do_GET()

    def do_POST(self) -> None:
        if self.path == "/exec/tasks/start":
            self.rfile.read(int(self.headers["Content-Length"]))
            text = self.tasks.encode()
            return self.send(b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text)
        if self.path == "/containers/airflow-worker/exec":
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body["Cmd"] == list(main_host.TASKS)
            return self.answer({"Id": "tasks"}, 201)
        return super().do_POST()


@pytest.fixture
def look(tmp_path: Path, outside: str, broker: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that has the checker look at a worker host, and returns what it wrote."""
    directory = tmp_path / "airflow"
    for folder in ("env", "status", "tunnel"):
        (directory / folder).mkdir(parents=True)
    (directory / ".env").write_text("AIRFLOW_VERSION=2.11.2\n")
    (directory / "docker-compose.yaml").write_text("services: {}\n")
    (directory / "env/worker.env").write_text(f"AIRFLOW__CELERY__BROKER_URL='{URL}'\n")
    settings = Settings(
        directory=directory,
        backups=tmp_path / "none",
        state=tmp_path / "state",
        runtime=tmp_path / "run",
        environment="production",
        host="atd-worker01",
        profiles=("worker",),
        slack=f"{outside}/services/secret",
    )
    Engine.ill, Engine.out_of_memory, Engine.events, WorkerEngine.tasks = set(), set(), [], ""
    path = str(tmp_path / "worker.sock")
    observe, ask = everything.observe, main_host.drained
    monkeypatch.setattr(
        everything,
        "observe",
        lambda settings, memory, run: observe(settings, memory, Docker(path), run),
    )
    monkeypatch.setattr(main_host, "drained", lambda *given: ask(*given, port=broker))
    monkeypatch.setattr(host, "disks", lambda paths: [])
    monkeypatch.setattr(host, "clock_synchronised", lambda: True)
    monkeypatch.setattr(everything, "REBOOT", tmp_path / "none")
    commands: list[list[str]] = []

    def run(command: Sequence[str], timeout: float) -> str:
        commands.append(list(command))
        if command[:2] == ["docker", "compose"]:
            assert "--profile=worker" in command
            services = {name: {"image": "i:1"} for name in SERVICES}
            services["airflow-worker"]["labels"] = {"airflow-platform.role": "worker"}  # type: ignore[assignment]
            return json.dumps({"services": services})
        return "Id=docker.service\nLoadState=loaded\nActiveState=active\n" if "show" in command else ""

    def once() -> dict[str, Any]:
        cli.check(settings, run)
        document: dict[str, Any] = json.loads(settings.health.read_text())
        document["restarted"] = [command[-1] for command in commands if "start" in command]
        return document

    with socketserver.ThreadingUnixStreamServer(path, WorkerEngine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield once
        server.shutdown()


def test_worker_host_that_is_well(look: Any) -> None:
    document = look()
    assert document["findings"] == []
    assert (document["overall"], document["host"]) == ("ok", "atd-worker01")
    assert {row["name"] for row in document["services"]} == set(SERVICES)
    assert Outside.calls == []
    screen = report.screen(document, time.time())
    assert screen.startswith("ok: the platform is running\n")
    assert "airflow-worker: 16 slots, consumes default" in screen
    assert "database" not in screen


def test_stuck_worker_is_told_and_restarted_once_it_is_idle(look: Any) -> None:
    Engine.ill, WorkerEngine.tasks = {"airflow-worker"}, "airflow task supervisor\n"
    document = look()
    assert [finding["id"] for finding in document["findings"]] == ["service-unhealthy"]
    assert document["restarted"] == []
    WorkerEngine.tasks = ""
    assert look()["restarted"] == ["airflow-restart@airflow-worker.service"]
    [message] = told()
    assert "*production atd-worker01*" in message
    assert "airflow-worker failed its health check" in message


def test_worker_that_is_shut_out_is_no_fault_of_its_own(look: Any) -> None:
    """As in an operation: nobody is told, and nothing is restarted."""
    Engine.ill, Broker.closed = {"airflow-worker"}, True
    document = look()
    assert [finding["id"] for finding in document["findings"]] == ["main-host-silent", "service-unhealthy"]
    assert look()["restarted"] == []
    assert told() == []


def test_certificate_of_the_tunnel_is_looked_at(look: Any, tmp_path: Path) -> None:
    (tmp_path / "airflow/tunnel/worker.pem").write_text("damaged")
    [finding] = look()["findings"]
    assert finding["what"] == (
        "The certificate for worker hosts could not be looked at: there is no certificate in it."
    )
