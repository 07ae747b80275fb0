"""The decision on a request: what Docker is asked instead, or why nothing is.

The table of operations is the whole of what DAGs may ask. Path, query, headers and body of what is sent are
written from what was decoded; nothing of the client's own bytes is in it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from docker_policy import decode
from docker_policy.create import Containers
from docker_policy.decode import digits, switch, switched_off, text
from docker_policy.errors import NO_SETTING, RefusedError, malformed, printable
from docker_policy.images import Images
from docker_policy.registries import Registries
from docker_policy.settings import OWNER_LABEL, Settings
from docker_policy.wire import Request

OLDEST_API = 41
"""Before 1.41 a container has the host's cgroup namespace by default."""
NEWEST_API = 60
"""Docker refuses itself what is newer than it is; a field of a later version needs a rule here."""

_PATH = re.compile(r"(?P<version>/v1\.(?P<minor>[0-9]{1,2}))?(?P<rest>/[A-Za-z0-9_./:@-]*)")
_CONTAINER = r"(?P<container>[A-Za-z0-9][A-Za-z0-9_.-]{0,254})"
_IMAGE = r"(?P<image>[A-Za-z0-9][A-Za-z0-9_./:@-]{0,400})"

_TIME = text(r"[0-9]{1,12}(\.[0-9]{1,9})?", "a time in seconds")
_SIGNAL = text(r"[A-Za-z0-9+-]{1,16}", "a signal")
_CONDITION = text("not-running|next-exit|removed", "not-running, next-exit or removed")
_TEXTS = decode.listing(text(), 50)
_LISTED = {name: _TEXTS for name in ("id", "name", "status", "exited", "label", "ancestor")}
_OUTPUT = {"stdout": switch, "stderr": switch}

Query = dict[str, Any]


def _filters(fields: Mapping[str, decode.Rule]) -> decode.Rule:
    """Accept filters as the Docker SDK writes them: a JSON object of lists."""
    rule = decode.record(fields)
    return lambda value, field: rule(decode.document(text()(value, field).encode()), field)


@dataclass(frozen=True)
class Decision:
    """A request for Docker."""

    operation: str
    method: str
    path: str
    query: Query = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    upgrade: bool = False
    """Whether Docker is asked to make a stream of the connection."""
    note: str = ""
    """What the log says of it."""

    @property
    def target(self) -> str:
        """Return path and query."""
        values = {
            name: int(value) if isinstance(value, bool) else value for name, value in self.query.items()
        }
        return f"{self.path}?{urlencode(values)}" if values else self.path


@dataclass(frozen=True)
class Call:
    """A request whose path and query are understood."""

    operation: str
    method: str
    prefix: str
    """The API's version, as in `/v1.41`, or nothing."""
    names: Mapping[str, str]
    query: Query
    request: Request

    def decision(self, path: str, **others: Any) -> Decision:
        """Return a request for this path with the query as it was decoded, unless another is given."""
        return Decision(
            **{"query": self.query, **others},
            operation=self.operation,
            method=self.method,
            path=self.prefix + path,
        )


@dataclass(frozen=True)
class Operation:
    """A line of the table."""

    name: str
    methods: tuple[str, ...]
    path: re.Pattern[str]
    query: Mapping[str, decode.Rule]
    build: Callable[[Call], Decision]
    takes_body: bool = False


