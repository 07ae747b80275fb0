"""GitHub's API, as far as a deployment needs it: commit statuses, and the keys of the Git host.

https://docs.github.com/en/rest/commits/statuses, https://docs.github.com/en/rest/meta/meta
"""

from __future__ import annotations

import hmac
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue

from sandbox.web import log_requests

STATES = ("error", "failure", "pending", "success")
DESCRIPTION_LIMIT = 140  # characters


def create_app(token: str, ssh_keys: Sequence[str] = ()) -> Flask:
    """Return the API, which takes statuses from whoever has ``token`` and shows them to everybody.

    ``ssh_keys`` are the public keys of the Git host, each as "type key".
    """
    app = Flask("sandbox.github")
    statuses: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)

    @app.get("/meta")
    def meta() -> ResponseReturnValue:
        return jsonify(ssh_keys=list(ssh_keys))

    @app.post("/repos/<owner>/<name>/statuses/<sha>")
    def create(owner: str, name: str, sha: str) -> ResponseReturnValue:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not hmac.compare_digest(
            given.encode(), token.encode()
        ):
            return jsonify(message="Bad credentials"), 401
        body = request.get_json(silent=True)
        if not re.fullmatch("[0-9a-f]{40}", sha):
            return jsonify(message=f"No commit found for SHA: {sha}"), 422
        if not isinstance(body, dict) or body.get("state") not in STATES:
            return jsonify(message="Validation Failed"), 422
        description = body.get("description") or ""
        if not isinstance(description, str) or len(description) > DESCRIPTION_LIMIT:
            return jsonify(
                message=f"description must be a text of at most {DESCRIPTION_LIMIT} characters"
            ), 422
        status = {
            "id": sum(len(known) for known in statuses.values()) + 1,
            "state": body["state"],
            "context": body.get("context", "default"),
            "description": body.get("description"),
            "target_url": body.get("target_url"),
            "created_at": datetime.now(UTC).isoformat(),
        }
        statuses[owner, name, sha].insert(0, status)
        return jsonify(status), 201

    @app.get("/repos/<owner>/<name>/commits/<sha>/statuses")
    def latest_first(owner: str, name: str, sha: str) -> ResponseReturnValue:
        if not re.fullmatch("[0-9a-f]{40}", sha):
            abort(404)
        return jsonify(statuses[owner, name, sha])

    log_requests(app)
    return app
