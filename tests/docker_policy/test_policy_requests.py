"""What may be asked at all, and in which form of HTTP: over the wire, as a task with full control would."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
from docker_policy.errors import RefusedError
from docker_policy.policy import Policy
from docker_policy.settings import OWNER_LABEL, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from docker_policy import wire
from tests.docker_policy.attacks import (
    FOREIGN,
    FOREIGN_FILTERS,
    LENGTH,
    MALFORMED,
    PARAMETERS,
    REFUSED,
    listed_by,
    on_the_wire,
    operator,
    post,
)
from tests.docker_policy.conftest import IDENTITY, LIMITS, OWNED, Wired, read_answer, request


@pytest.mark.parametrize(("method", "target"), REFUSED, ids=lambda each: each[:60])
def test_dags_may_not(policy: Policy, method: str, target: str) -> None:
    with pytest.raises(RefusedError) as caught:
        policy.decide(request(method, target))
    assert caught.value.status in (400, 403)


@pytest.mark.parametrize("target", PARAMETERS)
def test_parameter_of_an_own_container_is_refused(policy: Policy, target: str) -> None:
    with pytest.raises(RefusedError):
        policy.decide(request("POST", f"/v1.41/containers/x/{target}"))


@pytest.mark.parametrize(
    ("method", "asked", "sent"),
    [
        ("GET", "/_ping", "/_ping"),
        ("HEAD", "/_ping", "/_ping"),
        ("GET", "/version", "/version"),
        ("GET", "/v1.45/info", "/v1.45/info"),
        (
            "GET",
            "/v1.41/containers/json?limit=-1&all=0&size=0&trunc_cmd=0",
            "/v1.41/containers/json?limit=-1&all=0&size=0&filters=%7B%22label%22%3A+%5B%22airflow.dag-container%3Dtrue%22%5D%7D",
        ),
        ("GET", "/v1.41/images/json?only_ids=0&all=0", "/v1.41/images/json?only_ids=0&all=0"),
        ("GET", "/v1.41/containers/x/json", f"/v1.41/containers/{IDENTITY}/json"),
        (
            "GET",
            "/v1.41/containers/x/logs?stderr=1&stdout=1&timestamps=0&follow=0&tail=all&since=1.5",
            f"/v1.41/containers/{IDENTITY}/logs?stderr=1&stdout=1&timestamps=0&follow=0&tail=all&since=1.5",
        ),
        ("GET", "/containers/x/archive?path=%2Ftmp%2Fx", f"/containers/{IDENTITY}/archive?path=%2Ftmp%2Fx"),
        (
            "POST",
            "/containers/x/attach?logs=0&stdout=1&stderr=1&stream=1",
            f"/containers/{IDENTITY}/attach?logs=0&stdout=1&stderr=1&stream=1",
        ),
        ("POST", "/containers/x/start", f"/containers/{IDENTITY}/start"),
        ("POST", "/containers/x/wait?condition=removed", f"/containers/{IDENTITY}/wait?condition=removed"),
        ("POST", "/containers/x/stop?t=10", f"/containers/{IDENTITY}/stop?t=10"),
        (
            "POST",
            "/containers/x/kill?signal=SIGRTMIN%2B3",
            f"/containers/{IDENTITY}/kill?signal=SIGRTMIN%2B3",
        ),
        ("POST", "/containers/x/resize?h=24&w=80", f"/containers/{IDENTITY}/resize?h=24&w=80"),
        ("DELETE", "/containers/x?v=False&link=False&force=True", f"/containers/{IDENTITY}?v=1&force=1"),
        ("DELETE", "/containers/x", f"/containers/{IDENTITY}?v=1&force=0"),
    ],
)
def test_what_docker_is_asked(policy: Policy, method: str, asked: str, sent: str) -> None:
    decision = policy.decide(request(method, asked))
    assert (decision.method, decision.target, decision.body) == (method, sent, b"")


def test_filters_of_ones_own_add_to_the_owners(policy: Policy) -> None:
    filters = {"label": ["team=knack"], "name": ["x"]}
    decision = policy.decide(
        request("GET", "/containers/json?all=1&filters=" + json.dumps(filters).replace(" ", ""))
    )
    assert json.loads(decision.query["filters"]) == {
        "label": ["team=knack", f"{OWNER_LABEL}=true"],
        "name": ["x"],
    }


@pytest.mark.parametrize("filters", FOREIGN_FILTERS, ids=json.dumps)
def test_no_filter_lists_containers_of_others(wired: Wired, filters: dict[str, list[str]]) -> None:
    """Of Docker alone the same request gets them."""
    compose = {"com.docker.compose.project": "airflow"}
    wired.docker.put(FOREIGN, compose)
    wired.docker.put("airflow-redis-1", compose | {OWNER_LABEL: "other"})
    own = wired.docker.put("own", OWNED)
    answer = wired.send(listed_by(filters))
    assert answer.status == 200
    assert {each["Id"] for each in json.loads(answer.body)} <= {own.identity}
    assert {FOREIGN, "airflow-redis-1"} & {each.name for each in wired.docker.listed(filters)}


VERBS = [
    *(("GET", verb) for verb in ("json", "logs?stdout=1", "archive?path=/tmp")),
    *(("POST", verb) for verb in ("attach?stream=1", "start", "wait", "stop", "kill", "resize?h=1&w=1")),
    ("DELETE", ""),
]


@pytest.mark.parametrize("by", ["name", "id", "short id", "label of another value"])
@pytest.mark.parametrize(("method", "verb"), VERBS)
def test_containers_of_others_are_not_there(wired: Wired, by: str, method: str, verb: str) -> None:
    """Whatever is asked about them: Docker gets one question of the filter's own, and nothing else."""
    labels = {OWNER_LABEL: "other"} if by.startswith("label") else {"com.docker.compose.project": "airflow"}
    foreign = wired.docker.put(FOREIGN, labels)
    reference = {"id": foreign.identity, "short id": foreign.identity[:6]}.get(by, foreign.name)
    answer = wired.ask(method, f"/v1.41/containers/{reference}/{verb}".rstrip("/"))
    assert (answer.status, answer.message) == (404, f"No such container: {reference}")
    assert wired.docker.calls == [f"GET /containers/{reference}/json"]
    unknown = wired.ask(method, f"/v1.41/containers/no-such/{verb}".rstrip("/"))
    assert (unknown.status, unknown.message) == (404, "No such container: no-such")


