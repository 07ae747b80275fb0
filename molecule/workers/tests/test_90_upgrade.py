"""upgrade.yml with a worker: the old one is shut out before the database is copied, the new one works then.

The worker switches by itself, in both directions.

What it takes there is the team's own change, a package: a release with an image of its own, by the same road.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from airflow_api import wait_for
from control_node import ControlNode
from delivery import docker
from executions import Executions
from expected import DIRECTORY
from long_tests import when_asked
from platform_host import Platform
from testinfra.host import Host
from worker_host import (
    CONSUMES_SECONDS,
    FIRST,
    WORKER_PORT,
    Json,
    WorkerHost,
    connection_name,
    release_of,
    say,
)

pytestmark = [when_asked, pytest.mark.usefixtures("healthy")]

PACKAGE = "openpyxl"
PINNED = "onepasswordconnectsdk==1.3.0"
CLOSED = ("migrate", "start", "backup", "serve", "verify", "smoke", "finish")
"""The phases after the drain: the database is copied, and the copy is served."""
LAST_PLAY = "PLAY [Have the workers follow the main host]"
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
POSTGRES_ANSWERS = (b"N", b"S")


class Intruder(threading.Thread):
    """Has the certificate of a worker, and asks for Postgres and Redis of one release again and again."""

    def __init__(self, platform: Platform, worker: WorkerHost, release: str, certificate: Path) -> None:
        """Ask nothing yet."""
        super().__init__()
        self._platform, self._worker, self._release, self._certificate = (
            platform,
            worker,
            release,
            certificate,
        )
        self.over = threading.Event()
        self.let_in: list[tuple[str, str]] = []
        """Services that answered, each with the phase that was under way before and after."""
        self.asked: set[str] = set()
        """The phases in which it has asked."""

    def answers(self, service: str, text: bytes) -> bytes:
        """Return what a service answers."""
        name = connection_name(service, self._release)
        try:
            return say(self._worker.main_address, WORKER_PORT, name, text, self._certificate)
        except OSError:
            # While the port is closed, nobody listens there.
            return b""

    def _phase(self) -> str:
        phases = self._platform.operation().get("phases", [])
        return next((one["name"] for one in phases if one["state"] == "running"), "")

    def run(self) -> None:
        """Ask until it is over."""
        while not self.over.wait(0.5):
            before = self._phase()
            found = [service for service, text in REQUESTS.items() if self.answers(service, text)]
            # What answered while a phase came to its end was asked in neither of them.
            if before == self._phase():
                self.asked.add(before)
                self.let_in += [(service, before) for service in found]


REQUESTS = {"postgres": SSL_REQUEST, "redis": b"PING\r\n"}


@contextmanager
def asking(intruder: Intruder) -> Iterator[Intruder]:
    """Have it ask for a while."""
    intruder.start()
    try:
        yield intruder
    finally:
        intruder.over.set()
        intruder.join()


def test_old_worker_is_shut_out_and_the_new_one_works(
    host: Host,
    platform: Platform,
    control: ControlNode,
    with_workers: str,
    workers: dict[str, WorkerHost],
    worker: WorkerHost,
    executions: Executions,
    tmp_path: Path,
) -> None:
    """With a task at work on the worker when it begins, which ends well. About 5 minutes."""
    certificate = tmp_path / "worker.pem"
    certificate.touch(mode=0o600)
    certificate.write_text(worker.certificate)
    old = release_of(host)
    intruder = Intruder(platform, worker, old, certificate)
    assert intruder.answers("postgres", SSL_REQUEST) in POSTGRES_ANSWERS
    before = {name: one.containers()["airflow-worker"]["Image"] for name, one in workers.items()}
    run = executions.begin(FIRST, tasks=1)
    executions.wait_until_running(run, 1)

    with control.edited("images/airflow/requirements.txt", PINNED, f"{PINNED}\n{PACKAGE}==3.1.5"):
        upgrade = control.start("upgrade.yml", with_workers)
        with asking(intruder):
            upgrade.wait_for("the drain", lambda: platform.is_in("drain"), 600)
            assert executions.states(run) == {"running"}
            executions.may_end()
            upgrade.wait_for("the copy", lambda: platform.is_in("migrate"), 180, pause=0.2)
            assert executions.states(run) == {"success"}
            for name, one in workers.items():
                old_images = ("", before[name])
                upgrade.wait_for(
                    f"{name} to switch", lambda one=one, old=old_images: image_of(one) not in old, 300
                )
            assert LAST_PLAY not in upgrade.output, "the control node had no part in it"
            upgrade.wait(900).succeeded()

    # The old release was served before, and from the copy on in no phase.
    assert "migrate" in intruder.asked
    assert {phase for _, phase in intruder.let_in if phase in CLOSED} == set()
    assert any(phase not in CLOSED for _, phase in intruder.let_in)
    new = release_of(host)
    assert new != old
    [main] = host.check_output(
        f"cd {DIRECTORY} && docker inspect --format %s $(docker compose ps -q airflow-worker)", "{{.Image}}"
    ).split()
    for name, one in workers.items():
        one.wait_until_healthy()
        assert one.containers()["airflow-worker"]["Image"] == main != before[name]
        assert one.inside(f"import {PACKAGE}").rc == 0
        # The last play has removed what was laid out, and ended what switches.
        assert not one.host.file(f"{DIRECTORY}/releases").exists
        assert one.run("systemctl is-active --quiet airflow-worker-switch").rc != 0
        assert one.run("systemctl is-enabled --quiet airflow-worker-switch").rc != 0
    following = executions.begin(FIRST, tasks=2)
    executions.wait_for_end(following, CONSUMES_SECONDS)
    executions.check_once(run, 1)
    executions.check_once(following, 2)
    assert Intruder(platform, worker, new, certificate).answers("redis", REQUESTS["redis"])
    assert intruder.answers("redis", REQUESTS["redis"]) == b""


def test_worker_follows_there_and_back_without_the_control_node(
    host: Host,
    platform: Platform,
    control: ControlNode,
    with_workers: str,
    worker: WorkerHost,
    executions: Executions,
) -> None:
    """The control node is gone before the switch. Nobody confirms the new release: the main host goes back.

    The upgrade takes the package of the other test away again. About 7 minutes.
    """
    old, image = release_of(host), image_of(worker)
    run = executions.begin(FIRST, tasks=1)
    executions.wait_until_running(run, 1)
    upgrade = control.start("upgrade.yml", with_workers, "--extra-vars=upgrade_confirm_timeout=180")
    upgrade.wait_for("the drain", lambda: platform.is_in("drain"), 600)
    upgrade.kill()
    executions.may_end()
    wait_for("the worker to switch", lambda: image_of(worker) not in ("", image), 300)
    assert platform.operation()["state"] in ("switching", "unconfirmed")
    worker.wait_until_healthy()
    wait_for("the main host to go back", lambda: platform.operation()["state"] == "reverted", 600)
    assert release_of(host) == old
    wait_for("the worker to go back", lambda: image_of(worker) == image, 300)
    worker.wait_until_healthy()
    platform.wait_until_healthy()
    following = executions.begin(FIRST, tasks=1)
    executions.wait_for_end(following, CONSUMES_SECONDS)
    executions.check_once(run, 1)
    executions.check_once(following, 1)


def test_worker_that_was_unplugged_stays_out(
    platform: Platform,
    control: ControlNode,
    with_workers: str,
    worker: WorkerHost,
    executions: Executions,
) -> None:
    """Off while the release changes, it comes back with the old one: it gets no task before it has followed.

    The upgrade takes the package of the other test away again. About 6 minutes.
    """
    image = worker.containers()["airflow-worker"]["Image"]
    docker("stop", "-t", "120", worker.container, seconds=180)
    try:
        upgrade = control.run("upgrade.yml", with_workers, seconds=900)
    finally:
        docker("start", worker.container)
    assert platform.operation()["state"] == "succeeded"
    said = " ".join(upgrade.output.split())
    assert f"WARNING: {worker.name} does not have the next release" in said
    assert f"{worker.name} did not follow" in said
    platform.wait_until_healthy()
    wait_for("the old worker to run", lambda: "airflow-worker" in started(worker), 180)
    assert started(worker)["airflow-worker"]["Image"] == image
    executions.may_end()
    run = executions.begin(FIRST, tasks=1)
    # Meanwhile the main host runs tasks; what waits is in a queue that nobody else consumes.
    control.run("playbooks/smoke.yml").succeeded()
    assert executions.states(run, "numbers") == {"queued"}
    control.run("site.yml", with_workers).succeeded()
    worker.wait_until_healthy()
    executions.wait_for_end(run, CONSUMES_SECONDS)
    executions.check_once(run, 1)
    assert worker.containers()["airflow-worker"]["Image"] != image


def test_worker_follows_a_rotation_by_itself(
    host: Host, control: ControlNode, with_workers: str, worker: WorkerHost, executions: Executions
) -> None:
    """The image stays the same; the worker has the new keys and passwords all the same. About 4 minutes."""

    def release_there() -> str:
        return str(json.loads(worker.host.file(f"{DIRECTORY}/release.json").content_string)["name"])

    old, image = release_of(host), image_of(worker)
    assert release_there() == old
    rotation = control.start("rotate.yml", with_workers)
    rotation.wait_for("the worker to switch", lambda: release_there() != old, 900)
    assert LAST_PLAY not in rotation.output, "the control node had no part in it"
    rotation.wait(900).succeeded()
    assert release_there() == release_of(host)
    assert image_of(worker) == image
    worker.wait_until_healthy()
    executions.may_end()
    following = executions.begin(FIRST, tasks=1)
    executions.wait_for_end(following, CONSUMES_SECONDS)
    executions.check_once(following, 1)


def image_of(worker: WorkerHost) -> str:
    """Return the id of the image in which tasks run, "" while there is no such container."""
    return str(started(worker).get("airflow-worker", {}).get("Image", ""))


def started(worker: WorkerHost) -> dict[str, Json]:
    """Return the worker's containers; none while its host boots."""
    return worker.containers() if worker.run("docker info", seconds=20).rc == 0 else {}
