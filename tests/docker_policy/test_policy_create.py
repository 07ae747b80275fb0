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

from tests.docker_policy.conftest import IDENTITY, LIMITS, Create, request

IMAGE = "atddocker/etl:production"
TEMPORARY = "/tmp/airflowtmpx1y2z3"
HOST_CONFIG = {
    "NetworkMode": "default",
    "CpuShares": 1024,
    "LogConfig": {"Type": None, "Config": {}},
    "Mounts": [],
}


def operator(**fields: Any) -> dict[str, Any]:
    """Return what a DockerOperator sends, with other fields at top level."""
    document: dict[str, Any] = {
        **{"Tty": True, "OpenStdin": False, "StdinOnce": False, "AttachStdin": False},
        **{"AttachStdout": True, "AttachStderr": True, "NetworkDisabled": False, "Image": IMAGE},
        **{"Env": ["A=1"], "Cmd": ["python", "etl.py"], "HostConfig": dict(HOST_CONFIG)},
    }
    return {**document, **fields}


def host(**fields: Any) -> dict[str, Any]:
    """Return what a DockerOperator sends, with other fields of HostConfig."""
    return operator(HostConfig={**HOST_CONFIG, **fields})


def volume(**fields: Any) -> dict[str, Any]:
    """Return a mount of a listed volume."""
    return {"Type": "volume", "Source": "knack", "Target": "/data", "ReadOnly": False, **fields}


