"""A server that answers like 1Password Connect (OpenAPI contract 1.7.1), for one vault of made-up secrets.

Not its business: files, the activity log and TLS, which nothing here uses.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from sandbox.item_document import InvalidItemError
from sandbox.seed import StandIns, seed
from sandbox.vault_store import VaultStore
from sandbox.web import MAX_BODY_BYTES, log_requests, parse_json

IDENTIFIER = re.compile(r"[0-9a-z]{26}")
FILTER = re.compile(r'\s*(?P<attribute>\w+)\s+eq\s+"(?P<value>(?:[^"\\]|\\.)*)"\s*', re.DOTALL)
VERSION = "1.7.1"

# Exists, but the token may not see it: how a 403 (unlike the 404 of an unknown vault) is made to happen.
OUT_OF_SCOPE_VAULT_ID = "outofscopevault00000000000"


class ConnectError(Exception):
    """A request that is refused: becomes an ErrorResponse of the contract."""

    def __init__(self, status: int, message: str) -> None:
        """Refuse with an HTTP status and a message for the client."""
        super().__init__(message)
        self.status = status
        self.message = message


def create_app(
    state_dir: Path | str,
    token: str,
    vault_id: str,
    environments: Iterable[str] = (),
    stand_ins: StandIns | None = None,
) -> Flask:
    """Return the server.

    ``state_dir`` keeps the vault between starts, ``token`` is the one bearer token that is accepted,
    ``environments`` are names of sections to seed beside ``production`` and ``development``, and
    ``stand_ins`` are offered to the platform, in the items where the real ones would be.

    Raises ValueError when ``token`` is empty or ``vault_id`` is not 26 characters of a-z and 0-9.
    """
    if not token:
        raise ValueError("the bearer token must not be empty")
    if not IDENTIFIER.fullmatch(vault_id):
        raise ValueError("a vault id is 26 characters of a-z and 0-9")
    app = Flask("sandbox.connect")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    store = VaultStore(Path(state_dir) / "connect.json", vault_id)
    seed(store, environments, stand_ins)
    _add_errors(app)
    _add_health(app)
    _add_vaults(app, store)
    _add_items(app, store)
    log_requests(app)

    @app.before_request
    def authenticate() -> None:
        if not request.path.startswith("/v1/"):
            return
        expected = f"Bearer {token}".encode()
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(expected, given):
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


def _add_vaults(app: Flask, store: VaultStore) -> None:
    @app.get("/v1/vaults")
    def vaults() -> Response:
        return jsonify(_filtered([store.vault()], "name"))

    @app.get("/v1/vaults/<vault_id>")
    def vault(vault_id: str) -> Response:
        _check_vault(store, vault_id)
        return jsonify(store.vault())


def _add_items(app: Flask, store: VaultStore) -> None:
    @app.get("/v1/vaults/<vault_id>/items")
    def items(vault_id: str) -> Response:
        if vault_id != store.vault_id:  # The contract knows no 403 here.
            raise ConnectError(404, f"vault {vault_id} not found")
        found = _filtered(store.items(), "title")
        return jsonify([{k: v for k, v in item.items() if k not in ("sections", "fields")} for item in found])

    @app.post("/v1/vaults/<vault_id>/items")
    def create(vault_id: str) -> Response:
        _check_vault(store, vault_id)
        return jsonify(store.create(_body()))

    @app.get("/v1/vaults/<vault_id>/items/<item_id>")
    def item(vault_id: str, item_id: str) -> Response:
        _check_vault(store, vault_id)
        return _item_response(store.get(item_id), item_id)

    @app.put("/v1/vaults/<vault_id>/items/<item_id>")
    def replace(vault_id: str, item_id: str) -> Response:
        _check_vault(store, vault_id)
        return _item_response(store.replace(item_id, _body()), item_id)

    @app.patch("/v1/vaults/<vault_id>/items/<item_id>")
    def patch(vault_id: str, item_id: str) -> Response:
        _check_vault(store, vault_id)
        return _item_response(store.patch(item_id, _body()), item_id)

    @app.delete("/v1/vaults/<vault_id>/items/<item_id>")
    def delete(vault_id: str, item_id: str) -> tuple[str, int]:
        _check_vault(store, vault_id)
        if not store.delete(item_id):
            raise ConnectError(404, f"item {item_id} not found")
        return "", 204


def _check_vault(store: VaultStore, vault_id: str) -> None:
    if vault_id == OUT_OF_SCOPE_VAULT_ID:
        raise ConnectError(403, f"vault {vault_id} is not in scope")
    if vault_id != store.vault_id:
        raise ConnectError(404, f"vault {vault_id} not found")


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
