"""A proxy in front of the webhook's port that answers the first calls with 503 and passes on everything else:
``python3 faulty_proxy.py PORT TARGET_PORT REFUSALS``, on 127.0.0.1.

Prints a line "path status" for each request. Of Python's own library alone: it runs on the host.
"""

from __future__ import annotations

import http.client
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "127.0.0.1"
REFUSED_PATH = "/webhook"
OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "date", "server"}


class Proxy(BaseHTTPRequestHandler):
    """One request."""

    target_port: int
    refusals: list[None]
    """One for each call that is still to be refused."""

    def do_POST(self) -> None:
        """Refuse it, or pass it on with the answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == REFUSED_PATH and self.refusals:
            self.refusals.pop()
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        connection = http.client.HTTPConnection(ADDRESS, self.target_port, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in OF_THE_CONNECTION:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say what was answered."""
        status = code.value if isinstance(code, HTTPStatus) else code
        print(self.path, status, flush=True)


def main(port: int, target_port: int, refusals: int) -> None:
    """Serve until killed."""
    Proxy.target_port, Proxy.refusals = target_port, [None] * refusals
    with ThreadingHTTPServer((ADDRESS, port), Proxy) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]))
