"""Where worker hosts report, on a Unix socket: only their gateway reaches it, and names them."""

import socket
from http import HTTPStatus

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from webhook.coordinator import PATH, MalformedReportError, report_in
from webhook.services import services

blueprint = Blueprint("workers", __name__)


@blueprint.before_app_request
def keep_sockets_apart() -> None:
    """Serve reports on the Unix socket and nowhere else, and nothing else there.

    By the connection, since a caller chooses every header.
    """
    connection = request.environ.get("gunicorn.socket")
    is_of_the_gateway = connection is not None and connection.family == socket.AF_UNIX
    if (request.path == PATH) != is_of_the_gateway:
        abort(HTTPStatus.NOT_FOUND)


@blueprint.post(PATH)
def report() -> ResponseReturnValue:
    """Answer a worker's report with what it should do, once it is news, or after some seconds.

    400 no report; 403 no worker of this platform; 503 there is no coordinator.
    """
    coordinator = services().coordinator
    if coordinator is None:
        abort(HTTPStatus.SERVICE_UNAVAILABLE, "no repository is configured here: nothing is coordinated")
    name = request.headers.get("X-Worker", "")
    if name not in services().settings.workers:
        abort(HTTPStatus.FORBIDDEN, f"{name!r} is not a worker of this platform")
    try:
        return jsonify(coordinator.report(name, report_in(request.get_data(cache=False))))
    except MalformedReportError as error:
        abort(HTTPStatus.BAD_REQUEST, str(error))
