"""What openlineage-python's settings name is sent to, and what its backend does not take is known here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

from lineage.emitter import START
from lineage.events import EventRefused, restored
from lineage.transports import queues
from observability.progress_report import ProgressReport
from tests.support.lineage_events import JOBS, run_event

TRANSFORMER = (
    "openlineage.client.transport.transform.transformers.job_namespace_replace_transformer."
    "JobNamespaceReplaceTransformer"
)


class Backend(HTTPServer):
    """Answers every request with `status`, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.status = 201
        self.given: list[dict[str, Any]] = []


class Answering(BaseHTTPRequestHandler):
    server: Backend

    def do_POST(self) -> None:
        self.server.given.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def settings(url: str) -> dict[str, dict[str, str]]:
    """The environment of a process, by where `async_http` stands in it."""
    plain = {"type": "async_http", "url": url, "max_concurrent_requests": 3}
    prefix = "OPENLINEAGE__TRANSPORT__"
    return {
        "alone": {f"{prefix}TYPE": "async_http", f"{prefix}URL": url},
        "in a composite": {f"{prefix}TYPE": "composite", f"{prefix}TRANSPORTS": json.dumps({"it": plain})},
        "behind a transformer": {
            f"{prefix}TYPE": "transform",
            f"{prefix}TRANSPORT": json.dumps(plain),
            f"{prefix}TRANSFORMER_CLASS": TRANSFORMER,
            f"{prefix}TRANSFORMER_PROPERTIES": json.dumps({"new_job_namespace": "shop"}),
        },
    }


@pytest.mark.parametrize("where", ["alone", "in a composite", "behind a transformer"])
def test_an_event_that_an_asynchronous_backend_does_not_take_is_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for name, value in settings(f"http://127.0.0.1:{backend.server_port}")[where].items():
        monkeypatch.setenv(name, value)
    (send,) = queues(None).values()
    event = restored(json.dumps(run_event(JOBS[0], START, ProgressReport())))
    # Nobody is there, as far as this answer goes; the library does not ask again by itself.
    backend.status = 404
    with pytest.raises(requests.HTTPError):
        send(event)
    backend.status = 422
    with pytest.raises(EventRefused):
        send(event)
    backend.status = 201
    send(event)
    assert [given["run"]["runId"] for given in backend.given] == [event.run.runId] * 3
