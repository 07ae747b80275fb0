"""Slow callers, before a real HAProxy with the platform's configuration and before gunicorn alone: nobody
else waits for them, and each has an end.
"""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.webhook.doubles import GateDouble, wait_until
from tests.webhook.front import ROOT, haproxy
from tests.webhook.network import free_port
from tests.webhook.routes import ROUTES

Start = Callable[..., subprocess.Popen[str]]
KINDS = ["headers", "body", "large body", "chunks", "large chunks", "large head"]
PATHS = [route.format("x") for route in ROUTES]
PATIENCE = 60
"""Seconds that a machine may need which is busy with other things."""
# One that sends or reads slowly is cut off after this time, in the place of the template's.
SHORT = {"timeout http-request": 1, "wait-for-body time": 1, "timeout client": 1}


def ask(port: int, path: str = "/", method: str = "GET") -> int:
    """Return the status of an answer to somebody else than the slow callers, or 0 when there was none."""
    # Whoever floods is turned away; that must not be what saves the others.
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(transport=transport, timeout=PATIENCE, trust_env=False) as client:
        try:
            return client.request(method, f"http://127.0.0.1:{port}{path}").status_code
        except httpx.TransportError:
            return 0


def wait_for_page(port: int) -> None:
    """Wait until whoever listens there, and all that is behind it, works."""
    wait_until(lambda: ask(port) == 200, PATIENCE, "the page")


@contextmanager
def slow_callers(port: int, *options: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Have the port called slowly; yield what ends that and returns what became of the callers."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "bench/slow_callers", "127.0.0.1", str(port), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "all call\n"

        def stop(wait: bool = False) -> dict[str, Any]:
            if not wait:
                process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=2 * PATIENCE)
            found: dict[str, Any] = json.loads(output)
            return found

        yield stop
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def webhook(start: Start, environment: dict[str, str], gate: GateDouble) -> Callable[..., int]:
    """Start the webhook's own server, or the one whose limits are short; return its port."""
    environment["AIRFLOW_URL"] = "http://127.0.0.1:9"

    def serve(module: str = "gunicorn", application: str = "webhook.app:create_app()") -> int:
        port = free_port()
        config = ("--config=python:webhook.gunicorn", f"--bind=127.0.0.1:{port}")
        start(module, *config, application)
        wait_until(lambda: ask(port, "/healthz") == 200, PATIENCE, "gunicorn")
        return port

    return serve


@pytest.fixture
def two_workers(start: Start) -> Iterator[int]:
    port = free_port()
    options = ("--workers=2", f"--bind=127.0.0.1:{port}")
    process = start("gunicorn", *options, "tests.webhook.two_workers:application")
    wait_for_page(port)
    yield port
    process.send_signal(signal.SIGQUIT)  # with its workers, whatever keeps them busy
    process.wait()


def test_fifty_slow_callers_keep_nobody_from_the_webhook(webhook: Callable[..., int], tmp_path: Path) -> None:
    """Of every kind, on every route, with the template's own times: none of them is needed."""
    with haproxy({"webhook": webhook()}, tmp_path / "haproxy") as ports:
        port = ports["webhook"]
        wait_for_page(port)
        with slow_callers(port, "--callers=50", "--pause=0.2") as stop:
            assert [ask(port) for _ in range(5)] == [200] * 5
            assert ask(port, "/webhook", "POST") == 401
            found = stop()
    assert sum(kind["opened"] for kind in found.values()) >= 50


def test_fifty_slow_callers_keep_nobody_from_airflow(two_workers: int, tmp_path: Path) -> None:
    """Its bodies may be large, and it has two processes."""
    with haproxy({"airflow": two_workers}, tmp_path / "haproxy") as ports:
        port = ports["airflow"]
        wait_for_page(port)
        with slow_callers(port, "--callers=50", "--pause=0.2", "--path=/", "--path=/login/"):
            assert [ask(port) for _ in range(5)] == [200] * 5
            assert ask(port, "/login/", "POST") == 200


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_fast_readers_are_turned_away(two_workers: int, tmp_path: Path, path: str) -> None:
    """As many pages as anybody needs, and no more. Another one is not turned away for them."""
    with haproxy({"webhook": two_workers}, tmp_path / "haproxy") as ports:
        port = ports["webhook"]
        wait_for_page(port)
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

        def get() -> int:
            line.request("GET", path)
            with line.getresponse() as answer:
                answer.read()
                return answer.status

        assert {get() for _ in range(100)} == {200}
        assert 429 in (get() for _ in range(10_000))  # which ends with the first of them
        assert ask(port) == 200
        line.close()


