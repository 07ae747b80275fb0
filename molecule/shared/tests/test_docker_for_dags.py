"""What DAGs may ask of Docker, tried from inside the worker on the socket that they find there.

The attacks are those of the filter's own tests; here Docker itself is behind it.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from expected import DIRECTORY, ENDPOINTS, PROJECT
from testinfra.host import Host

from tests.docker_policy import bare_docker
from tests.docker_policy.attacks import EVIL, FOREIGN_FILTERS, IMAGE, listed_by, on_the_wire

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
# Containers of the platform: nobody tells a DAG that they are there.
FOREIGN = [
    ("airflow-scheduler", "GET", "json"),
    ("airflow-scheduler", "GET", "logs?stdout=1"),
    ("airflow-scheduler", "GET", "archive?path=/etc"),
    *(("weather", "POST", verb) for verb in ("attach", "start", "stop", "kill", "wait", "resize?h=1&w=1")),
    ("weather", "DELETE", ""),
]
BY = ("name", "id", "beginning of the id")

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

Containers = dict[str, dict[str, Any]]


def ask(execute: Any, requests: list[tuple[str, str]]) -> list[int]:
    """Return the status of each request, all asked by one program in the worker."""
    result = execute("airflow-worker", "python -c %s %s", ASK, json.dumps(requests))
    assert result.rc == 0, result.stderr
    statuses: list[int] = json.loads(result.stdout)
    return statuses


@pytest.fixture(scope="module")
def allowed(execute: Any) -> dict[tuple[str, str], int]:
    """What came of the requests that DAGs may make."""
    return dict(zip(ALLOWED, ask(execute, ALLOWED), strict=True))


@pytest.mark.parametrize("request_", ALLOWED, ids=" ".join)
def test_dags_may_run_and_watch_containers(
    allowed: dict[tuple[str, str], int], request_: tuple[str, str]
) -> None:
    """What DockerOperator asks is answered: 400 where a body is missing, 404 where the container is."""
    assert allowed[request_] in (200, 400, 404)


@pytest.fixture(scope="module")
def foreign(execute: Any, containers: Containers) -> dict[tuple[str, str, str, str], int]:
    """What came of the requests for containers of the platform, under each of their names."""
    paths = {}
    for service, method, verb in FOREIGN:
        identity = containers[service]["Id"]
        for by, name in zip(BY, (f"{PROJECT}-{service}-1", identity, identity[:12]), strict=True):
            paths[by, service, method, verb] = (method, f"/v1.41/containers/{name}/{verb}".rstrip("/"))
    return dict(zip(paths, ask(execute, list(paths.values())), strict=True))


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize(("service", "method", "verb"), FOREIGN)
def test_containers_of_the_platform_are_not_there(
    foreign: dict[tuple[str, str, str, str], int], by: str, service: str, method: str, verb: str
) -> None:
    """Their environments have the Fernet key, and their files the vault's token."""
    assert foreign[by, service, method, verb] == 404


# Bytes as they are, since an attack need not be a request. What is answered is read to its end.
ATTACK = """
import base64, contextlib, json, socket, sys, zlib
answers = []
for text in json.loads(zlib.decompress(base64.b64decode(sys.argv[1]))):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect("/var/run/docker.sock")
        answer = b""
        # The filter may close the connection before it has read all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(text.encode("latin-1"))
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
    head, _, body = answer.partition(b"\\r\\n\\r\\n")
    answers.append([int(head.split()[1]), body.decode()])
print(json.dumps(answers))
"""
ATTACKS = list(on_the_wire())


def packed(requests: list[bytes]) -> str:
    """Return requests as an argument of the programs above and below."""
    return base64.b64encode(
        zlib.compress(json.dumps([each.decode("latin-1") for each in requests]).encode())
    ).decode()


@pytest.fixture(scope="module")
def annotate_image(containers: Containers) -> str:
    """The image that every platform lets DAGs use."""
    [image] = [
        variable.partition("=")[2]
        for variable in containers["airflow-worker"]["Config"]["Env"]
        if variable.startswith("AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE=")
    ]
    return str(image)


