"""The endpoints for calls: GitHub's through the relay, the relay's own, and what became of a job.

A call says "look now" and nothing else; its body is never acted on.
"""

import json
import time
from http import HTTPStatus

from flask import Blueprint, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from webhook.callers import refuse, require_token, token_in
from webhook.keys import KeyUnavailableError, MalformedError, ReplayError, UnauthorizedError
from webhook.services import services

blueprint = Blueprint("calls", __name__)

RELAY_STATES = ("connected", "reconnecting")


@blueprint.post("/")
@blueprint.post("/webhook")
def webhook() -> ResponseReturnValue:
    """Verify a call and queue a sync.

    202 accepted, with the job; 200 skipped outside production; 400 a signature over no JSON; 401 missing or
    wrong credential; 409 a used one; 413 body too large; 429 too many failures; 503 no key to verify with.
    """
    body = _body()
    keys = services().keys
    try:
        credential = keys.verify(request.headers, body)
        if not services().settings.is_production:
            return _skipped("not production, skipped")
        keys.use(credential)
    except MalformedError as error:
        abort(HTTPStatus.BAD_REQUEST, str(error))
    except UnauthorizedError as error:
        refuse(HTTPStatus.UNAUTHORIZED, str(error))
    except ReplayError as error:
        refuse(HTTPStatus.CONFLICT, str(error))
    except KeyUnavailableError as error:
        abort(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    return _queue("webhook")


@blueprint.post("/sync")
def sync() -> ResponseReturnValue:
    """Queue a sync for the relay, which asks for one after every connect."""
    _body()
    _require_relay_token()
    if not services().settings.is_production:
        return _skipped("not production, skipped")
    return _queue("relay")


@blueprint.post("/relay")
def relay() -> ResponseReturnValue:
    """Note that the relay lives, and whether it hears its channel."""
    body = _body()
    _require_relay_token()
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    state = content.get("state") if isinstance(content, dict) else None
    if state not in RELAY_STATES:
        abort(HTTPStatus.BAD_REQUEST, f"state must be one of {', '.join(RELAY_STATES)}")
    services().store.remember("relay", {"state": state, "at": time.time()})
    return "", HTTPStatus.NO_CONTENT


@blueprint.get("/jobs/<identifier>")
def job(identifier: str) -> ResponseReturnValue:
    """Return what became of a call."""
    jobs = services().jobs
    found = jobs.find(identifier) if jobs else None
    if found is None:
        abort(HTTPStatus.NOT_FOUND, "there is no such job, or it is too long ago")
    return jsonify(found)


@blueprint.after_request
def count(response: Response) -> Response:
    """Count the call."""
    if request.method == "POST" and request.endpoint:
        services().metrics.called(request.endpoint.rpartition(".")[2], response.status_code)
    return response


def _body() -> bytes:
    """Read the body; 413 when it is over the limit."""
    body = request.get_data(cache=False)
    # Where no length was stated, Werkzeug stops at the limit in silence; only reading on raises the 413.
    request.stream.read(1)
    return body


def _queue(trigger: str) -> ResponseReturnValue:
    jobs = services().jobs
    if jobs is None:
        return _skipped("no repository is configured here, skipped")
    queued = jobs.request(trigger)
    location = url_for("calls.job", identifier=queued.id)
    answer = jsonify(status="accepted", job=queued.id, url=location)
    return answer, HTTPStatus.ACCEPTED, {"Location": location}


def _skipped(detail: str) -> ResponseReturnValue:
    return jsonify(status="skipped", detail=detail)


def _require_relay_token() -> None:
    """Let only those pass who can read the relay's token file."""
    path = services().settings.relay_token_file
    require_token(token_in(path) if path else None, "relay's")
