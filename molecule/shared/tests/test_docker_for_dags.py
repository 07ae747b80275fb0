"""What DAGs may ask of Docker, tried from inside the worker on the socket that they find there."""

from __future__ import annotations

import json
from typing import Any

import pytest

# A container that is not there: what gets through the proxy answers 404 or 400, and changes nothing.
NOBODY = "no-such-container"
ALLOWED = [
    ("GET", "/_ping"),
    ("HEAD", "/_ping"),
    ("GET", "/version"),
    ("GET", "/info"),
    ("GET", "/v1.41/containers/json"),
    ("GET", f"/v1.41/containers/{NOBODY}/json"),
    ("GET", f"/v1.41/containers/{NOBODY}/logs?stdout=1"),
    ("GET", f"/v1.41/containers/{NOBODY}/archive?path=/tmp"),
    ("POST", "/v1.41/containers/create"),
    ("POST", f"/v1.41/containers/{NOBODY}/start"),
    ("POST", f"/v1.41/containers/{NOBODY}/wait"),
    ("POST", f"/v1.41/containers/{NOBODY}/attach?stream=1"),
    ("POST", f"/v1.41/containers/{NOBODY}/stop"),
    ("POST", f"/v1.41/containers/{NOBODY}/kill"),
    ("DELETE", f"/v1.41/containers/{NOBODY}"),
    ("POST", "/v1.41/auth"),
    ("GET", "/v1.41/images/json"),
    ("GET", "/v1.41/images/no-such-image/json"),
]
REFUSED = [
    ("POST", f"/containers/{NOBODY}/exec"),
    ("POST", f"/v1.41/containers/{NOBODY}/exec"),
    ("POST", "/v1.41/exec/none/start"),
    ("PUT", f"/v1.41/containers/{NOBODY}/archive?path=/"),
    ("POST", f"/v1.41/containers/{NOBODY}/update"),
    ("POST", f"/v1.41/containers/{NOBODY}/rename?name=other"),
    ("GET", f"/v1.41/containers/{NOBODY}/export"),
    ("POST", "/v1.41/containers/prune?filters=%7B%22label%22%3A%5B%22none%22%5D%7D"),
    ("POST", "/v1.41/commit?container=none"),
    ("POST", "/v1.41/build?remote=none"),
    ("DELETE", "/v1.41/images/no-such-image"),
    ("POST", "/v1.41/images/no-such-image/push"),
    ("GET", "/v1.41/volumes"),
    ("POST", "/v1.41/volumes/create"),
    ("DELETE", "/v1.41/volumes/none"),
    ("GET", "/v1.41/networks"),
    ("POST", f"/v1.41/networks/none/connect?container={NOBODY}"),
    ("GET", "/v1.41/secrets"),
    ("GET", "/v1.41/configs"),
    ("GET", "/v1.41/swarm"),
    ("GET", "/v1.41/services"),
    ("GET", "/v1.41/plugins"),
    ("GET", "/v1.41/system/df"),
    ("POST", "/info"),
    ("GET", "/infos"),
    ("GET", "/v1.41/info/more"),
    ("GET", "//v1.41/volumes"),
    ("GET", "/v1.41/../volumes"),
    ("GET", "/v1.41/containers/../volumes"),
    ("GET", "/v1.41/containers/%2e%2e/volumes"),
    ("GET", "/v1.41/_ping/../volumes"),
    ("GET", "/v1.41/volumes?/containers/json"),
]

# The whole request at once, and paths as they are: the proxy may answer before it has read a body.
ASK = """
import json, socket, sys
statuses = []
for method, path in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect("/var/run/docker.sock")
        body = "no json" if method in ("POST", "PUT") else ""
        lines = [f"{method} {path} HTTP/1.1", "Host: docker", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
        connection.sendall("\\r\\n".join(lines).encode())
        statuses.append(int(connection.makefile("rb").readline().split()[1]))
print(json.dumps(statuses))
"""

Answers = dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def answers(execute: Any) -> Answers:
    """The status of each request above, asked by one program in the worker."""
    result = execute("airflow-worker", "python -c %s %s", ASK, json.dumps(ALLOWED + REFUSED))
    assert result.rc == 0, result.stderr
    return dict(zip(ALLOWED + REFUSED, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("request_", ALLOWED, ids=" ".join)
def test_dags_may_run_and_watch_containers(answers: Answers, request_: tuple[str, str]) -> None:
    """DockerOperator works as on the raw socket: the answer is the engine's own, whatever it thinks of a
    body that is no JSON.
    """
    assert answers[request_] in (200, 400, 404, 500)


@pytest.mark.parametrize("request_", REFUSED, ids=" ".join)
def test_dags_may_do_nothing_else(answers: Answers, request_: tuple[str, str]) -> None:
    """Entering running containers, changing images, reading volumes: none of it is a DAG's business."""
    assert answers[request_] == 403


def test_engine_has_no_other_way_in(execute: Any) -> None:
    """The socket that the worker sees is the proxy's, not the engine's."""
    result = execute("airflow-worker", "readlink --canonicalize /var/run/docker.sock")
    assert result.stdout.strip() == "/run/docker-proxy/docker.sock"


@pytest.mark.parametrize(
    "service", ["airflow-webserver", "airflow-scheduler", "airflow-triggerer", "flower", "webhook"]
)
def test_only_the_worker_reaches_docker(execute: Any, service: str) -> None:
    """The scheduler and the triggerer parse DAGs, too, but run none of their tasks."""
    result = execute(service, "test -S /var/run/docker.sock")
    assert result.rc == 1