@pytest.fixture(scope="module")
def attacked(execute: Any, host: Host, annotate_image: str) -> dict[str, tuple[int, str]]:
    """What came of each attack, with the image and the volume that every platform lets DAGs use."""
    sent = list(on_the_wire(annotate_image, f"{PROJECT}_weather").values())
    answers: list[list[Any]] = []
    # A few at a time: all of them may take a busy machine longer than a command may.
    for first in range(0, len(sent), 100):
        result = execute("airflow-worker", "python -c %s %s", ATTACK, packed(sent[first : first + 100]))
        assert result.rc == 0, result.stderr
        answers += json.loads(result.stdout)
    # What should not have been created must not stay.
    made = "docker ps --all --quiet --filter label=airflow.dag-container --filter status=created"
    host.check_output(f"{made} | xargs --no-run-if-empty docker rm")
    return dict(zip(ATTACKS, map(tuple, answers), strict=True))


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda name: f"{name}: Docker alone {bare_docker.OUTCOMES[name]}"
)
def test_attack_is_refused(attacked: dict[str, tuple[int, str]], attack: str) -> None:
    """As a task with full control would try it: by fields, by what two readers read in two ways, by HTTP."""
    status, body = attacked[attack]
    assert status in (400, 403, 413, 501)
    assert json.loads(body)["message"]


# Runs on the host, and asks Docker itself. What it creates is never started, and is removed at once.
ALONE = """
import base64, contextlib, http.client, json, socket, sys, zlib

def ask(data):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect("/var/run/docker.sock")
        # Docker may close the connection before it has read all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        answer = http.client.HTTPResponse(connection, method=data.partition(b" ")[0].decode("latin-1"))
        try:
            answer.begin()
            return answer.status, answer.read()
        except (ConnectionError, http.client.HTTPException):
            return 400, b""

outcomes = []
for text in json.loads(zlib.decompress(base64.b64decode(sys.argv[1]))):
    status, body = ask(text.encode("latin-1"))
    kind = {2: "does it", 3: "redirects it"}.get(status // 100, "refuses it")
    if status == 201:
        kind = "creates it"
        path = "/v1.41/containers/" + json.loads(body)["Id"] + "?v=1&force=1"
        removed, message = ask(f"DELETE {path} HTTP/1.1\\r\\nHost: docker\\r\\n\\r\\n".encode())
        assert removed == 204, message
    outcomes.append(kind)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def alone(host: Host, annotate_image: str) -> dict[str, str]:
    """What the host's own Docker does with each attack that does no harm there."""
    attacks = on_the_wire(volume=f"{PROJECT}_weather")
    sent = [attacks[name] for name in bare_docker.SENT]
    outcomes: list[str] = []
    host.check_output("docker tag %s %s", annotate_image, IMAGE)
    try:
        for first in range(0, len(sent), 50):
            program = "timeout 120 python3 -c %s %s"
            outcomes += json.loads(host.check_output(program, ALONE, packed(sent[first : first + 50])))
    finally:
        host.check_output("docker rmi --force %s", IMAGE)
    return dict(zip(bare_docker.SENT, outcomes, strict=True))


def test_docker_alone_lets_the_host_be_taken(alone: dict[str, str]) -> None:
    """The attacks are real: without the filter these get what they ask for, in every version of Docker."""
    names = ("Privileged", "Binds /:/host", "Binds /var/run/docker.sock:/s", "PidMode", "NetworkMode host")
    assert {alone[f"create HostConfig.{name}"] for name in names} == {bare_docker.CREATES}


def test_what_docker_alone_does_is_stated(alone: dict[str, str], host: Host) -> None:
    """The column beside the attacks is true."""
    version = host.check_output("docker version --format %s", "{{.Server.Version}}").strip()
    if not version.startswith(f"{bare_docker.VERSION}."):
        pytest.skip(f"the column is that of Docker {bare_docker.VERSION}, and this is {version}")
    differing = {
        name: f"{did}, and not: {bare_docker.OUTCOMES[name]}"
        for name, did in alone.items()
        if did != bare_docker.OUTCOMES[name]
    }
    assert differing == {}


