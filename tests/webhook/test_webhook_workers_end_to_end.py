"""Worker hosts on loopback, with all that is real of them: gunicorn, git daemon, HAProxy, followers."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from webhook.coordinator import PATH, SWITCH_SECONDS

from tests.webhook.doubles import Remote, files_below, wait_until
from tests.webhook.worker_hosts import TOKEN, Platform, answers, platform

Start = Callable[..., subprocess.Popen[str]]
WORKERS = ("atd-worker01", "atd-worker02")
FIRST, SECOND = WORKERS
PREPARE_SECONDS = 4
SLACK = 10
"""Seconds that a busy machine may need beyond what is promised."""
NOTHING: dict[str, Any] = {"commit": None, "prepared": None, "release": "r", "queues": [], "slots": 1}


@pytest.fixture
def hosts(
    start: Start, environment: dict[str, str], remote: Remote, gate: object, tmp_path: Path
) -> Iterator[Platform]:
    with platform(start, environment, remote, tmp_path, WORKERS) as found:
        found.main["WORKER_PREPARE_SECONDS"] = str(PREPARE_SECONDS)
        yield found


@pytest.fixture
def following(hosts: Platform) -> Platform:
    """The hosts, with the first commit live everywhere."""
    hosts.serve()
    for name in WORKERS:
        hosts.follow(name)
    hosts.wait_for(hosts.remote.head, "main", *WORKERS)
    wait_until(lambda: set(hosts.states().values()) == {"live"}, what="live workers")
    return hosts


def switch_times(hosts: Platform, *names: str) -> list[float]:
    """Return when the links were switched: each is made anew just before."""
    return [os.lstat(hosts.link(name)).st_mtime for name in names]


def is_fenced(hosts: Platform, name: str) -> bool:
    return not hosts.gateway.lets_in(name)


@pytest.mark.parametrize("who", ["dag-sync", "the webhook"])
def test_push_goes_live_everywhere_at_once(following: Platform, who: str) -> None:
    connections = {name: following.gateway.connect(name) for name in WORKERS}
    for number in range(3):
        commit = following.remote.commit({"dags/two.py": f"two = {number}\n"})
        if who == "dag-sync":
            done = following.sync()
            assert done.returncode == 0, done.stdout
        else:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            assert httpx.post(f"{following.page}/sync", headers=headers, trust_env=False).status_code == 202
        following.wait_for(commit, "main", *WORKERS)
        times = switch_times(following, "main", *WORKERS)
        assert max(times) - min(times) <= SWITCH_SECONDS
        for name in WORKERS:
            assert files_below(following.link(name).resolve()) == following.remote.tree(commit)
    wait_until(lambda: set(following.states().values()) == {"live"}, what="live workers")
    # Nobody was fenced on the way.
    assert all(answers(connection) for connection in connections.values())
    for connection in connections.values():
        connection.close()
    worker = following.workers()[FIRST]
    assert worker.pop("heard_seconds_ago") < 15
    assert worker == {
        "name": FIRST,
        "release": "2-11-2-test",
        "commit": commit,
        "queues": ["default", FIRST],
        "slots": 8,
        "state": "live",
    }


def test_stopped_follower_is_fenced_and_let_in_again(following: Platform) -> None:
    connection = following.gateway.connect(FIRST)
    assert answers(connection)
    following.followers[FIRST].send_signal(signal.SIGSTOP)
    commit = following.remote.commit({"dags/two.py": "two = 2\n"})
    began = time.monotonic()
    assert following.sync().returncode == 0
    assert time.monotonic() - began < PREPARE_SECONDS + SLACK
    assert following.live("main") == commit
    following.wait_for(commit, SECOND)
    assert not answers(connection)
    connection.close()
    assert is_fenced(following, FIRST)
    assert not is_fenced(following, SECOND)
    assert following.states()[FIRST] in ("fenced", "silent")

    # HAProxy forgets who was fenced, and is told again.
    following.gateway.stop()
    following.gateway.start()
    wait_until(lambda: is_fenced(following, FIRST), SLACK, "fenced again")
    assert not is_fenced(following, SECOND)

    following.followers[FIRST].send_signal(signal.SIGCONT)
    following.wait_for(commit, FIRST)
    wait_until(lambda: not is_fenced(following, FIRST), SLACK, "let in again")
    assert following.live(FIRST) == commit


def test_pin_and_unpin_go_everywhere(following: Platform) -> None:
    """Also back to a commit that no branch has any more, on a host that has lost all."""
    old = following.remote.head
    new = following.remote.commit({"dags/two.py": "two = 2\n"}, amend=True)
    assert following.sync().returncode == 0
    following.wait_for(new, "main", *WORKERS)
    following.followers[FIRST].kill()
    following.followers[FIRST].wait()
    shutil.rmtree(following.folder / FIRST)
    following.follow(FIRST)
    following.wait_for(new, FIRST)

    assert following.sync("pin", old).returncode == 0
    following.wait_for(old, "main", *WORKERS)
    assert files_below(following.link(FIRST).resolve()) == following.remote.tree(old)
    assert following.sync("unpin").returncode == 0
    following.wait_for(new, "main", *WORKERS)


def test_without_the_webhook_everybody_is_fenced_until_it_is_back(following: Platform) -> None:
    """`dag-sync` runs in the webhook's container, and has to do its work while gunicorn is restarted."""
    assert following.server is not None
    following.server.terminate()
    following.server.wait(30)
    commit = following.remote.commit({"dags/two.py": "two = 2\n"})
    assert following.sync().returncode == 0
    assert following.live("main") == commit
    assert is_fenced(following, FIRST)
    assert is_fenced(following, SECOND)
    following.serve()
    following.wait_for(commit, *WORKERS)
    for name in WORKERS:
        wait_until(partial(following.gateway.lets_in, name), SLACK, f"{name} let in")