class Policy:
    """The decisions for one inventory."""

    def __init__(
        self,
        settings: Settings,
        find: Callable[[str], str],
        origin: Callable[[Request], Mapping[str, str]] = lambda request: {},
    ) -> None:
        """Compile the rules.

        `find` returns the full id of a DAG's own container, or refuses. `origin` returns labels that say from
        whom the request for a new container comes.
        """
        self._find = find
        self._origin = origin
        self._images = Images(settings.images, "dag_container_images")
        self._registries = Registries(settings.registries)
        self._containers = Containers(settings, self._images)
        self._operations = tuple(self._table())

    def _table(self) -> list[Operation]:
        def one(
            name: str,
            method: str,
            path: str,
            build: Callable[[Call], Decision],
            query: Mapping[str, decode.Rule] | None = None,
            body: bool = False,
        ) -> Operation:
            return Operation(name, tuple(method.split("/")), re.compile(path), query or {}, build, body)

        own = f"/containers/{_CONTAINER}"
        logs: dict[str, decode.Rule] = {
            **_OUTPUT,
            **dict.fromkeys(("follow", "timestamps"), switch),
            "details": switched_off,
        }
        logs |= {"tail": text("all|[0-9]{1,9}", "a number or all"), "since": _TIME, "until": _TIME}
        listed: dict[str, decode.Rule] = {
            **dict.fromkeys(("all", "size", "trunc_cmd"), switch),
            "limit": digits(-1, 10_000),
        }
        return [
            one("ping", "GET/HEAD", "/_ping", self._same),
            one("version", "GET", "/version", self._same),
            one("info", "GET", "/info", self._same),
            one("login", "POST", "/auth", self._login, body=True),
            one("pull", "POST", "/images/create", self._pull, {"fromImage": text(), "tag": text()}),
            one(
                "images",
                "GET",
                "/images/json",
                self._images_listed,
                {"all": switch, "only_ids": switch, "filters": _filters({"reference": _TEXTS})},
            ),
            one("image", "GET", f"/images/{_IMAGE}/json", self._image),
            one("list", "GET", "/containers/json", self._list, {**listed, "filters": _filters(_LISTED)}),
            one(
                "create",
                "POST",
                "/containers/create",
                self._create,
                {"name": self._containers.name},
                body=True,
            ),
            one("inspect", "GET", f"{own}/json", self._own, {"size": switch}),
            one("logs", "GET", f"{own}/logs", self._own, logs),
            one("archive", "GET", f"{own}/archive", self._own, {"path": text(r"[^\0]+", "a path")}),
            one(
                "attach",
                "POST",
                f"{own}/attach",
                self._attach,
                {**_OUTPUT, "logs": switch, "stream": switch, "stdin": switched_off},
            ),
            one("start", "POST", f"{own}/start", self._own),
            one("wait", "POST", f"{own}/wait", self._own, {"condition": _CONDITION}),
            one("stop", "POST", f"{own}/stop", self._own, {"t": digits(-1, 86_400), "signal": _SIGNAL}),
            one("kill", "POST", f"{own}/kill", self._own, {"signal": _SIGNAL}),
            one(
                "resize", "POST", f"{own}/resize", self._own, {"h": digits(0, 10_000), "w": digits(0, 10_000)}
            ),
            one("remove", "DELETE", own, self._remove, {"v": switch, "force": switch, "link": switched_off}),
        ]

    def decide(self, request: Request) -> Decision:
        """Return what to ask Docker.

        Raises:
            RefusedError: DAGs may not ask this.
        """
        operation, prefix, names = self._route(request)
        if request.body and not operation.takes_body:
            raise malformed("this request has none", "body")
        if "upgrade" in request.headers and operation.name != "attach":
            raise RefusedError(f"this request cannot be upgraded; {NO_SETTING}", field="upgrade", status=400)
        query = decode.query(request.query, operation.query)
        return operation.build(Call(operation.name, request.method, prefix, names, query, request))

    def _route(self, request: Request) -> tuple[Operation, str, dict[str, str]]:
        path = _PATH.fullmatch(request.path)
        for operation in self._operations if path else ():
            match = operation.path.fullmatch(path["rest"]) if path else None
            if path and match and request.method in operation.methods:
                minor = path["minor"]
                if minor and not OLDEST_API <= int(minor) <= NEWEST_API:
                    raise malformed(
                        f"1.{OLDEST_API} to 1.{NEWEST_API} are supported, not 1.{minor}", "API version"
                    )
                return operation, f"/v1.{int(minor)}" if minor else "", match.groupdict()
        raise RefusedError(
            f"DAGs may not {request.method} {printable(request.path)}; {NO_SETTING}", field="path"
        )

    @staticmethod
    def _same(call: Call) -> Decision:
        return call.decision(f"/{'_ping' if call.operation == 'ping' else call.operation}")

    def _login(self, call: Call) -> Decision:
        credentials = self._registries.login(_document(call.request))
        return _with_body(call, "/auth", credentials, note=credentials["serveraddress"])

    def _pull(self, call: Call) -> Decision:
        if "fromImage" not in call.query:
            raise RefusedError(f"only a pull is allowed; {NO_SETTING}", field="fromImage")
        image = self._images.check(call.query["fromImage"], "fromImage", call.query.get("tag", ""))
        credentials = call.request.headers.get("x-registry-auth")
        headers = (("X-Registry-Auth", self._registries.header(credentials)),) if credentials else ()
        query = {"fromImage": image.name, "tag": image.digest or image.tag}
        return call.decision("/images/create", query=query, headers=headers, note=str(image))

    def _images_listed(self, call: Call) -> Decision:
        return call.decision("/images/json", query=_with_filters(call.query, {}))

    def _image(self, call: Call) -> Decision:
        image = self._images.check(call.names["image"], "image")
        return call.decision(f"/images/{image}/json")

    def _list(self, call: Call) -> Decision:
        labels = call.query.get("filters", {}).get("label", [])
        query = _with_filters(call.query, {"label": [*labels, f"{OWNER_LABEL}=true"]})
        query.pop("trunc_cmd", None)
        return call.decision("/containers/json", query=query)

    def _create(self, call: Call) -> Decision:
        document = self._containers.build(_document(call.request))
        document["Labels"].update(self._origin(call.request))
        return _with_body(call, "/containers/create", document, note=document["Image"])

    def _own(self, call: Call) -> Decision:
        verb = "json" if call.operation == "inspect" else call.operation
        return call.decision(f"/containers/{self._find(call.names['container'])}/{verb}")

    def _attach(self, call: Call) -> Decision:
        asked = call.request.headers.get("upgrade")
        if asked not in (None, "tcp"):
            raise malformed("the stream of a container is called tcp", "upgrade")
        headers = (("Upgrade", "tcp"),) if asked else ()
        path = f"/containers/{self._find(call.names['container'])}/attach"
        return call.decision(path, headers=headers, upgrade=bool(asked))

    def _remove(self, call: Call) -> Decision:
        path = f"/containers/{self._find(call.names['container'])}"
        # With its anonymous volumes, which nothing could find again.
        return call.decision(path, query={"v": True, "force": call.query.get("force", False)})


def _document(request: Request) -> Any:
    if request.headers.get("content-type", "").lower() != "application/json":
        raise malformed("application/json is expected", "content-type")
    return decode.document(request.body)


def _with_body(call: Call, path: str, document: Any, note: str) -> Decision:
    headers = (("Content-Type", "application/json"),)
    return call.decision(path, headers=headers, body=json.dumps(document).encode(), note=note)


def _with_filters(query: Query, others: Mapping[str, Any]) -> Query:
    filters = {**query.get("filters", {}), **others}
    return {**query, "filters": json.dumps(filters)} if filters else query