@pytest.mark.parametrize("filters", FOREIGN_FILTERS, ids=json.dumps)
def test_no_filter_lists_containers_of_others(execute: Any, filters: dict[str, list[str]]) -> None:
    """A list by filters of one's own has nothing but containers of DAGs."""
    result = execute("airflow-worker", "python -c %s %s", ATTACK, packed([listed_by(filters)]))
    assert result.rc == 0, result.stderr
    [[status, body]] = json.loads(result.stdout)
    assert status == 200
    assert {each["Labels"].get("airflow.dag-container") for each in json.loads(body)} <= {"true"}


# Asks for a stream by hand, and then sends bytes that are another request. Where there is a stream, the
# container is started then. Prints the status, and all that followed the head.
STREAM = """
import base64, contextlib, docker, json, socket, sys
identity, evil = sys.argv[1], base64.b64decode(sys.argv[2])
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(30)
    connection.connect("/var/run/docker.sock")
    line = f"POST /v1.41/containers/{identity}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1"
    lines = [line, "Host: x", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0", "", ""]
    connection.sendall("\\r\\n".join(lines).encode())
    before = b""
    while b"\\r\\n\\r\\n" not in before:
        before += connection.recv(1) or sys.exit("the connection ended within the head")
    status = int(before.split()[1])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(evil)
    if status == 101:
        docker.APIClient(version="auto").start(identity)
    after = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            after += data
print(json.dumps([status, after.decode("latin-1")]))
"""
MAKE = """
import docker, os, sys
client = docker.APIClient(version="auto")
image = os.environ["AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE"]
print(client.create_container(image, [sys.argv[1]], entrypoint=["python3", "-c"])["Id"])
"""


@pytest.fixture
def make(execute: Any, host: Host) -> Iterator[Any]:
    """Return a function that creates a container through the filter, which runs a program of Python."""
    made = []

    def run(program: str) -> str:
        result = execute("airflow-worker", "python -c %s %s", MAKE, program)
        assert result.rc == 0, result.stderr
        made.append(result.stdout.strip())
        return str(made[-1])

    yield run
    for identity in made:
        host.check_output("docker rm --force --volumes %s", identity)


def stream(execute: Any, identity: str) -> tuple[int, str]:
    """Attach to a container, send an attack into it, and return the status and all that followed its head."""
    evil = base64.b64encode(EVIL).decode()
    result = execute("airflow-worker", "python -c %s %s %s", STREAM, identity, evil)
    assert result.rc == 0, result.stderr
    status, after = json.loads(result.stdout)
    return status, after


def test_bytes_in_a_stream_are_no_request(execute: Any, make: Any) -> None:
    """After a 101 the connection gives what the container prints, to its end, and nothing else."""
    status, after = stream(execute, make("print('one')"))
    assert status == 101
    # Its one frame: standard output, four bytes.
    assert after == "\x01\0\0\0\0\0\0\x04one\n"


def test_failed_attach_becomes_no_tunnel(execute: Any, make: Any, host: Host) -> None:
    """Docker refuses to attach to a container that is paused; the bytes that follow get no answer."""
    identity = make("import time; time.sleep(60)")
    host.check_output("docker start %s", identity)
    host.check_output("docker pause %s", identity)
    try:
        status, after = stream(execute, identity)
    finally:
        host.check_output("docker unpause %s", identity)
    assert status == 409
    assert "HTTP/1." not in after
    assert "paused" in after


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
TRIED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Image": ({"Image": "postgres"}, {}),
    "HostConfig.Privileged": ({}, {"Privileged": True}),
    "HostConfig.Binds": ({}, {"Binds": [f"{BIND}:/host"]}),
    "HostConfig.Mounts": ({}, {"Mounts": [{"Type": "bind", "Source": BIND, "Target": "/host"}]}),
    "HostConfig.Mounts[0].Source": (
        {},
        {"Mounts": [{"Type": "volume", "Source": f"{PROJECT}_postgres_data", "Target": "/data"}]},
    ),
    "HostConfig.NetworkMode": ({}, {"NetworkMode": f"{PROJECT}_database"}),
    "Privileged": ({"Privileged": True, "HostConfig": None}, {}),
}