@pytest.mark.parametrize(
    ("method", "verb"), [each for each in VERBS if each[1] not in ("wait", "logs?stdout=1")]
)
def test_own_containers_are_asked_for_by_their_full_id(wired: Wired, method: str, verb: str) -> None:
    own = wired.docker.put("own", OWNED)
    own.started.set()
    answer = wired.ask(method, f"/v1.41/containers/own/{verb}".rstrip("/"))
    assert answer.status < 300
    path = wired.docker.calls[-1].split()[1].partition("?")[0]
    assert path == f"/v1.41/containers/{own.identity}/{verb}".partition("?")[0].rstrip("/")


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_reaches_nobody(wired: Wired, name: str) -> None:
    """The answer is an error in Docker's own form, and Docker has not seen a byte."""
    wired.docker.put("own", OWNED)
    answer = wired.send(MALFORMED[name])
    assert answer.status in (400, 403, 413, 501)
    assert answer.message
    assert answer.headers["connection"] == "close"
    assert wired.docker.received == []


def test_no_attack_reaches_docker(wired: Wired) -> None:
    """As Molecule sends them to the filter of a host."""
    wired.docker.put("own", OWNED)
    answers = {name: wired.send(data) for name, data in on_the_wire().items()}
    assert {name for name, answer in answers.items() if answer.status not in (400, 403, 413, 501)} == set()
    assert all(answer.message for name, answer in answers.items() if not name.startswith("HEAD"))
    assert wired.docker.received == []


def test_request_arrives_in_pieces(wired: Wired) -> None:
    with wired.connect() as client:
        for byte in post(LENGTH):
            client.sendall(bytes([byte]))
        assert read_answer(client).status == 201


