"""What Docker 26.1 does with each attack when no filter stands before it.

Molecule sends the harmless ones to the host's own Docker, and compares. The others are stated only.
`python -m tests.docker_policy.bare_docker` prints the table.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from tests.docker_policy.attacks import on_the_wire

VERSION = "26.1"
CREATES = "creates it"
DOES = "does it"
REDIRECTS = "redirects it"
REFUSES = "refuses it"

DEPENDS = "depends on the kernel"
"""What the kernel's cgroups or the storage driver decide."""

# The first pattern that matches a name says it. A star stands for any text.
STATED = {
    # Not sent, because it would do harm, reach the network, or answer for as long as somebody listens.
    **dict.fromkeys(
        ("pull ", "pull tag=*", "pull FromImage=*", "pull *;*", "pull *%00", "pull *tag=a/b"), REFUSES
    ),
    "pull *fromSrc=*": "imports it over an image of the platform",
    "pull with a form": "pulls what the form names",
    "pull *": "pulls from wherever the name says",
    "login *": "sends the password there",
    "create Image *": "creates it from any image that is there",
    "create HostConfig.VolumesFrom": CREATES,
    "create HostConfig.Mounts driver*": "creates a volume that is a directory of the host",
    "create HostConfig.Mounts block device": "creates a volume that is a disk of the host",
    "create HostConfig.Mounts a volume in another case": "creates a volume of this name",
    "create HostConfig.Mounts cluster": REFUSES,
    "create HostConfig.Mounts tmpfs options": CREATES,
    "create HostConfig.Mounts target /x\0y": REFUSES,
    **dict.fromkeys(
        (
            *(
                "create HostConfig.StorageOpt",
                "create HostConfig.MemoryReservation",
                "create HostConfig.Memory *",
            ),
            *("create HostConfig.NanoCpus", "create HostConfig.MemorySwap", "create HostConfig.CpuQuota"),
            *("create HostConfig.CpusetCpus", "create HostConfig.PidsLimit", "create HostConfig.Oom*"),
            "create HostConfig.CpuShares more",
        ),
        DEPENDS,
    ),
    "GET /events": "tells everything that happens on the host",
    **dict.fromkeys(
        (
            *("GET /containers/*/export", "GET /containers/*/stats", "GET /containers/*/attach/ws"),
            *("GET /containers/*/top", "GET /containers/*/changes", "HEAD /containers/*/archive*"),
        ),
        "tells it of a container of the platform",
    ),
    **dict.fromkeys(("GET /images/search*", "GET /distribution/*"), "asks the registry"),
    **dict.fromkeys(
        ("GET /containers/json[?]since=*", "GET /containers/json[?]before=*"), "finds none, or ignores it"
    ),
    **dict.fromkeys(
        (
            *("GET /images/get", "GET /debug/vars", "POST /libpod/*", "POST /info", "DELETE /containers"),
            *("POST /containers/*/attach/ws", "POST /containers/*/export", "POST /containers/*/commit"),
            *("POST /containers/*/checkpoints", "own start[?]checkpoint=x"),
        ),
        REFUSES,
    ),
    **dict.fromkeys(("POST /containers//create", "POST /x/../containers/create"), REDIRECTS),
    "POST /containers/%63reate": CREATES,
    **dict.fromkeys(("POST /session", "POST /grpc"), "opens a session of BuildKit"),
    "POST /swarm/init": "makes a swarm of the host",
    **dict.fromkeys(
        ("length and chunked", "chunked in another case"), "waits for a chunk, as long as nobody hangs up"
    ),
    **dict.fromkeys(("h2c", "HTTP/2"), "answers, in whichever version of HTTP it knows"),
    **dict.fromkeys(("POST *", "PUT *", "DELETE *"), "does it to whatever is named"),
    "own *": "does it, as far as it knows the parameter",
}