@pytest.fixture(scope="module")
def tried(execute: Any) -> dict[str, Any]:
    """What the Docker SDK says of each, and of a container that asks for nothing special."""
    result = execute("airflow-worker", "python -c %s %s", TRY, json.dumps({"none": ({}, {}), **TRIED}))
    assert result.rc == 0, result.stderr
    answers: dict[str, Any] = json.loads(result.stdout)
    return answers


def test_container_of_a_dag_is_limited(tried: dict[str, Any], host: Host) -> None:
    """It has the owner's label, may gain no privileges, and its log ends."""
    made = tried["none"]
    assert made["Config"]["Labels"]["airflow.dag-container"] == "true"
    assert made["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert made["HostConfig"]["NetworkMode"] == "bridge"
    assert made["HostConfig"]["Memory"] > 0
    # Docker says -1 on a kernel that does not account for swap.
    assert made["HostConfig"]["MemorySwap"] in (made["HostConfig"]["Memory"], -1)
    assert made["HostConfig"]["CpuQuota"] > 0
    filter_ = json.loads(host.file(f"{DIRECTORY}/docker-socket-proxy/policy.json").content_string)
    assert made["HostConfig"]["PidsLimit"] == filter_["pids"]
    assert not made["HostConfig"]["Privileged"]
    assert set(made["HostConfig"]["LogConfig"]["Config"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("field", TRIED)
def test_container_that_would_take_the_host_is_refused(tried: dict[str, Any], field: str) -> None:
    """The message names the field, and goes into the task's log."""
    assert isinstance(tried[field], str), "it was created"
    assert tried[field].startswith(field)
    assert (BIND in tried[field]) == (BIND in json.dumps(TRIED[field]))


def test_refusals_are_counted_and_in_the_log(
    tried: dict[str, Any], containers: Containers, execute: Any, host: Host
) -> None:
    """So that somebody sees what a DAG tries, and which setting is missing."""
    assert "HostConfig.Privileged" in tried
    result = execute("docker-socket-proxy", "python3 -m docker_policy metrics")
    counter = 'docker_policy_refusals_total{field="HostConfig.Privileged"} '
    [count] = [line for line in result.stdout.splitlines() if line.startswith(counter)]
    assert int(count.removeprefix(counter)) >= 1
    log = host.check_output(f"docker logs --tail 5000 {containers['docker-socket-proxy']['Id']} 2>&1")
    refused = [json.loads(line) for line in log.splitlines() if '"event": "refused"' in line]
    assert "HostConfig.Privileged" in {line.get("field") for line in refused}


# Runs in a DAG's container, and tries addresses side by side. What refuses a connection was reached, too; the
# host itself does so on a port that nobody has.
KNOCK = """
import concurrent.futures, json, socket, struct, sys

def knock(target):
    address, port = target.split(":")
    with socket.socket() as connection:
        connection.settimeout(5)
        return connection.connect_ex((address, int(port)))

[route] = [fields for fields in map(str.split, open("/proc/net/route")) if fields[1] == "00000000"]
host = socket.inet_ntoa(struct.pack("<L", int(route[2], 16))) + ":1"
targets = [host, *sys.argv[1:]]
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    codes = list(pool.map(knock, targets))
print(json.dumps([code in (0, 111) for code in codes]))
"""
RUN = """
import docker, json, os, sys
client = docker.APIClient(version="auto")
program, *targets = json.loads(sys.argv[1])
image = os.environ["AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE"]
container = client.create_container(image, [program, *targets], entrypoint=["python3", "-c"])
try:
    client.start(container)
    client.wait(container, timeout=40)
    print(client.logs(container).decode())
finally:
    client.remove_container(container, force=True)
"""
NOT_FOR_DAGS = {"airflow-webserver": 8080, "flower": 5555, "postgres": 5432, "redis": 6379, "webhook": 8080}


def test_container_of_a_dag_reaches_no_service(execute: Any, containers: Containers) -> None:
    """Docker keeps its networks apart: not even who knows a service's address gets there."""
    targets = [
        f"{network['IPAddress']}:{port}"
        for service, port in NOT_FOR_DAGS.items()
        for network in containers[service]["NetworkSettings"]["Networks"].values()
    ]
    result = execute("airflow-worker", "python -c %s %s", RUN, json.dumps([KNOCK, *targets]))
    assert result.rc == 0, result.stderr
    of_the_host, *of_services = json.loads(result.stdout)
    assert of_the_host, "the container has no network at all"
    reached = [target for target, is_reached in zip(targets, of_services, strict=True) if is_reached]
    assert reached == []


@pytest.fixture(scope="module")
def addresses(host: Host) -> list[str]:
    """The host's addresses, that on Docker's own bridge among them."""
    text = host.check_output("ip -4 -oneline address show scope global")
    assert " docker0 " in text
    return re.findall(r" inet ([\d.]+)", text)


def test_container_of_a_dag_reaches_no_published_port(execute: Any, addresses: list[str]) -> None:
    """By no address of the host. It does reach the host: a port that nobody has refuses the connection."""
    others = [f"{address}:1" for address in addresses]
    published = [f"{address}:{port}" for address in addresses for port in ENDPOINTS.values()]
    result = execute("airflow-worker", "python -c %s %s", RUN, json.dumps([KNOCK, *others, *published]))
    assert result.rc == 0, result.stderr
    reached = json.loads(result.stdout)[1:]
    found = [each for each, is_reached in zip([*others, *published], reached, strict=True) if is_reached]
    assert found == others


def test_rules_are_loaded_whenever_docker_starts(host: Host) -> None:
    """Also after somebody has removed them; a second time changes nothing."""
    rules = "nft --stateless list table inet airflow_dags"
    before = host.check_output(rules)
    assert 'iifname "docker0"' in before
    wants = host.check_output("systemctl show --property=Wants --value docker.service")
    assert "airflow-firewall.service" in wants.split()
    host.check_output("nft delete table inet airflow_dags")
    for _ in range(2):
        host.check_output("systemctl start airflow-firewall.service")
        assert host.check_output(rules) == before


def test_containers_of_dags_are_limited_together(tried: dict[str, Any], host: Host) -> None:
    """Where systemd makes Docker's cgroups; elsewhere its slice would limit nothing."""
    driver = host.check_output("docker info --format %s", "{{.CgroupDriver}} {{.CgroupVersion}}").strip()
    parent = "airflow-dags.slice" if driver == "systemd 2" else ""
    assert tried["none"]["HostConfig"]["CgroupParent"] == parent
    names = ("MemoryMax", "CPUQuotaPerSecUSec", "TasksMax")
    shown = host.check_output(f"systemctl show --property={','.join(names)} airflow-dags.slice")
    limits = dict(line.split("=", 1) for line in shown.splitlines())
    assert set(limits) == set(names)
    assert "infinity" not in limits.values()


def test_engine_has_no_other_way_in(execute: Any) -> None:
    """The socket that the worker sees is the proxy's, not Docker's."""
    result = execute("airflow-worker", "readlink --canonicalize /var/run/docker.sock")
    assert result.stdout.strip() == "/run/docker-proxy/docker.sock"


@pytest.mark.parametrize(
    "service", ["airflow-webserver", "airflow-scheduler", "airflow-triggerer", "flower", "webhook"]
)
def test_only_the_worker_reaches_docker(execute: Any, service: str) -> None:
    """The scheduler and the triggerer parse DAGs, too, but run none of their tasks."""
    result = execute(service, "test -S /var/run/docker.sock")
    assert result.rc == 1
