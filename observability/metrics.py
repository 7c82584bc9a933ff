"""Prometheus metrics of a process, on the loopback only; metrics are declared beside what they count."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, start_http_server

from contracts.settings import LogSettings
from observability import logs

# Scraped from the same machine; whoever wants them elsewhere puts a scraper or a proxy beside the process.
ADDRESS = "127.0.0.1"

# Every process that moves data has these two, so they are declared once; `flow` says which of its flows.
EVENTS = Counter("electrored_events_total", "Records moved", ["flow"])
LAG = Gauge("electrored_lag_events", "Offsets between what was moved and the end of the log", ["flow"])

_log = logs.get(__name__)


def serve(settings: LogSettings | None = None) -> int | None:
    """Serve `/metrics` in a daemon thread if a port is set; gives the port that listens.

    A port that is taken is a warning and not an end: data moves on without being watched.
    """
    port = (settings or LogSettings()).metrics_port
    if port is None:
        return None
    try:
        server, _ = start_http_server(port, addr=ADDRESS)
    except OSError as error:
        _log.warning("metrics are not served", port=port, reason=str(error))
        return None
    return int(server.server_port)
