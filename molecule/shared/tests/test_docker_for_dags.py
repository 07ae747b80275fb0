"""What DAGs may ask of Docker, tried from inside the worker on the socket that they find there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from expected import PROJECT

# A container that is not there: what the filter allows answers 404 or 400, and changes nothing.
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
    ("GET", "/v1.41/images/atddocker/no-such-image/json"),
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
    ("GET", "/v1.41/images/no-such-image/json"),
    ("POST", "/v1.41/images/create?fromSrc=-&repo=airflow-platform/airflow&tag=1"),
    ("POST", "/v1.41/images/create?fromImage=127.0.0.1:5000/atddocker/x&tag=1"),
    ("POST", f"/v1.41/containers/{NOBODY}/attach/ws"),
    ("HEAD", f"/v1.41/containers/{NOBODY}/archive?path=/tmp"),
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

# Containers of the platform: nobody tells a DAG that they are there.
FOREIGN = [
    *(
        ("GET", f"/v1.41/containers/{PROJECT}-airflow-scheduler-1/{verb}")
        for verb in ("json", "logs?stdout=1")
    ),
    ("GET", f"/v1.41/containers/{PROJECT}-airflow-scheduler-1/archive?path=/etc"),
    *(
        ("POST", f"/v1.41/containers/{PROJECT}-weather-1/{verb}")
        for verb in ("attach", "stop", "kill", "wait")
    ),
    ("DELETE", f"/v1.41/containers/{PROJECT}-weather-1"),
]

# The whole request at once, and paths as they are: the filter may answer before it has read a body.
ASK = """
import json, socket, sys
statuses = []
for method, path in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect("/var/run/docker.sock")
        body = "no json" if path.endswith(("/create", "/auth")) else ""
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
    asked = ALLOWED + REFUSED + FOREIGN
    result = execute("airflow-worker", "python -c %s %s", ASK, json.dumps(asked))
    assert result.rc == 0, result.stderr
    return dict(zip(asked, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("request_", ALLOWED, ids=" ".join)
def test_dags_may_run_and_watch_containers(answers: Answers, request_: tuple[str, str]) -> None:
    """What DockerOperator asks is answered: 400 where a body is missing, 404 where the container is."""
    assert answers[request_] in (200, 400, 404)


@pytest.mark.parametrize("request_", REFUSED, ids=" ".join)
def test_dags_may_do_nothing_else(answers: Answers, request_: tuple[str, str]) -> None:
    """Entering running containers, changing images, reading volumes: none of it is a DAG's business."""
    assert answers[request_] == 403


@pytest.mark.parametrize("request_", FOREIGN, ids=" ".join)
def test_containers_of_the_platform_are_not_there(answers: Answers, request_: tuple[str, str]) -> None:
    """Their environments have the Fernet key, and their files the vault's token."""
    assert answers[request_] == 404


# By the Docker SDK in the worker, as a task would, with the image that every platform lets DAGs use.
TRY = """
import docker, json, os, sys
client = docker.APIClient(version="auto")
image = os.environ["AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE"]
answers = {}
for name, (fields, options) in json.loads(sys.argv[1]).items():
    config = {"Image": image, "HostConfig": options, **fields}
    try:
        container = client.create_container_from_config(config)
    except docker.errors.APIError as error:
        answers[name] = error.explanation
        continue
    answers[name] = client.inspect_container(container)
    assert [each["Id"] for each in client.containers(all=True)].count(container["Id"]) == 1
    assert {"true"} == {each["Labels"].get("airflow.dag-container") for each in client.containers(all=True)}
    client.remove_container(container)
print(json.dumps(answers))
"""
BIND = "/tmp/airflowtmp0123"
ATTACKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Image": ({"Image": "postgres"}, {}),
    "HostConfig.Privileged": ({}, {"Privileged": True}),
    "HostConfig.Binds": ({}, {"Binds": [f"{BIND}:/host"]}),
    "HostConfig.Mounts": ({}, {"Mounts": [{"Type": "bind", "Source": BIND, "Target": "/host"}]}),
    "HostConfig.Mounts[0].Source": (
        {},
        {"Mounts": [{"Type": "volume", "Source": f"{PROJECT}_postgres_data", "Target": "/data"}]},
    ),
    "HostConfig.NetworkMode": ({}, {"NetworkMode": f"{PROJECT}_database"}),
    "HostConfig.PidMode": ({}, {"PidMode": "host"}),
    "HostConfig.CapAdd": ({}, {"CapAdd": ["SYS_ADMIN"]}),
    "HostConfig.SecurityOpt": ({}, {"SecurityOpt": ["seccomp=unconfined"]}),
    "HostConfig.PortBindings": ({}, {"PortBindings": {"80/tcp": [{"HostPort": "8084"}]}}),
    "Privileged": ({"Privileged": True, "HostConfig": None}, {}),
}


@pytest.fixture(scope="module")
def tried(execute: Any) -> dict[str, Any]:
    """What came of each attack, and of a container without any."""
    result = execute("airflow-worker", "python -c %s %s", TRY, json.dumps({"none": ({}, {}), **ATTACKS}))
    assert result.rc == 0, result.stderr
    answers: dict[str, Any] = json.loads(result.stdout)
    return answers


def test_container_of_a_dag_is_limited(tried: dict[str, Any]) -> None:
    """It has the owner's label, may gain no privileges, and its log ends."""
    made = tried["none"]
    assert made["Config"]["Labels"]["airflow.dag-container"] == "true"
    assert made["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert made["HostConfig"]["NetworkMode"] == "bridge"
    assert set(made["HostConfig"]["LogConfig"]["Config"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("field", ATTACKS)
def test_container_that_would_take_the_host_is_refused(tried: dict[str, Any], field: str) -> None:
    """The message names the field, and goes into the task's log."""
    assert isinstance(tried[field], str), "it was created"
    assert tried[field].startswith(field)
    assert (BIND in tried[field]) == (BIND in json.dumps(ATTACKS[field]))


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
