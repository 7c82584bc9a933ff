"""Prometheus metrics of a process; they are declared beside what they count, and here if several rooms count it.

Labels have few values: pipelines, steps, partitions, outcomes. None is taken from data.
"""

from __future__ import annotations

import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from contracts.settings import LogSettings
from observability import logs
from observability.waits import WAITS

# Every process that moves data has these, so they are declared once; `flow` says which of its flows.
EVENTS = Counter(
    "electrored_events_total", "What a flow has moved: events, groups of merge, rows; no watermarks", ["flow"]
)
LAG = Gauge(
    "electrored_flow_lag_offsets",
    "Offsets between what the flow has read and the end; markers count",
    ["flow", "partition"],
)
# committed, aborted, fenced, unknown (the broker did not answer clearly) or refused (too large).
TRANSACTIONS = Counter("electrored_transactions_total", "Transactions by outcome", ["flow", "outcome"])
TRANSACTION_SECONDS = Histogram(
    "electrored_transaction_seconds",
    "From begin to the broker's answer, of those that were committed",
    ["flow"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30),
)

_log = logs.get(__name__)


REGISTRY.register(WAITS)
_metrics = make_wsgi_app()


class _Silent(WSGIRequestHandler):
    """A line for each scrape would be most of the log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _app(environ: dict[str, Any], start_response: Any) -> Any:
    """`/waits` as JSON; any other path is the metrics, as with prometheus_client's own server."""
    if environ["PATH_INFO"] != "/waits":
        return _metrics(environ, start_response)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [WAITS.as_json()]


def serve(settings: LogSettings | None = None) -> int | None:
    """Serve `/metrics` and `/waits` in a daemon thread if a port is set; gives the port that listens.

    A port that is taken is a warning and not an end: data moves on without being watched.
    """
    found = settings or LogSettings()
    port = found.metrics_port
    if port is None:
        return None
    try:
        server = make_server(found.metrics_host, port, _app, ThreadingWSGIServer, handler_class=_Silent)
    except OSError as error:
        _log.warning("metrics are not served", port=port, reason=str(error))
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port