def bind(source: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": "/tmp/airflow", "ReadOnly": False}


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


def test_less_than_the_limit_may_be_asked_for(create: Create) -> None:
    log = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    built = create(host(Memory=64 * 2**20, ShmSize=2**20, LogConfig=log, AutoRemove=True))["HostConfig"]
    assert (built["Memory"], built["MemorySwap"], built["ShmSize"]) == (64 * 2**20, 64 * 2**20, 2**20)
    assert built["LogConfig"] == log
    assert built["AutoRemove"] is True


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


DRIVER = {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}
ATTACKS: dict[str, dict[str, Any]] = {
    # The host.
    **{
        f"HostConfig.{name}": host(**{name: value})
        for name, value in {
            "Privileged": True,
            "Devices": [
                {"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}
            ],
            "DeviceCgroupRules": ["a *:* rwm"],
            "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/device=all"]}],
            "CapAdd": ["ALL"],
            "SecurityOpt": ["seccomp=unconfined"],
            "MaskedPaths": [],
            "ReadonlyPaths": [],
            "Sysctls": {"kernel.core_pattern": "|/x"},
            "CgroupParent": "/",
            "Runtime": "runc",
            "Annotations": {"a": "b"},
            "OomScoreAdj": -1000,
            "OomKillDisable": True,
            "PidsLimit": -1,
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}],
            "RestartPolicy": {"Name": "always"},
            "GroupAdd": ["999"],
            "StorageOpt": {"size": "1T"},
            "NanoCpus": 10**12,
            "CpuQuota": -1,
            "MemorySwap": -1,
            "MemoryReservation": 1,
            "CpusetCpus": "0",
            "Init": True,
            "Isolation": "process",
            "ContainerIDFile": "/root/x",
            "ReadonlyRootfs": True,
            # Volumes.
            "VolumesFrom": ["airflow-postgres-1"],
            "VolumeDriver": "local",
            "Tmpfs": {"/proc": ""},
            # Namespaces and network.
            "PidMode": "host",
            "IpcMode": "host",
            "UTSMode": "host",
            "UsernsMode": "host",
            "CgroupnsMode": "host",
            "Links": ["airflow-postgres-1:db"],
            "ExtraHosts": ["db:127.0.0.1"],
            "Dns": ["127.0.0.1"],
            "DnsOptions": ["x"],
            "DnsSearch": ["x"],
            "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
            "PublishAllPorts": True,
        }.items()
    },
    **{
        f"HostConfig.SecurityOpt {option}": host(SecurityOpt=[option])
        for option in ("apparmor=unconfined", "label=disable", "systempaths=unconfined", "no-new-privileges")
    },
    **{
        f"HostConfig.{name} of a container": host(**{name: "container:airflow-postgres-1"})
        for name in ("PidMode", "IpcMode", "UTSMode", "CgroupnsMode", "UsernsMode", "NetworkMode")
    },
    **{
        f"HostConfig.NetworkMode {mode}": host(NetworkMode=mode)
        for mode in ("host", "airflow_database", "ns:/proc/1/ns/net", "Bridge", "slirp4netns", "bridge ")
    },
    **{
        f"HostConfig.Binds {each}": host(Binds=[each])
        for each in (
            *(
                "/:/host",
                "/var/run/docker.sock:/s",
                "./x:/x",
                "~:/x",
                "airflow_postgres_data:/x",
                ":/x",
                "/x",
            ),
            *(
                "knack",
                "knack:/",
                "knack:/x/../proc",
                "knack:/proc",
                "knack:x",
                "knack:/x:z",
                "knack:/x:rw:ro",
            ),
        )
    },
    **{
        f"HostConfig.Mounts {name}": host(Mounts=[mount])
        for name, mount in {
            "bind": bind("/"),
            "socket": bind("/var/run/docker.sock"),
            "bind in another case": {**bind("/"), "Type": "Bind"},
            "anonymous": {"Type": "volume", "Target": "/x"},
            "without a type": {"Source": "knack", "Target": "/x"},
            "another volume": volume(Source="airflow_postgres_data"),
            "a path for a volume": volume(Source="/"),
            "a volume in another case": volume(Source="Knack"),
            "driver": volume(VolumeOptions={"DriverConfig": DRIVER}),
            "driver, anonymous": volume(Source="", VolumeOptions={"DriverConfig": DRIVER}),
            "block device": volume(
                VolumeOptions={"DriverConfig": {"Options": {"device": "/dev/sda", "type": "ext4"}}}
            ),
            "labels": volume(VolumeOptions={"Labels": {"a": "b"}}),
            "subpath": volume(VolumeOptions={"Subpath": "../x"}),
            "bind options": volume(BindOptions={"Propagation": "rshared"}),
            "tmpfs": {"Type": "tmpfs", "Target": "/proc"},
            "tmpfs options": volume(TmpfsOptions={"SizeBytes": 1}),
            "image": {"Type": "image", "Source": "airflow", "Target": "/x"},
            "cluster": {"Type": "cluster", "Source": "knack", "Target": "/x"},
            "npipe": {"Type": "npipe", "Source": "knack", "Target": "/x"},
            "consistency": volume(Consistency="cached"),
            **{
                f"target {target}": volume(Target=target)
                for target in (
                    *("/", "//", "", "x", "/proc", "/proc/", "/proc/sys", "/sys", "/dev", "/dev/shm"),
                    *("/x/../proc", "/./proc", "//proc", "/x/..", "/x//y", "/x\0y", "..", "/.."),
                )
            },
        }.items()
    },
    "HostConfig.LogConfig syslog": host(
        LogConfig={"Type": "syslog", "Config": {"syslog-address": "tcp://127.0.0.1:5432"}}
    ),
    "HostConfig.LogConfig fluentd": host(
        LogConfig={"Type": "fluentd", "Config": {"fluentd-address": "127.0.0.1:6379"}}
    ),
    **{
        f"HostConfig.LogConfig {name}": host(LogConfig={"Type": "json-file", "Config": config})
        for name, config in {
            "unlimited": {"max-size": "-1"},
            "nothing": {"max-size": "0"},
            "larger": {"max-size": "11m"},
            "more": {"max-file": "6"},
            "tag": {"tag": "{{.Name}}"},
            "a number": {"max-file": 2},
        }.items()
    },
    "HostConfig.Memory more": host(Memory=1024 * 2**20 + 1),
    "HostConfig.Memory less than Docker takes": host(Memory=1),
    "HostConfig.Memory without a limit": host(Memory=-1),
    "HostConfig.ShmSize more": host(ShmSize=2**40),
    "HostConfig.CpuShares more": host(CpuShares=10**6),
    # Top level.
    "Volumes": operator(Volumes={"/data": {}}),
    "Volumes with something in them": operator(Volumes={"/data": {"a": 1}}),
    "NetworkingConfig": operator(NetworkingConfig={"EndpointsConfig": {"airflow_database": {}}}),
    "MacAddress": operator(MacAddress="02:42:ac:11:00:02"),
    "ExposedPorts": operator(ExposedPorts={"80/tcp": {}}),
    "Healthcheck": operator(Healthcheck={"Test": ["CMD", "x"]}),
    "Domainname": operator(Domainname="x"),
    "StopSignal": operator(StopSignal="SIGKILL"),
    "Shell": operator(Shell=["x"]),
    "OnBuild": operator(OnBuild=["x"]),
    "Platform": operator(Platform="linux/arm64"),
    "OpenStdin": operator(OpenStdin=True),
    "StdinOnce": operator(StdinOnce=True),
    "AttachStdin": operator(AttachStdin=True),
    "NetworkDisabled": operator(NetworkDisabled=True),
    "Labels of Compose": operator(Labels={"com.docker.compose.project": "airflow"}),
    "Labels of the owner": operator(Labels={OWNER_LABEL: "true"}),
    **{
        f"WorkingDir {place}": operator(WorkingDir=place)
        for place in (
            "/proc/self/fd/8",
            "/proc",
            "/dev/fd/8",
            "/sys",
            "x",
            "../x",
            "/x/../proc/self/fd/8",
            "//proc",
        )
    },
    "User": operator(User="0:0:0"),
    "User with a line": operator(User="a\nb"),
    "Hostname": operator(Hostname="a b"),
    # Images.
    **{
        f"Image {image}": operator(Image=image)
        for image in (
            *(
                "alpine",
                "atddocker/a/b:1",
                "atddocker",
                "airflow-platform/airflow:1",
                "127.0.0.1:5000/atddocker/x",
            ),
            *(
                "evil.example/atddocker/x",
                "ghcr.io/city/etl:latest",
                "ghcr.io/city/etl",
                "localhost/atddocker/x",
            ),
            *(
                "sha256:" + "0" * 64,
                "0" * 64,
                "beef",
                "atddocker/x@sha256:1",
                "atddocker/x:a:b",
                "ATDDOCKER/x",
            ),
            *("", "atddocker/", "atddocker/../x", "atddocker/x:", "atddocker/x y", "https://atddocker/x"),
            "ghcr.io/city/etl:production@sha256:" + "0" * 64,
        )
    },
    # Fields of HostConfig where Docker 26 looks for them, too.
    "HostConfig absent": {"Image": IMAGE, "Privileged": True},
    "HostConfig null": {"Image": IMAGE, "Privileged": True, "HostConfig": None},
    "HostConfig null, with binds": {"Image": IMAGE, "Binds": ["knack:/x"], "HostConfig": None},
    # Keys in another case, and with letters that Go takes for others.
    "lower case": {**operator(), "hostconfig": {"Privileged": True}},
    "lower case within": host(privileged=True),
    "long s": {**operator(), "Ho\u017ftConfig": {"Privileged": True}},
    "Kelvin": host(**{"Net\u212aorkMode": "host"}),
    "null in another case": {**operator(), "hostconfig": None},
    # Types.
    "no image": {"HostConfig": {}},
    **{
        f"type of {name} {value!r}": operator(**{name: value})
        for name, value in [
            *(("Image", 1), ("Image", ["x"]), ("Cmd", {"a": 1}), ("Cmd", [1]), ("Cmd", True), ("Env", "A=1")),
            *(
                ("Env", {"A": "1"}),
                ("Env", [None]),
                ("Tty", 1),
                ("Tty", "true"),
                ("User", 0),
                ("Labels", ["a"]),
            ),
            *(
                ("Labels", {"a": 1}),
                ("HostConfig", []),
                ("HostConfig", "x"),
                ("WorkingDir", 0),
                ("WorkingDir", []),
            ),
            *(
                ("Env", ["A=\0"]),
                ("Env", ["A=\ud800"]),
                ("Volumes", []),
                ("ExposedPorts", []),
                ("Hostname", {}),
            ),
        ]
    },
    **{
        f"type of HostConfig.{name} {value!r}": host(**{name: value})
        for name, value in [
            *(("Memory", "1"), ("Memory", True), ("CpuShares", [1]), ("Mounts", {}), ("Mounts", ["x"])),
            *(("Mounts", [None]), ("Binds", "x"), ("Binds", [1]), ("LogConfig", []), ("NetworkMode", 1)),
            *(("PortBindings", []), ("Ulimits", {}), ("AutoRemove", "true")),
        ]
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(create: Create, attack: str) -> None:
    with pytest.raises(RefusedError) as caught:
        create(ATTACKS[attack])
    assert caught.value.status in (400, 403)
    assert caught.value.field
    if attack.startswith("HostConfig.") and attack.split()[0] != "HostConfig.PidMode":
        assert caught.value.field.startswith(attack.split()[0])


GOOD = json.dumps(operator())
DOCUMENTS: dict[str, str | bytes] = {
    "repeated key": '{"Image": "atddocker/x", "HostConfig": {}, "HostConfig": {"Privileged": true}}',
    "repeated key within": '{"Image": "atddocker/x", "HostConfig": {"Memory": 7000000, "Memory": 0}}',
    "repeated key, escaped": '{"Image": "atddocker/x", "HostConfig": {}, "\\u0048ostConfig": {"Memory": 0}}',
    "trailing bracket": GOOD + "}",
    "second document": GOOD + GOOD,
    "trailing text": GOOD + "x",
    "NUL after it": GOOD + "\0",
    "byte order mark": "\ufeff" + GOOD,
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16 without a mark": GOOD.encode("utf-16-le"),
    "UTF-32": GOOD.encode("utf-32"),
    "invalid UTF-8": GOOD.replace("A=1", "A=\xff").encode("latin-1"),
    "overlong UTF-8": GOOD.encode().replace(b"A=1", b"A=\xc0\xaf"),
    "surrogates in UTF-8": GOOD.encode().replace(b"A=1", b"\xed\xa0\x80"),
    "half a pair": GOOD.replace("A=1", "\\ud800"),
    "NaN": GOOD.replace("1024", "NaN"),
    "Infinity": GOOD.replace("1024", "-Infinity"),
    "a fraction": GOOD.replace("1024", "1024.0"),
    "an exponent": GOOD.replace("1024", "1e3"),
    "many digits": GOOD.replace("1024", "9" * 20),
    "very many digits": GOOD.replace("1024", "9" * 100_000),
    "deep nesting": "[" * 100_000,
    "deep nesting of objects": '{"a":' * 100_000,
    "deep nesting that ends": GOOD.replace('["A=1"]', "[" * 900 + "]" * 900),
    "a control character": GOOD.replace("A=1", "A=\n"),
    "single quotes": GOOD.replace('"', "'"),
    "a comment": GOOD.replace("{", "{/**/", 1),
    "a trailing comma": GOOD[:-1] + ",}",
    "nothing": "",
    "blanks": "  ",
    "a list": f"[{GOOD}]",
    "null": "null",
    "text": '"x"',
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_refused(create: Create, name: str) -> None:
    text = DOCUMENTS[name]
    with pytest.raises(RefusedError) as caught:
        create(text if isinstance(text, bytes) else text.encode())
    assert caught.value.status in (400, 403)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/jsonx",
    ],
)
def test_another_content_type_is_refused(policy: Policy, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    asked = request("POST", "/containers/create", None, headers)
    with pytest.raises(RefusedError, match="content-type"):
        policy.decide(asked)


@pytest.mark.parametrize(
    "query",
    [
        *(
            "name=a&name=b",
            "name=airflow-redis-1",
            "name=%2Fairflow-redis-1",
            "name=airflow_x",
            "name=",
            "name",
        ),
        *(
            "name=a b",
            "name=a%20b",
            "name=a%00",
            "name=a;b=c",
            "platform=linux",
            "Name=a",
            "fromSrc=-",
            "name=..",
            "&",
        ),
        *("name=a&%6eame=b", "n%61me=a&name=b", "name=%ff"),
    ],
)
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