def test_slow_request_is_refused(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody keeps a connection by sending nothing."""
    monkeypatch.setattr(wire, "REQUEST_SECONDS", 0.05)
    with wired.connect() as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\n")
        assert read_answer(client).status == 400
    assert wired.docker.received == []


def test_what_is_sent_is_the_filters_own(wired: Wired) -> None:
    """Of the client's headers none passes, and of Docker's only those that clients read."""
    answer = wired.ask(
        "POST",
        "/v1.41/containers/create?name=etl",
        operator(),
        {"X-Evil": "1", "Cookie": "a", "User-Agent": "x"},
    )
    assert answer.status == 201
    assert "x-other" not in answer.headers
    # Before it, the filter itself has asked Docker who may make a container.
    [_, received] = wired.docker.received
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "POST /v1.41/containers/create?name=etl HTTP/1.1",
        "Host: docker",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    assert json.loads(body)["HostConfig"]["Memory"] == 1024 * 2**20


def test_refusal_is_told_to_the_task_the_log_and_prometheus(
    wired: Wired, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = wired.ask(
        "POST",
        "/containers/create",
        operator(Image="evil/x", Env=["SECRET=x"]),
        {"Airflow-Task": "knack/etl"},
    )
    assert answer.status == 403
    assert "evil/x" in answer.message
    assert "dag_container_images in the inventory" in answer.message
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {**line, "time": 0} == {
        **{"time": 0, "event": "refused", "dag": "knack", "task": "etl", "method": "POST"},
        **{"path": "/containers/create", "field": "Image", "status": 403, "message": answer.message},
    }
    page = wired.filter.metrics.page().decode()
    assert 'docker_policy_refusals_total{field="Image"} 1' in page.splitlines()


def test_log_takes_no_orders(wired: Wired, capsys: pytest.CaptureFixture[str]) -> None:
    """What a client invents stays within its line and its quotes, and makes no series of its own."""
    forged = 'x"}\u2028{"event": "passed'
    wired.ask("POST", "/containers/create", operator(**{forged: 1}), {"Airflow-Task": 'a"/b\x85'})
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "refused"
    assert line.isascii()
    assert 'field="other"' in wired.filter.metrics.page().decode()


def test_docker_that_is_away_is_said(wired: Wired) -> None:
    wired.path.with_name("docker.sock").unlink()
    answer = wired.ask("GET", "/info")
    assert answer.status == 503
    assert "Docker does not answer" in answer.message


def test_docker_that_ends_without_an_answer_is_said(wired: Wired) -> None:
    wired.docker.vanishes = True
    answer = wired.ask("GET", "/info")
    assert (answer.status, answer.message) == (503, "Docker ended the connection without an answer")


def test_too_many_connections_are_refused(wired: Wired) -> None:
    wired.filter._free = threading.BoundedSemaphore(1)
    with wired.connect() as waiting:
        waiting.sendall(b"GET /_ping")
        answer = wired.send(b"GET /_ping HTTP/1.1\r\n\r\n")
        assert (answer.status, answer.headers["content-type"]) == (503, "application/json")
        waiting.sendall(b" HTTP/1.1\r\n\r\n")
        assert read_answer(waiting).status == 200


POLICY = Policy(Settings(**LIMITS), lambda reference: IDENTITY)


class _Bytes(socket.socket):
    """A connection that has these bytes, and then ends."""

    def __init__(self, data: bytes) -> None:
        super().__init__(socket.AF_UNIX)
        self.data = data

    def recv(self, *arguments: Any) -> bytes:
        data, self.data = self.data, b""
        return data


PIECES = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"/_ping",
            b"/containers/create",
            b"/v1.41",
            b" HTTP/1.1",
            b"\r\n",
            b"\n",
            b"\r",
            b": ",
        ),
        *(
            b"Content-Length",
            b"Transfer-Encoding",
            b"chunked",
            b"0",
            b"5",
            b"{}",
            b"\r\n\r\n",
            b"Upgrade",
            b"tcp",
            b"?",
        ),
        *(b"name=a", b"&", b"%00", b"\xff", b" ", b"\0"),
    ]
)


@settings(deadline=None)
@given(data=st.lists(PIECES | st.binary(max_size=4), max_size=30).map(b"".join))
def test_whatever_the_bytes_there_is_one_request_or_a_refusal(data: bytes) -> None:
    with _Bytes(data) as connection:
        try:
            decision = POLICY.decide(wire.read_request(connection))
        except (RefusedError, wire.ClosedError):
            return
    sent = wire.write_request(decision.method, decision.target, decision.headers, decision.body)
    again = wire.parse_request_head(sent.partition(b"\r\n\r\n")[0])
    assert again.method == decision.method
    assert again.path == decision.path
