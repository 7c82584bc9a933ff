"""An HTTP backend of OpenLineage, in Marquez' place."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Marquez(ThreadingHTTPServer):
    """Answers every request with `status`; holds the events that were sent, and those that it took."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.status = 201
        self.sent: list[dict[str, Any]] = []
        self.taken: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Marquez:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Marquez

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sent.append(event)
        if self.server.status == 201:
            self.server.taken.append(event)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on the test's output."""
