"""`POST /containers/create`: what the city's DAGs ask passes, and no attack does."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from docker_policy.errors import RefusedError
from docker_policy.policy import Policy
from docker_policy.settings import OWNER_LABEL, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.docker_policy.attacks import (
    ATTACKS,
    CONTENT_TYPES,
    DOCUMENTS,
    IMAGE,
    QUERIES,
    bind,
    host,
    operator,
    volume,
)
from tests.docker_policy.bare_docker import OUTCOMES
from tests.docker_policy.conftest import IDENTITY, LIMITS, Create, request

TEMPORARY = "/tmp/airflowtmpx1y2z3"
# What the city's 195 operators ask for, each with what else they have there.
SHAPES: dict[str, list[Any]] = {
    "Image": [f"atddocker/etl:{tag}" for tag in ("production", "latest", "development")],
    "Cmd": ["python etl.py", ["python", "etl.py"], None],
    "Entrypoint": [None, ["/bin/sh", "-c"]],
    "NetworkMode": [None, "default", "bridge"],
    "Mounts": [None, [], [volume()]],
    "newer provider": [False, True],
}


@pytest.mark.parametrize("shape", list(itertools.product(*SHAPES.values())), ids=lambda shape: "")
def test_citys_shapes_pass_unchanged(create: Create, shape: tuple[Any, ...]) -> None:
    image, command, entrypoint, network, mounts, newer = shape
    asked = operator(Image=image, Cmd=command, Entrypoint=entrypoint)
    asked["HostConfig"] |= {"NetworkMode": network, "Mounts": mounts}
    if newer:  # providers 3.9 and 4
        asked["ExposedPorts"] = {}
        asked["Labels"] = None
        asked["HostConfig"] |= {"PortBindings": {}, "Ulimits": []}
    built = create(asked)
    assert built["Image"] == f"docker.io/{image}"
    assert built.get("Cmd") == ([command] if isinstance(command, str) else command)
    assert built.get("Entrypoint") == entrypoint
    assert built["Env"] == ["A=1"]
    assert built["Tty"] is True
    assert built["HostConfig"]["NetworkMode"] == "bridge"
    assert built["HostConfig"]["Mounts"] == (mounts or [])
    assert built["HostConfig"]["CpuShares"] == 1024


def test_every_container_is_limited_and_labelled(create: Create) -> None:
    built = create(operator(Labels={"team": "knack"}))
    # The second, because an image may have the label of the platform's own Compose project.
    assert built["Labels"] == {
        "team": "knack",
        OWNER_LABEL: "true",
        "com.docker.compose.project": "airflow-dags",
    }
    assert built["HostConfig"] == {
        "NetworkMode": "bridge",
        "CpuShares": 1024,
        "Mounts": [],
        "Memory": 1024 * 2**20,
        "MemorySwap": 1024 * 2**20,
        "CpuPeriod": 100_000,
        "CpuQuota": 200_000,
        "PidsLimit": 512,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}},
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "RestartPolicy": {"Name": "no"},
    }


@pytest.mark.parametrize("absent", [{}, {"HostConfig": None}])
def test_host_config_is_always_sent(create: Create, absent: dict[str, Any]) -> None:
    """Docker 26 would look for its fields at top level."""
    built = create({"Image": IMAGE, **absent})
    assert built["HostConfig"]["PidsLimit"] == 512


def test_no_new_privileges_can_be_switched_off() -> None:
    policy = Policy(Settings(**LIMITS, no_new_privileges=False), lambda reference: IDENTITY)
    built = json.loads(policy.decide(request("POST", "/containers/create", operator())).body)
    assert built["HostConfig"]["SecurityOpt"] == []


def test_containers_are_in_the_slice_of_the_inventory() -> None:
    """Its unit limits all of them together; which slice it is, no DAG may say."""
    policy = Policy(Settings(**LIMITS, cgroup_parent="airflow-dags.slice"), lambda reference: IDENTITY)
    built = json.loads(policy.decide(request("POST", "/containers/create", operator())).body)
    assert built["HostConfig"]["CgroupParent"] == "airflow-dags.slice"
    with pytest.raises(RefusedError, match=r"HostConfig\.CgroupParent"):
        policy.decide(request("POST", "/containers/create", host(CgroupParent="system.slice")))


def test_less_than_the_limit_may_be_asked_for(create: Create) -> None:
    log = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    built = create(host(Memory=64 * 2**20, ShmSize=2**20, LogConfig=log, AutoRemove=True))["HostConfig"]
    assert (built["Memory"], built["MemorySwap"], built["ShmSize"]) == (64 * 2**20, 64 * 2**20, 2**20)
    assert built["LogConfig"] == log
    assert built["AutoRemove"] is True


@pytest.mark.parametrize("name", ["Memory", "ShmSize"])
def test_no_more_than_the_limit_may_be_asked_for(create: Create, name: str) -> None:
    assert create(host(**{name: 2**30}))["HostConfig"][name] == 2**30
    with pytest.raises(RefusedError, match="dag_container_memory_mib"):
        create(host(**{name: 2**30 + 1}))


def test_volumes_of_the_sdk_become_mounts(create: Create) -> None:
    asked = host(Binds=["knack:/data:rw", "airflow_weather:/weather:ro"])
    built = create({**asked, "Volumes": {"/data": {}, "/weather/": {}}})
    assert built["HostConfig"]["Mounts"] == [
        volume(),
        volume(Source="airflow_weather", Target="/weather", ReadOnly=True),
    ]
    assert not {"Volumes", "Binds"} & (set(built) | set(built["HostConfig"]))


@pytest.mark.parametrize(
    "fields", [{"Binds": [f"{TEMPORARY}:/tmp/airflow:rw"]}, {"Mounts": [bind(TEMPORARY)]}]
)
def test_refused_bind_repeats_its_path(create: Create, fields: dict[str, Any]) -> None:
    """The operator looks for it in the message, and then does without its temporary directory."""
    with pytest.raises(RefusedError, match=TEMPORARY) as caught:
        create(host(**fields))
    assert caught.value.status == 403
    assert "dag_container_volumes" in str(caught.value)


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda name: f"{name}: Docker alone {OUTCOMES[f'create {name}']}"
)
def test_attack_is_refused(create: Create, attack: str) -> None:
    with pytest.raises(RefusedError) as caught:
        create(ATTACKS[attack])
    assert caught.value.status in (400, 403)
    assert caught.value.field
    if attack.startswith("HostConfig.") and attack.split()[0] != "HostConfig.PidMode":
        assert caught.value.field.startswith(attack.split()[0])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_refused(create: Create, name: str) -> None:
    text = DOCUMENTS[name]
    with pytest.raises(RefusedError) as caught:
        create(text if isinstance(text, bytes) else text.encode())
    assert caught.value.status in (400, 403)


@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_another_content_type_is_refused(policy: Policy, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    asked = request("POST", "/containers/create", None, headers)
    with pytest.raises(RefusedError, match="content-type"):
        policy.decide(asked)


@pytest.mark.parametrize("query", QUERIES)
def test_query_of_create_is_refused(policy: Policy, query: str) -> None:
    with pytest.raises(RefusedError):
        policy.decide(request("POST", f"/containers/create?{query}", operator()))


def test_name_is_passed_on(policy: Policy) -> None:
    decision = policy.decide(request("POST", "/v1.41/containers/create?name=etl_1.x", operator()))
    assert decision.target == "/v1.41/containers/create?name=etl_1.x"


POLICY = Policy(Settings(**LIMITS), lambda reference: IDENTITY)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=8), each, max_size=3),
    max_leaves=12,
)
TOP = (
    "Image",
    "Cmd",
    "Env",
    "User",
    "WorkingDir",
    "Labels",
    "Volumes",
    "HostConfig",
    "Privileged",
    "hostConfig",
)
WITHIN = ("NetworkMode", "Binds", "Mounts", "Memory", "LogConfig", "Privileged", "PidMode", "CapAdd", "binds")
DOCUMENT = st.dictionaries(
    st.sampled_from(TOP) | st.text(max_size=10),
    JSON | st.dictionaries(st.sampled_from(WITHIN) | st.text(max_size=6), JSON, max_size=4),
    max_size=5,
).map(lambda fields: {"Image": IMAGE, **fields})
FIELDS = {
    *("Image", "Cmd", "Entrypoint", "Env", "Tty", "User", "WorkingDir", "Hostname", "Labels", "AttachStdout"),
    *(
        "AttachStderr",
        "OpenStdin",
        "StdinOnce",
        "AttachStdin",
        "NetworkDisabled",
        "ExposedPorts",
        "HostConfig",
    ),
}
HOST_FIELDS = {
    *(
        "NetworkMode",
        "CpuShares",
        "Memory",
        "MemorySwap",
        "ShmSize",
        "LogConfig",
        "Mounts",
        "AutoRemove",
        "Ulimits",
    ),
    *("PortBindings", "CpuPeriod", "CpuQuota", "PidsLimit", "SecurityOpt", "Privileged", "RestartPolicy"),
}


@settings(deadline=None)
@given(document=DOCUMENT)
def test_whatever_is_asked_what_is_sent_is_harmless(document: dict[str, Any]) -> None:
    """Either a refusal, or a document of known fields with the limits in it."""
    try:
        decision = POLICY.decide(request("POST", "/containers/create", json.dumps(document).encode()))
    except RefusedError:
        return
    built = json.loads(decision.body)
    config = built["HostConfig"]
    assert set(built) <= FIELDS
    assert set(config) <= HOST_FIELDS
    assert built["Labels"][OWNER_LABEL] == "true"
    assert config["Privileged"] is False
    assert config["NetworkMode"] in ("bridge", "none")
    assert 0 < config["Memory"] <= 1024 * 2**20
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert all(
        mount["Type"] == "volume" and mount["Source"] in LIMITS["volumes"] for mount in config["Mounts"]
    )


@settings(deadline=None)
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_the_bytes_nothing_else_is_raised(body: bytes) -> None:
    with pytest.raises(RefusedError):
        POLICY.decide(request("POST", "/containers/create", body))
