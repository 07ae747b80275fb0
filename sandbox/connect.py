"""A server that answers like 1Password Connect (OpenAPI contract 1.7.1), for vaults of made-up secrets.

As with the real one, a token is granted vaults, each to read or to read and write.

Not its business: files, the activity log and TLS, which nothing here uses.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from sandbox.item_document import InvalidItemError
from sandbox.seed import StandIns, seed
from sandbox.vault_store import VaultStore
from sandbox.web import MAX_BODY_BYTES, log_requests, parse_json

IDENTIFIER = re.compile(r"[0-9a-z]{26}")
FILTER = re.compile(r'\s*(?P<attribute>\w+)\s+eq\s+"(?P<value>(?:[^"\\]|\\.)*)"\s*', re.DOTALL)
VERSION = "1.7.1"

AWAY = "connect-away"
"""A file in the state's folder; while it is there, every request gets a 503."""

# Exists, but no token may see it: how a 403 (unlike the 404 of an unknown vault) is made to happen.
OUT_OF_SCOPE_VAULT_ID = "outofscopevault00000000000"


class ConnectError(Exception):
    """A request that is refused: becomes an ErrorResponse of the contract."""

    def __init__(self, status: int, message: str) -> None:
        """Refuse with an HTTP status and a message for the client."""
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Reader:
    """A token that may only read, and the one vault that it is granted."""

    token: str
    vault_id: str


@dataclass(frozen=True)
class _Grant:
    token: str
    stores: dict[str, VaultStore]
    writes: bool


def create_app(
    state_dir: Path | str,
    token: str,
    vault_id: str,
    environments: Iterable[str] = (),
    stand_ins: StandIns | None = None,
    tasks: Reader | None = None,
) -> Flask:
    """Return the server.

    ``state_dir`` keeps the vaults between starts, ``token`` is the bearer token that reads and writes every
    vault, ``environments`` are names of sections to seed beside ``production`` and ``development``, and
    ``stand_ins`` are offered to the platform, in the items where the real ones would be. ``tasks`` adds a
    vault: what tasks read is then there, and not in the first one.

    Raises ValueError when a token is empty, a vault id is not 26 characters of a-z and 0-9, or ``tasks`` has
    what the platform has.
    """
    for given in [(token, vault_id), *([(tasks.token, tasks.vault_id)] if tasks else [])]:
        if not given[0]:
            raise ValueError("the bearer token must not be empty")
        if not IDENTIFIER.fullmatch(given[1]):
            raise ValueError("a vault id is 26 characters of a-z and 0-9")
    if tasks and (tasks.token == token or tasks.vault_id == vault_id):
        raise ValueError("tasks have a token and a vault of their own")
    app = Flask("sandbox.connect")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    stores = {vault_id: VaultStore(Path(state_dir) / "connect.json", vault_id)}
    grants = [_Grant(token, stores, writes=True)]
    if tasks:
        path = Path(state_dir) / "connect-tasks.json"
        stores[tasks.vault_id] = VaultStore(path, tasks.vault_id, "Sandbox (tasks)")
        grants.append(_Grant(tasks.token, {tasks.vault_id: stores[tasks.vault_id]}, writes=False))
    seed(stores[vault_id], environments, stand_ins, stores[tasks.vault_id] if tasks else None)
    _add_errors(app)
    _add_health(app)
    _add_vaults(app)
    _add_items(app)
    log_requests(app)

    @app.before_request
    def authenticate() -> None:
        if (Path(state_dir) / AWAY).exists():
            raise ConnectError(503, "Service Unavailable")
        if not request.path.startswith("/v1/"):
            return
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        for grant in grants:
            if hmac.compare_digest(f"Bearer {grant.token}".encode(), given):
                g.grant, g.vault_ids = grant, {OUT_OF_SCOPE_VAULT_ID, *stores}
                return
        raise ConnectError(401, "Invalid token signature")

    return app