HARMLESS = {
    # Requests that create a container. It is never started, and removed at once.
    **dict.fromkeys(
        (
            *("create HostConfig.UTSMode of a container", "create HostConfig.CgroupnsMode of a container"),
            "create HostConfig.Isolation",
            "create HostConfig.SecurityOpt systempaths=unconfined",
            *(f"create HostConfig.Binds {each}" for each in ("./x:/x", "~:/x", ":/x", "knack", "knack:/")),
            *("create HostConfig.Binds knack:x", "create HostConfig.Binds knack:/x:rw:ro"),
            *(
                f"create HostConfig.Mounts {each}"
                for each in (
                    "bind in another case",
                    "without a type",
                    "a path for a volume",
                    "bind options",
                    "image",
                    "subpath",
                )
            ),
            *("create HostConfig.Mounts npipe", "create HostConfig.Mounts target "),
            *(f"create HostConfig.Mounts target {each}" for each in ("/", "//", "x", "/x/..", "..", "/..")),
            *("create HostConfig.LogConfig a number", "create WorkingDir x", "create WorkingDir ../x"),
            "create no image",
        ),
        REFUSES,
    ),
    "create type of Env ['A=\\x00']": CREATES,
    "create type of Env ['A=\\ud800']": CREATES,
    "create type of *": REFUSES,
    "create *": CREATES,
    **dict.fromkeys(
        (
            *(
                "body repeated key",
                "body repeated key within",
                "body repeated key, escaped",
                "body trailing bracket",
                "body invalid UTF-8",
            ),
            *("body overlong UTF-8", "body surrogates in UTF-8", "body half a pair"),
        ),
        CREATES,
    ),
    "body *": REFUSES,
    "content type application/json; charset=utf-16": CREATES,
    "content type *": REFUSES,
    **dict.fromkeys(
        (
            *(
                "create?name=airflow-redis-1",
                "create?name=%2Fairflow-redis-1",
                "create?name=a b",
                "create?name=a%20b",
            ),
            *("create?name=a%00", "create?name=a;b=c", "create?name=..", "create?name=%ff"),
        ),
        REFUSES,
    ),
    "create?Name=a": CREATES,
    "create[?]*": CREATES,
    # Requests that read.
    **dict.fromkeys(
        (
            *("GET //info", "GET /v1.41//info", "GET /./info", "GET /v1.41/../info"),
            *("GET /containers/%2e%2e/info", "GET /containers/../info"),
        ),
        REDIRECTS,
    ),
    **dict.fromkeys(
        (
            *("GET /volumes", "GET /networks", "GET /plugins", "GET /system/df", "OPTIONS /info"),
            *(
                "GET /v1.40/info",
                "GET /v1.41/volumes[?]/containers/json",
                "GET /v1.041/info",
                "GET /v1.41.0/info",
            ),
            *(
                "GET /info[?]x=1",
                "GET /_ping[?]x",
                "GET /version[?]=1",
                "GET /containers/json[?]filters={}&filters={}",
            ),
            *("GET /containers/json[?]all=2", 'GET /containers/json[?]filters={"label":{"x":true}}'),
            *(
                'GET /containers/json[?]filters={"network":[[]"x"]}',
                'GET /containers/json[?]filters={"label":[[]],"label":[[]]}',
            ),
            *(
                'GET /images/json[?]filters={"label":[[]"x"]}',
                "GET /images/json[?]filter=x",
                "GET /images/json[?]x=1",
            ),
        ),
        DOES,
    ),
    **dict.fromkeys(("GET *", "HEAD *", "CONNECT *", "OPTIONS *", "TRACE *"), REFUSES),
    # Forms of HTTP: what comes of the first request that Docker reads.
    **dict.fromkeys(
        (
            *("chunked", "two equal lengths", "two content types", "expectation", "compressed"),
            "pipelined after a create",
        ),
        CREATES,
    ),
    **dict.fromkeys(
        (
            *(
                "pipelined",
                "in the body of a ping",
                "bare line feeds",
                "bare line feed in the headers",
                "HTTP/1.0",
            ),
            *("absolute URI", "h2c", "upgrade of a GET, alone", "many headers", "large headers"),
        ),
        DOES,
    ),
    "*": REFUSES,
}


def outcome(name: str) -> tuple[str, bool]:
    """Return what Docker alone does with an attack of `on_the_wire`, and whether a test may send it there."""
    for table, is_sent in ((STATED, False), (HARMLESS, True)):
        for pattern, text in table.items():
            if name == pattern or fnmatchcase(name, pattern):
                return text, is_sent
    raise LookupError(name)


OUTCOMES = {name: outcome(name)[0] for name in on_the_wire()}
SENT = [name for name in OUTCOMES if outcome(name)[1]]


if __name__ == "__main__":
    print("| attack | Docker alone | compared on a host |\n|---|---|---|")
    for attack, text in OUTCOMES.items():
        print(f"| `{attack}` | {text} | {'yes' if attack in SENT else 'no'} |")
