"""Prometheus metrics of a process; declared beside the code that counts, and here if several packages count.

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

# Every process that moves data has these, so they are declared once; `flow` is one of its flows.
EVENTS = Counter(
    "electrored_events_total",
    "Records processed by a flow: events, groups of merge, rows; no watermarks",
    ["flow"],
)
LAG = Gauge(
    "electrored_flow_lag_offsets",
    "Offsets between the flow's position and the end of the partition, transaction markers included",
    ["flow", "partition"],
)
# committed, aborted, fenced, unknown (the broker did not answer clearly) or refused (too large).
TRANSACTIONS = Counter("electrored_transactions_total", "Transactions by outcome", ["flow", "outcome"])
TRANSACTION_SECONDS = Histogram(
    "electrored_transaction_seconds",
    "Duration of committed transactions, from begin to the broker's answer",
    ["flow"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30),
)

_log = logs.get(__name__)


REGISTRY.register(WAITS)
_metrics = make_wsgi_app()


class _Silent(WSGIRequestHandler):
    """Logs no requests: a line for each scrape would be most of the log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _app(environ: dict[str, Any], start_response: Any) -> Any:
    """`/waits` as JSON; the metrics on any other path, as with prometheus_client's own server."""
    if environ["PATH_INFO"] != "/waits":
        return _metrics(environ, start_response)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [WAITS.as_json()]


def serve(settings: LogSettings | None = None) -> int | None:
    """Serve `/metrics` and `/waits` in a daemon thread if a port is set; returns the port.

    A port in use is a warning only: the process goes on without metrics.
    """
    settings = settings or LogSettings()
    port = settings.metrics_port
    if port is None:
        return None
    try:
        server = make_server(settings.metrics_host, port, _app, ThreadingWSGIServer, handler_class=_Silent)
    except OSError as error:
        _log.warning("metrics are not served", port=port, reason=str(error))
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port