def test_large_requests_pass_one_at_a_time(two_workers: int, tmp_path: Path) -> None:
    with haproxy({"airflow": two_workers}, tmp_path / "haproxy") as ports:
        url = f"http://127.0.0.1:{ports['airflow']}/"
        wait_for_page(ports["airflow"])
        for content in (b"x" * 5_000_000, iter([b"x" * 1_000_000] * 5)):
            assert httpx.post(url, content=content, timeout=PATIENCE).status_code == 200

        def post() -> httpx.Response:
            return httpx.post(url, content=b"x" * 100_000, timeout=PATIENCE)

        with slow_callers(ports["airflow"], "--callers=1", "--kind=large body", "--path=/"):
            refused = wait_until(
                lambda: answer if (answer := post()).status_code == 503 else None, PATIENCE, "a refusal"
            )
            assert refused.headers["Retry-After"] == "10"
            assert ask(ports["airflow"], "/", "POST") == 200
        wait_until(lambda: post().status_code == 200, PATIENCE, "the end of the slow one")


def cut_off(port: int, kinds: list[str], *options: str) -> set[str]:
    """Return the kinds of slow callers that all had an end, on every route."""
    more = [f"--callers={len(PATHS) * len(kinds)}", "--pause=0.1", "--once", f"--seconds={PATIENCE}"]
    more += [f"--kind={kind}" for kind in kinds] + [f"--path={path}" for path in PATHS]
    with slow_callers(port, *more, *options) as stop:
        found = stop(wait=True)
    return {kind for kind, callers in found.items() if callers["opened"] == callers["ended"] > 0}


def test_slow_callers_have_an_end(webhook: Callable[..., int], two_workers: int, tmp_path: Path) -> None:
    """At every port, but for the rest of a large request, which Airflow's own server ends."""
    servers = {"webhook": webhook(), "airflow": two_workers, "flower": two_workers, "weather": two_workers}
    with haproxy(servers, tmp_path / "haproxy", SHORT) as ports, ThreadPoolExecutor() as pool:
        for port in ports.values():
            wait_for_page(port)
        kinds = {
            endpoint: ["headers", "body", "chunks"] if endpoint == "airflow" else KINDS for endpoint in ports
        }
        found = pool.map(lambda endpoint: cut_off(ports[endpoint], kinds[endpoint]), ports)
        assert dict(zip(ports, found, strict=True)) == {endpoint: set(kinds[endpoint]) for endpoint in ports}


@pytest.mark.parametrize("endpoint", ["webhook", "flower", "weather"])
@pytest.mark.parametrize("content", [b"x" * 17_000, [b"x" * 17_000]], ids=["length", "chunks"])
def test_large_request_is_airflows_alone(
    two_workers: int, tmp_path: Path, endpoint: str, content: bytes | list[bytes]
) -> None:
    """Whoever sends one slowly keeps a process, and the other services need none."""
    with haproxy({endpoint: two_workers}, tmp_path / "haproxy") as ports:
        wait_for_page(ports[endpoint])
        url = f"http://127.0.0.1:{ports[endpoint]}/"
        sent = content if isinstance(content, bytes) else iter(content)
        assert httpx.post(url, content=sent, timeout=PATIENCE, trust_env=False).status_code == 413


@pytest.mark.parametrize("kind", ["reader", "reader by HTTP/2"])
def test_reader_who_takes_nothing_has_an_end(two_workers: int, tmp_path: Path, kind: str) -> None:
    """What he has not read yet fills every buffer, and keeps the process busy that answers him."""
    with haproxy({"airflow": two_workers}, tmp_path / "haproxy", SHORT) as ports:
        port = ports["airflow"]
        wait_for_page(port)
        with slow_callers(port, "--callers=6", f"--kind={kind}", "--path=/large", "--pause=0.2"):
            assert ask(port) == 200


def test_slow_answer_is_waited_for(two_workers: int, tmp_path: Path) -> None:
    """A caller's time counts while he sends or reads, and not while the service works."""
    with haproxy({"airflow": two_workers}, tmp_path / "haproxy", SHORT) as ports:
        wait_for_page(ports["airflow"])
        assert ask(ports["airflow"], "/slow", "POST") == 200


def test_gunicorn_alone_ends_slow_requests(webhook: Callable[..., int]) -> None:
    """More of them than it has threads."""
    port = webhook("tests.webhook.short_requests")
    assert cut_off(port, KINDS) == set(KINDS)
    with slow_callers(port, "--callers=12", "--pause=0.2"):
        assert [ask(port) for _ in range(3)] == [200] * 3


def test_gunicorn_alone_ends_slow_readers(webhook: Callable[..., int]) -> None:
    """More of them than it has threads, of an answer that is larger than all buffers on the way."""
    port = webhook("tests.webhook.short_requests", "tests.webhook.two_workers:application")
    with slow_callers(port, "--callers=16", "--kind=reader", "--path=/large", "--pause=0.2"):
        assert ask(port) == 200