def _add_errors(app: Flask) -> None:
    @app.errorhandler(ConnectError)
    def refused(error: ConnectError) -> tuple[Response, int]:
        return jsonify(status=error.status, message=error.message), error.status

    @app.errorhandler(InvalidItemError)
    def invalid(error: InvalidItemError) -> tuple[Response, int]:
        return jsonify(status=400, message=str(error)), 400

    @app.errorhandler(HTTPException)
    def other(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        return jsonify(status=status, message=error.name), status


def _add_health(app: Flask) -> None:
    answers: Counter[tuple[str, int]] = Counter()

    @app.after_request
    def count(response: Response) -> Response:
        answers[request.method, response.status_code] += 1
        return response

    @app.get("/heartbeat")
    def heartbeat() -> Response:
        return Response(".", mimetype="text/plain")

    @app.get("/health")
    def health() -> Response:
        states = {"sync": "ACTIVE", "sqlite": "ACTIVE", "account_data": "ACTIVE"}
        dependencies = [{"service": name, "status": status} for name, status in states.items()]
        return jsonify(name="1Password Connect API", version=VERSION, dependencies=dependencies)

    @app.get("/metrics")
    def metrics() -> Response:
        lines = ["# HELP http_requests_total Answered requests.", "# TYPE http_requests_total counter"]
        for (method, status), total in sorted(answers.items()):
            lines.append(f'http_requests_total{{method="{method}",status="{status}"}} {total}')
        return Response("\n".join(lines) + "\n", mimetype="text/plain")


def _add_vaults(app: Flask) -> None:
    @app.get("/v1/vaults")
    def vaults() -> Response:
        return jsonify(_filtered([store.vault() for store in g.grant.stores.values()], "name"))

    @app.get("/v1/vaults/<vault_id>")
    def vault(vault_id: str) -> Response:
        return jsonify(_read(vault_id).vault())


def _add_items(app: Flask) -> None:
    @app.get("/v1/vaults/<vault_id>/items")
    def items(vault_id: str) -> Response:
        if vault_id not in g.grant.stores:  # The contract knows no 403 here.
            raise ConnectError(404, f"vault {vault_id} not found")
        found = _filtered(g.grant.stores[vault_id].items(), "title")
        return jsonify([{k: v for k, v in item.items() if k not in ("sections", "fields")} for item in found])

    @app.post("/v1/vaults/<vault_id>/items")
    def create(vault_id: str) -> Response:
        return jsonify(_write(vault_id).create(_body()))

    @app.get("/v1/vaults/<vault_id>/items/<item_id>")
    def item(vault_id: str, item_id: str) -> Response:
        return _item_response(_read(vault_id).get(item_id), item_id)

    @app.put("/v1/vaults/<vault_id>/items/<item_id>")
    def replace(vault_id: str, item_id: str) -> Response:
        return _item_response(_write(vault_id).replace(item_id, _body()), item_id)

    @app.patch("/v1/vaults/<vault_id>/items/<item_id>")
    def patch(vault_id: str, item_id: str) -> Response:
        return _item_response(_write(vault_id).patch(item_id, _body()), item_id)

    @app.delete("/v1/vaults/<vault_id>/items/<item_id>")
    def delete(vault_id: str, item_id: str) -> tuple[str, int]:
        if not _write(vault_id).delete(item_id):
            raise ConnectError(404, f"item {item_id} not found")
        return "", 204


def _read(vault_id: str) -> VaultStore:
    """Return the vault. Raises ConnectError when there is none, or the request's token is not granted it."""
    grant: _Grant = g.grant
    if vault_id in grant.stores:
        return grant.stores[vault_id]
    if vault_id in g.vault_ids:
        raise ConnectError(403, f"vault {vault_id} is not in scope")
    raise ConnectError(404, f"vault {vault_id} not found")


def _write(vault_id: str) -> VaultStore:
    """Return the vault, to change it. Raises ConnectError as `_read`, and when the token may only read."""
    store = _read(vault_id)
    if not g.grant.writes:
        raise ConnectError(403, f"the token may only read vault {vault_id}")
    return store


def _item_response(item: dict[str, Any] | None, item_id: str) -> Response:
    if item is None:
        raise ConnectError(404, f"item {item_id} not found")
    return jsonify(item)


def _body() -> Any:
    try:
        return parse_json(request.get_data())
    except ValueError:
        raise ConnectError(400, "The body is not valid JSON") from None


def _filtered(entries: list[dict[str, Any]], attribute: str) -> list[dict[str, Any]]:
    """Return the entries that the request's SCIM filter (RFC 7644, only ``eq``) lets through."""
    text = request.args.get("filter")
    if text is None:
        return entries
    match = FILTER.fullmatch(text)
    if match is None or match["attribute"] != attribute:
        raise ConnectError(400, f'Invalid filter: only {attribute} eq "..." is supported')
    value = re.sub(r"\\(.)", r"\1", match["value"], flags=re.DOTALL)
    return [entry for entry in entries if entry[attribute] == value]