def test_stopped_gateway_keeps_no_push(following: Platform) -> None:
    following.gateway.stop()
    commit = following.remote.commit({"dags/two.py": "two = 2\n"})
    assert following.sync().returncode == 0
    assert following.live("main") == commit
    following.gateway.start()
    following.wait_for(commit, *WORKERS)
    wait_until(lambda: set(following.states().values()) == {"live"}, what="live workers")
    assert not is_fenced(following, FIRST)


def test_follower_that_is_killed_again_and_again_converges(following: Platform) -> None:
    for number in range(8):
        commit = following.remote.commit({"dags/two.py": f"two = {number}\n" * 1000})
        following.start("webhook.cli", "once", **following.main)
        for pause in (0.3, 0.5, 0.4 + number / 20):
            following.followers[FIRST].kill()
            following.followers[FIRST].wait()
            # Whatever the moment: what is live there is whole.
            live = following.live(FIRST)
            assert live is not None
            assert files_below(following.link(FIRST).resolve()) == following.remote.tree(live)
            following.follow(FIRST)
            with contextlib.suppress(subprocess.TimeoutExpired):
                following.followers[FIRST].wait(pause)
        following.wait_for(commit, "main", *WORKERS)
    wait_until(lambda: not is_fenced(following, FIRST), SLACK, "let in")


def test_reports_have_their_own_socket(hosts: Platform) -> None:
    hosts.serve()
    reports = "http://follow"
    forged = {
        "X-Worker": FIRST,
        "Host": "follow",
        "X-Forwarded-Host": "follow",
        "Forwarded": f"for={FIRST};host=follow",
    }
    with httpx.Client(trust_env=False, timeout=20) as client:
        for method in ("GET", "POST", "PUT", "OPTIONS", "HEAD"):
            answer = client.request(method, hosts.page + PATH, headers=forged)
            assert answer.status_code == 404
    assert hosts.gateway.reports.stat().st_mode & 0o777 == 0o770
    transport = httpx.HTTPTransport(uds=str(hosts.gateway.reports))
    with httpx.Client(transport=transport, timeout=20) as client:
        for path in ("/", "/lights", "/sync", "/webhook", "/metrics", "/healthz"):
            for method in ("GET", "POST"):
                assert client.request(method, reports + path, headers=forged).status_code == 404
        for name in ("", "atd-worker03", f"{FIRST},{FIRST}", f"{FIRST}, {SECOND}"):
            assert client.post(reports + PATH, json=NOTHING, headers={"X-Worker": name}).status_code == 403
        given = [("X-Worker", FIRST), ("X-Worker", SECOND)]
        assert client.post(reports + PATH, json=NOTHING, headers=given).status_code == 403
        worker = {"X-Worker": FIRST}
        assert client.post(reports + PATH, json=[], headers=worker).status_code == 400
        assert client.post(reports + PATH, json=NOTHING, headers=worker).status_code == 200


def test_without_workers_nothing_listens_for_them(hosts: Platform) -> None:
    hosts.main["WORKERS"] = ""
    hosts.serve()
    headers = {"X-Worker": FIRST}
    transport = httpx.HTTPTransport(uds=str(hosts.gateway.reports))
    with httpx.Client(transport=transport) as client:
        assert client.post(f"http://follow{PATH}", json=NOTHING, headers=headers).status_code == 404
    with httpx.Client(trust_env=False) as client:
        assert client.post(hosts.page + PATH, json=NOTHING, headers=headers).status_code == 404
        assert client.get(f"{hosts.page}/lights").json()["workers"] == []
        page = client.get(hosts.page, headers={"Accept": "application/json"}).json()
        assert page["workers"] == []
    assert not (Path(hosts.main["DAG_TREES_DIR"]).parent / "state/workers.sock").exists()


def test_waiting_reports_keep_nobody_from_the_page(
    start: Start, environment: dict[str, str], remote: Remote, gate: object, tmp_path: Path
) -> None:
    """More than gunicorn has threads otherwise; and they do not keep it from a stop."""
    names = [f"worker{number:02}" for number in range(12)]
    with platform(start, environment, remote, tmp_path, names) as hosts:
        server = hosts.serve()
        hosts.wait_for(remote.head, "main")
        transport = httpx.HTTPTransport(uds=str(hosts.gateway.reports))
        same = {**NOTHING, "commit": remote.head}

        def poll(name: str) -> int:
            return client.post(f"http://follow{PATH}", json=same, headers={"X-Worker": name}).status_code

        with (
            httpx.Client(transport=transport, timeout=30) as client,
            ThreadPoolExecutor(len(names)) as pool,
        ):
            polls = [pool.submit(poll, name) for name in names]
            wait_until(
                lambda: all(worker["heard_seconds_ago"] is not None for worker in hosts.workers().values()),
                what="all reports",
            )
            began = time.monotonic()
            assert httpx.get(hosts.page, trust_env=False, timeout=20).status_code == 200
            assert time.monotonic() - began < 5
            assert not any(waiting.done() for waiting in polls)
            server.terminate()
            assert server.wait(20) == 0
            assert [waiting.result() for waiting in polls] == [200] * len(names)
