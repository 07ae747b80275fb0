"""Where worker hosts report, on a port of its own: only their gateway reaches it, and names them."""

from http import HTTPStatus

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from webhook.coordinator import PATH, MalformedReportError, report_in
from webhook.services import services

blueprint = Blueprint("workers", __name__)


@blueprint.before_app_request
def keep_ports_apart() -> None:
    """Serve reports on their port and nowhere else, and nothing else there.

    By the connection, since a caller chooses every header.
    """
    connection = request.environ.get("gunicorn.socket")
    port = connection.getsockname()[1] if connection is not None else None
    if (request.path == PATH) != (port == services().settings.worker_report_port):
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
